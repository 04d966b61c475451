"""Files and folders as they lie on disk: which of them count, and what the errors of the system mean.

Every reader of a folder goes by the same rule (`files_below`): links are followed, hidden files and what other programs
leave behind do not count, and whatever cannot be read is an error that names it.
"""

from __future__ import annotations

import errno
import os
import re
import resource
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from sequela.errors import InputError

# Names that systems and programs leave in the folders of their users; names that begin with a dot or ~$ besides
LEFTOVERS = frozenset(
    {"lost+found", "__macosx", "@eadir", "$recycle.bin", "system volume information", "thumbs.db", "desktop.ini",
     "_success", "_temporary", "_delta_log", "__pycache__"}
)  # fmt: skip
ACCESS = "cannot be opened (permission denied): give this user the right to, or use another path"
# What an error of the system means, and what to do; the path comes before it
MEANINGS = {
    errno.EACCES: ACCESS,
    errno.EPERM: ACCESS,
    errno.ENOSPC: "cannot be written: the disk is full; free some space there, or choose another folder",
    errno.EDQUOT: "cannot be written: this user's quota of the disk is used up; free some space there, or choose "
    "another folder",
    errno.EFBIG: "cannot be written: a file would be larger than the system allows; raise the limit (`ulimit -f`), or "
    "choose another folder",
    errno.EIO: "cannot be read or written (input/output error): check the disk",
    errno.EROFS: "cannot be written: the disk is read-only; choose another folder",
    errno.ENAMETOOLONG: "has a name that is too long for the disk: choose a shorter one",
    errno.ELOOP: "is a link that leads back to itself: remove it, or choose another path",
    errno.EMFILE: "cannot be opened, because too many files are open: raise the limit (`ulimit -n`)",
    errno.ENFILE: "cannot be opened, because too many files are open on this machine: try again later",
    errno.ESTALE: "cannot be reached any more (stale file handle): check the network drive",
    errno.ENODEV: "cannot be reached (no such device): check the drive",
    errno.ENOTCONN: "cannot be reached (not connected): check the network drive",
    errno.ENOTDIR: "is not a folder, or lies below a file: check the path",
    errno.EISDIR: "is a folder, and should be a file: check the path",
}  # fmt: skip
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# Libraries in other languages wrap the system's error in their own, so that only its words or its number are left
WORDS = {os.strerror(code).lower(): code for code in MEANINGS}
NUMBER = re.compile(r"\bos error (\d+)|\berrno\W{1,5}(\d+)", re.IGNORECASE)
SHORT_WRITE = re.compile(r"\d+ requested and \d+ written|unexpected pos \d+ vs \d+")  # numpy, torch


def counts(name: str) -> bool:
    """Whether a file or folder of this name is looked at: not if it is hidden, or left behind by another program.

    >>> [counts(name) for name in ("0.parquet", "._0.parquet", "~$visits.csv", "_SUCCESS", "visits.csv~")]
    [True, False, False, False, False]
    """
    return not (name.startswith((".", "~$")) or name[1:].endswith("~") or name.lower() in LEFTOVERS)


def files_below(folder: Path, ending: str = "", *, broken_links: bool = False) -> list[Path]:
    """The files below `folder` that count and whose names end in `ending`, sorted; linked folders are entered.

    Args:
        broken_links: list links to nothing too, in place of an error.

    Raises:
        InputError: naming a folder that cannot be read, or a link to nothing.
    """
    paths = [
        path
        for path in _walk(Path(folder), (os.path.realpath(folder),), broken_links)
        if path.name.endswith(ending)
    ]
    for path in paths:
        if not broken_links:
            check_text(path)
    return sorted(paths)


def _walk(folder: Path, above: tuple[str, ...], broken_links: bool) -> Iterator[Path]:
    """`above` are the real paths of the folder and those it lies in: a link to one of them is not entered."""
    for name, kind in entries(folder):
        path = folder / name
        if kind == "file" or (kind == "broken" and broken_links):
            yield path
        elif kind == "broken":
            raise broken_link(path)
        elif kind == "folder":
            real = os.path.realpath(path)
            if real not in above:
                yield from _walk(path, (*above, real), broken_links)


def entries(folder: Path, *, hidden: bool = False) -> list[tuple[str, str]]:
    """What lies in `folder` and counts, sorted by name: its name, and "file", "folder", "broken" link or "other".

    A folder that is not there holds nothing. With `hidden`, names that begin with a dot are listed too.

    Raises:
        InputError: if the folder cannot be read.
    """
    try:
        with plain_errors(folder), os.scandir(folder) as listed:
            return sorted(
                (entry.name, _kind(entry))
                for entry in listed
                if counts(entry.name.lstrip(".") if hidden else entry.name)
            )
    except FileNotFoundError:
        if Path(folder).is_symlink():
            raise broken_link(Path(folder)) from None
        return []


def _kind(entry: os.DirEntry) -> str:
    try:
        if entry.is_file():
            return "file"
        if entry.is_dir():
            return "folder"
        return "broken" if entry.is_symlink() and not Path(entry.path).exists() else "other"
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOENT, errno.ENOTDIR):
            return "broken"
        raise


def broken_link(path: Path) -> InputError:
    """The error for a link to nothing, or to itself."""
    try:
        path.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return InputError(f"{path} {MEANINGS[errno.ELOOP]}.")
    return InputError(f"{path} is a link to nothing: bring back what it leads to, or remove the link.")


def check_readable(path: Path) -> None:
    """Open a file and close it: some libraries say of a file that may not be read that it is not there.

    Raises:
        InputError: if it may not be read.
        OSError: if it cannot be opened for another reason.
    """
    with plain_errors(path), Path(path).open("rb"):
        pass


def check_working_folder() -> None:
    """Check that the folder that relative paths start from is there.

    Raises:
        InputError: if it was deleted.
    """
    try:
        Path.cwd()
    except FileNotFoundError:
        raise InputError("the working folder is gone: change to another folder, and run this again.") from None


def check_text(path: Path) -> None:
    """Check that a path is text: libraries that read and write tables take no other.

    Raises:
        InputError: naming it, if it holds bytes that are no UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode(errors="backslashreplace")
        raise InputError(
            f"the path {shown} is not UTF-8 text here: rename it, or set a UTF-8 locale such as LC_ALL=C.UTF-8."
        ) from None


def system_code(error: BaseException | None) -> int | None:
    """The number (`errno`) of the system's error behind an exception, also one that a library made of it."""
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        code = error.errno if isinstance(error, OSError) else None
        code = code or _code_in(str(error))
        if code in MEANINGS:
            return code
        error = error.__cause__ or error.__context__
    return None


def _code_in(message: str) -> int | None:
    number = NUMBER.search(message)
    if number is not None:
        return int(next(filter(None, number.groups())))
    if SHORT_WRITE.search(message):
        limited = resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY
        return errno.EFBIG if limited else errno.ENOSPC
    lowered = message.lower()
    return next((code for words, code in WORDS.items() if words in lowered), None)


@contextmanager
def plain_errors(path: Path | str | None = None) -> Generator[None]:
    """Turn errors of the system into sentences (see `system_error`); all others pass."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        sentence = system_error(error, path)
        if sentence is None:
            raise
        raise sentence from error


def system_error(error: BaseException, path: Path | str | None = None) -> InputError | None:
    """The sentence for an error that the system or its locale made; None if it is another error.

    Args:
        path: what could not be read or written, where the error itself does not say it.
    """
    if isinstance(error, UnicodeEncodeError) and "surrogates" in error.reason:
        return InputError(
            "a name or a word given here is not UTF-8 text: spell it so, or set a UTF-8 locale such as LC_ALL=C.UTF-8."
        )
    code = system_code(error)
    if code is None:
        return None
    named = getattr(error, "filename", None)
    where = path if named is None or isinstance(named, int) else os.fsdecode(named)
    return InputError(f"{where if where is not None else 'a file'} {MEANINGS[code]}.")
