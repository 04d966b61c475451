"""One small demo for all tests of this floor: every stage for real, on a part of the bundled cohort."""

import fcntl
from pathlib import Path

import polars as pl
import pytest

from sequela.record.cohort import nafld
from sequela.record.dataset import read_events, write_dataset
from sequela.serve.presets import Preset, preset, with_file
from sequela.serve.stages.demo import demo

EVERY = 12  # one in so many patients
SMALL = """
[train]
depth = 1
context = 256
batch-tokens = 4096
epochs = 1

[simulate]
rollouts = 6
limit = 64
"""


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder that all workers of this test run share."""
    own = tmp_path_factory.getbasetemp()
    return own if worker_id == "master" else own.parent


@pytest.fixture(scope="session")
def small_meds(workplace: Path) -> Path:
    """A MEDS dataset: every twelfth patient of the bundled cohort."""
    folder = workplace / "small-meds"
    with _only_one(workplace):
        if not folder.exists():
            events = read_events(nafld())
            some = events["subject_id"].unique().sort().gather_every(EVERY)
            write_dataset(
                events.filter(pl.col("subject_id").is_in(some.implode())), folder, name="nafld-small"
            )
    return folder


@pytest.fixture(scope="session")
def small_config(workplace: Path) -> Path:
    """Settings for a demo of seconds."""
    path = workplace / "small.toml"
    path.write_text(SMALL)
    return path


@pytest.fixture
def small(small_config: Path) -> Preset:
    """The demo's settings with those of `small_config`."""
    return with_file(preset("nafld"), small_config)


@pytest.fixture(scope="session")
def small_demo(workplace: Path, small_meds: Path, small_config: Path) -> Path:
    """The folder of a finished demo on `small_meds`; read it, do not write into it."""
    folder = workplace / "small-demo"
    with pytest.MonkeyPatch.context() as patch, _only_one(workplace):
        patch.setattr("sequela.serve.stages.demo.nafld", lambda: small_meds)
        demo(out=folder, config=small_config)
    return folder


class _only_one:
    """Other workers wait here."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "lock"

    def __enter__(self) -> None:
        self.file = self.path.open("w")
        fcntl.flock(self.file, fcntl.LOCK_EX)

    def __exit__(self, *error: object) -> None:
        self.file.close()
