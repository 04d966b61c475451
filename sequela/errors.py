"""The one exception meant for users, and what its sentences share: suggestions, and a word on URIs."""

import difflib
import re
from collections.abc import Iterable
from pathlib import Path

URI = re.compile(r"\s*\w[\w+.:-]+:/")  # any scheme, even if a Path has merged its slashes


class InputError(ValueError):
    """A problem that the user can fix.

    The message is one sentence: it names the file and the row or column, says what is wrong, and what to do about it.
    The command line prints it to stderr and exits with code 2. Every other exception is a bug of ours.
    """

    def __init__(self, message: str) -> None:
        """Join the lines of `message`: a quoted name or a library's own message may span several."""
        super().__init__(" ".join(message.splitlines()))


def closest(word: str, known: Iterable[str], most: int = 1, cutoff: float = 0.6) -> list[str]:
    """At most `most` distinct known words similar to `word`, best first.

    Args:
        cutoff: the least similarity (Ratcliff and Obershelp's ratio, in [0, 1]).

    >>> closest("nafdl", ["mimic4", "nafld"])
    ['nafld']
    """
    return difflib.get_close_matches(word, list(dict.fromkeys(known)), n=most, cutoff=cutoff)


def nearest(word: str, known: Iterable[str]) -> str:
    """The suggestion " (did you mean 'X'?)" for an error message; empty if no known word is similar to `word`."""
    similar = closest(word, known)
    return f" (did you mean '{similar[0]}'?)" if similar else ""


def coming_near(similar: Iterable[str]) -> str:
    """The hint " (near it: A, B)" at words that come near to one; empty if there are none."""
    listed = ", ".join(similar)
    return f" (near it: {listed})" if listed else ""


def refuse_uri(path: str | Path) -> None:
    """Refuse a URI in place of a path.

    Raises:
        InputError: if it is one. The message omits it, because it may contain a password.
    """
    if URI.match(str(path)) and not Path(path).exists():
        raise InputError(
            "this kind of URI cannot be read here: give a path; raw tables may also be on a server, "
            "postgresql://USER@HOST:PORT/DATABASE."
        )
