"""A PostgreSQL server of our own, in a temporary folder, for as long as the tests run."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PASSWORD = "geheim-4711"  # of the server's user, who is called "reader"


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Start a server in `folder`; gives the URI of its database "raw", with user and without password.

    A password is asked for: set PGPASSWORD, or put it into the URI.
    """
    programs = _programs()
    owner = _owner()
    folder.mkdir(parents=True, exist_ok=True)
    for above in (folder, *folder.parents):
        if above.stat().st_uid == os.getuid() and above != Path("/"):
            above.chmod(above.stat().st_mode | 0o011)  # the server's user has to reach it
    (folder / "word").write_text(PASSWORD)
    if owner:
        shutil.chown(folder, owner)
        shutil.chown(folder / "word", owner)
    data, port = folder / "data", _free_port()
    word = ["--auth=scram-sha-256", f"--pwfile={folder / 'word'}", "--username=reader"]
    _run(owner, programs / "initdb", "-D", data, *word, "--encoding=UTF8", "--no-sync")
    options = f"-p {port} -k '' -c listen_addresses=127.0.0.1 -c fsync=off -c shared_buffers=16MB"
    control = [programs / "pg_ctl", "-D", data, "-w", "-t", "60"]
    _run(owner, *control, "-l", folder / "log", "-o", options, "start")
    uri = f"postgresql://reader@127.0.0.1:{port}"
    try:
        execute(f"{uri}/postgres", "CREATE DATABASE raw", autocommit=True)
        yield f"{uri}/raw"
    finally:
        _run(owner, *control, "-m", "immediate", "stop")


def execute(uri: str, *statements: str, autocommit: bool = False) -> None:
    """Run SQL on the server, with its password."""
    dbapi = pytest.importorskip("adbc_driver_postgresql.dbapi")
    address = uri.replace("reader@", f"reader:{PASSWORD}@")
    with dbapi.connect(address, autocommit=autocommit) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        if not autocommit:
            connection.commit()


def _programs() -> Path:
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    folders = [folder for folder in folders if (folder / "initdb").exists()]
    if not folders:
        pytest.skip("no PostgreSQL here: initdb is not found (Debian: apt-get install postgresql)")
    return folders[-1]


def _owner() -> str | None:
    """PostgreSQL refuses to run as root, so root hands it to a user of the system."""
    if os.getuid() != 0:
        return None
    if shutil.which("runuser") is None:
        pytest.skip("PostgreSQL does not run as root, and runuser is not found to change the user")
    import pwd

    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _run(owner: str | None, *command: object) -> None:
    words = [str(word) for word in command]
    words = ["runuser", "-u", owner, "--", *words] if owner else words
    done = subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd="/", timeout=120)
    assert done.returncode == 0, done.stderr.decode()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
