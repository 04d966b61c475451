"""Fixtures that every floor's tests share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets that cannot be bundled (see docs/data.md); tests skip where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SEQUELA_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set SEQUELA_TEST_DATA to run this test")
    return folder
