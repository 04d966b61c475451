"""One journey for all tests of this folder, made by whichever test process needs it first."""

import fcntl
from pathlib import Path

import pytest

from sequela import TokenSettings


@pytest.fixture(scope="session")
def journey(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The folder of `tests.journey.travel.travel`; write only into folders of other names."""
    from tests.journey.travel import travel

    own = tmp_path_factory.getbasetemp()
    shared = own if worker_id == "master" else own.parent  # of all processes of this run
    folder, done = shared / "journey", shared / "journey.done"
    with (shared / "journey.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # others wait here
        if not done.exists():
            folder.mkdir(exist_ok=True)
            travel(folder, TokenSettings())
            done.touch()
    return folder
