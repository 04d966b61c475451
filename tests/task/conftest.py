"""What the tests of this floor share: tasks, timelines and cohorts that are small enough to check by hand."""

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

from sequela.record.cohort import nafld
from sequela.record.dataset import read_events, write_dataset
from sequela.record.duration import DAY
from sequela.record.schema import BIRTH, DEATH, FOLLOW_UP_END
from sequela.task.task import Task
from sequela.tokens.ehr.settings import TokenSettings
from sequela.tokens.ehr.tokenize import tokenize
from tests.rollout.conftest import rough  # noqa: F401

START = datetime(2000, 1, 1)
ZERO = (START - datetime(1970, 1, 1)) // timedelta(microseconds=1)
EVENTS = {"subject_id": pl.Int64, "time": pl.Datetime("us"), "code": pl.String, "numeric_value": pl.Float32}


def make_task(**changes) -> Task:
    fields = {
        "name": "stroke_10d",
        "title": "Stroke within ten days",
        "dataset": "made",
        "kind": "binary",
        "after": "ENTRY",
        "offset": DAY,
        "outcome": ("STROKE",),
        "ends": (DEATH,),
        "horizon": 10 * DAY,
    }
    return Task.of(fields | changes)


def at_day(day: float | None) -> int | None:
    """Microseconds of a day counted from 2000-01-01."""
    return None if day is None else round(ZERO + day * DAY)


def make_events(rows: list[tuple]) -> pl.DataFrame:
    """MEDS events from (patient, day or None, code[, number])."""
    full = [(row[0], at_day(row[1]), row[2], row[3] if len(row) > 3 else None) for row in rows]
    frame = pl.DataFrame(full, schema={**EVENTS, "time": pl.Int64}, orient="row")
    return frame.cast(EVENTS).sort("subject_id", "time", nulls_last=False, maintain_order=True)


def make_cohort(patients: int, seed: int = 0) -> pl.DataFrame:
    """Events of a cohort followed for 20 days at most: older patients and those with a high lab value have strokes."""
    draw = np.random.default_rng(seed)
    rows = []
    for patient in range(patients):
        age, lab = draw.uniform(40, 90), draw.normal()
        rows += [(patient, None, f"GENDER//{draw.choice(['M', 'F'])}"), (patient, -age * 365.25, BIRTH)]
        rows += [(patient, -draw.integers(1, 9), "LAB//A", lab), (patient, 0, "ENTRY")]
        stroke = draw.exponential(25 * np.exp(-lab - (age - 65) / 20))
        death, lost = draw.exponential(60), draw.uniform(2, 30)
        end = min(death, lost, 20)
        if 1 < stroke < end:
            rows.append((patient, round(stroke, 3), "STROKE"))
        if death == end:
            rows.append((patient, death, DEATH))
        rows.append((patient, end, FOLLOW_UP_END))
    return make_events(rows)


@pytest.fixture(scope="session")
def nafld_events() -> pl.DataFrame:
    return read_events(nafld())


@pytest.fixture(scope="session")
def cohort_folder(tmp_path_factory):
    """A MEDS dataset of 600 made patients in the three splits."""
    folder = tmp_path_factory.mktemp("cohort") / "meds"
    write_dataset(make_cohort(600), folder, name="made", fractions=(0.6, 0.1, 0.3))
    return folder


@pytest.fixture(scope="session")
def cohort_tokens(tmp_path_factory, cohort_folder):
    """A corpus of that dataset, whose tokenizer a model would have."""
    folder = tmp_path_factory.mktemp("tokens")
    tokenize(cohort_folder, folder, TokenSettings(min_patients=2))
    return folder
