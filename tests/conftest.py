"""Fixtures that every floor's tests share. Shapes in public signatures are checked while the tests run."""

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

# Two test processes share two cores: torch threads of their own would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from jaxtyping import install_import_hook

install_import_hook(["sequela.model", "sequela.rollout.engine.sampling"], "beartype.beartype")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets that cannot be bundled; tests skip where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SEQUELA_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set SEQUELA_TEST_DATA to run this test")
    return folder


@pytest.fixture(scope="session")
def world_meds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MEDS dataset of 600 patients of the known world."""
    from sequela.record.dataset import write_dataset
    from sequela.record.worlds.markov import MarkovWorld

    out = tmp_path_factory.mktemp("world") / "meds"
    write_dataset(MarkovWorld.known().events(600, seed=0), out, name="known world", metadata={"real_dates": False})
    return out


@pytest.fixture(scope="session")
def world_corpus(world_meds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus of `world_meds`."""
    from sequela.tokens.ehr.tokenize import tokenize

    out = tmp_path_factory.mktemp("world") / "corpus"
    out.mkdir()
    tokenize(world_meds, out)
    return out


@pytest.fixture
def locked() -> Callable[[Path], AbstractContextManager]:
    """`with locked(path)`: a file or folder that this thread may not open, also where the tests run as root."""
    return _locked


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    mode, root = path.stat().st_mode, os.geteuid() == 0
    before = _capabilities() if root else []
    path.chmod(0)
    try:
        if root:
            _set([before[0] & ~_OPEN_ANYTHING, *before[1:]])
        if os.access(path, os.R_OK, effective_ids=True):
            pytest.skip("root may open everything here")
        yield
    finally:
        if root:
            _set(before)
        path.chmod(mode)


# Root may open whatever it likes by two capabilities of the thread, which can be laid down and taken up again (Linux)
_HEADER, _OPEN_ANYTHING = (0x20080522, 0), 0b110


def _capabilities() -> list[int]:
    words = (ctypes.c_uint32 * 6)()
    ctypes.CDLL(None).capget((ctypes.c_uint32 * 2)(*_HEADER), words)
    return list(words)


def _set(words: list[int]) -> None:
    ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(*_HEADER), (ctypes.c_uint32 * 6)(*words))
