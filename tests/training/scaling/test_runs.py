"""Which runs enter the fits."""

import math
from dataclasses import replace

from sequela.training.scaling.isoflop import isoflop
from sequela.training.scaling.runs import usable
from tests.training.scaling.surface import PUBLISHED


def test_failed_double_and_overtrained_runs_are_left_out_and_told():
    runs = PUBLISHED.study(unique=1e12)
    lost = [replace(runs[0], loss=math.nan, seed=1), replace(runs[0], loss=math.inf, seed=2), runs[3]]
    long = replace(runs[0], tokens=5e12, seed=3)
    kept, notes = usable([*runs, *lost, long], 4)
    assert kept == runs
    assert [note.split(" of ")[0] for note in notes] == ["2", "1", "1"]
    assert isoflop([*runs, *lost]).parameters.exponent == isoflop(runs).parameters.exponent


def test_of_a_run_made_twice_the_later_counts():
    runs = PUBLISHED.study()
    again = replace(runs[3], loss=2 * runs[3].loss)
    assert usable([*runs, again])[0] == [*runs[:3], again, *runs[4:]]
