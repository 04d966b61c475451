"""The peak of a stage is its own, not that of the stage before."""

import sys

import numpy as np
import pytest

from sequela.serve.folder import memory

MB = 2**20


def test_peak_sees_memory_that_is_gone_again() -> None:
    memory.reset_peak()
    before = memory.peak_mb()
    np.ones(200 * MB, dtype=np.uint8).sum()
    assert memory.peak_mb() > before + 150


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset the peak")
def test_reset_forgets_it() -> None:
    np.ones(300 * MB, dtype=np.uint8).sum()
    high = memory.peak_mb()
    memory.reset_peak()
    assert memory.peak_mb() < high - 150
