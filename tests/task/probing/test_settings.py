"""INSPECT's rules and those of a cancer registry: task files, a gap, and who is left out, against a naive count."""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sequela.errors import InputError
from sequela.record.dataset import write_dataset
from sequela.record.duration import DAY, MINUTE
from sequela.record.schema import DEATH, FOLLOW_UP_END, SPLITS, SPLITS_FILE
from sequela.task.answers.prediction import read_predictions
from sequela.task.catalog import load_task
from sequela.task.probing.landmarks import Landmark, at_offsets, read_landmarks
from sequela.task.probing.probe import ProbePlan, probe
from sequela.task.probing.settings import LabelWindow, ProbeSettings
from sequela.task.probing.tables import SplitEvents, build_tables
from tests.task.conftest import START, make_events
from tests.task.probing.conftest import write_arm

CT, STAY = "CPT4//71275", "HOSPITAL_ADMISSION//EMERGENCY"
PRESSURE = ("ICD10CM//I27.0", "ICD9CM//416.8", "ICD10CM//I26.9")  # the last is none
FEMR = LabelWindow(MINUTE, drop_lost=True)


def radiology(patients: int = 150) -> list[tuple]:
    """Studies at any time of a course, two of most patients, and what follows at and around the edges of windows."""
    draw, rows = np.random.default_rng(3), []
    for patient in range(patients):
        end = float(draw.choice([25, 30, 180, 200, 365, 405, 600]))
        studies = [0.0, *([40.0] if patient % 3 and end > 40 else [])]
        rows += [(patient, -9000, "MEDS_BIRTH"), *((patient, day, CT) for day in studies)]
        rows.append((patient, -0.5, STAY))  # the first study is taken during a stay
        edges = [0, 1 / 1440, 2 / 1440, 1, 30, 30 + 1 / 1440, 180, 365, *draw.uniform(0, 500, 3)]
        for code in (STAY, PRESSURE[patient % 3]):
            day = float(draw.choice(edges)) + float(draw.choice(studies))
            rows += [(patient, day, code)] if day <= end and draw.random() < 0.6 else []
        rows.append((patient, end, DEATH if draw.random() < 0.4 else FOLLOW_UP_END))
    return rows


def everywhere(events: pl.DataFrame) -> SplitEvents:
    """The same events in all splits."""
    return SplitEvents(*[dict.fromkeys(SPLITS, events)] * 2)


def femr(rows: list[tuple], patient: int, at: float, wanted: tuple[str, ...], days: float, gap: float) -> float | None:
    """Outcome in (gap, days] -> 1; else the record ends before -> None; else 0."""
    mine = [(day, code) for who, day, code in rows if who == patient]
    if any(gap < round((day - at) * 1440) <= days * 1440 and code.startswith(wanted) for day, code in mine):
        return 1.0
    return 0.0 if max(day for day, _ in mine) >= at + days else None


@pytest.mark.parametrize(
    ("name", "wanted", "gap"),
    [
        *((f"inspect_death_{days}d", (DEATH,), 1) for days in (30, 180, 365)),
        *((f"inspect_readmission_{days}d", (STAY,), 1) for days in (30, 180, 365)),
        ("inspect_pulmonary_hypertension_365d", PRESSURE[:2], 1440),
        ("inspect_readmission_180d", (STAY,), 1440),  # a day between the question and what counts
    ],
)
def test_labels_are_those_of_inspect(name: str, wanted: tuple[str, ...], gap: int) -> None:
    rows, task = radiology(), load_task(name)
    events = make_events(rows)
    by_split = everywhere(events)
    (table,) = build_tables([task], at_offsets(["0 days"]), by_split, window=LabelWindow(gap * MINUTE, drop_lost=True))
    found = {(who, time): label for who, time, label, *_ in table.rows["held_out"].rows()}
    dead = {who: day for who, day, code in rows if code == DEATH}
    studies = [(who, day) for who, day, code in rows if code == CT and day <= dead.get(who, np.inf)]
    expected = {
        (who, START + timedelta(days=day)): label
        for who, day in studies
        if (label := femr(rows, who, day, wanted, task.horizon / DAY, gap)) is not None
    }
    assert found == expected
    assert 0 < sum(found.values()) < len(found) < len(studies)  # yes, no, and dropped ones
    assert {"subject_id", "prediction_time", "label", "until_days", "decided"} == set(table.rows["held_out"].columns)


def test_the_stay_of_the_study_is_no_readmission_and_what_comes_with_it_does_not_count() -> None:
    rows = [(1, -1, STAY), (1, 0, CT), (1, 400, FOLLOW_UP_END), (2, 0, CT), (2, 0, STAY), (2, 400, FOLLOW_UP_END)]
    rows += [(3, 0, CT), (3, 5, STAY), (3, 400, FOLLOW_UP_END), (4, 0, CT), (4, 5, DEATH)]
    events = make_events(rows)
    by_split = everywhere(events)
    task = load_task("inspect_readmission_30d")

    def told(window: LabelWindow) -> dict[int, float | None]:
        (table,) = build_tables([task], at_offsets(["0 days"]), by_split, window=window)
        return dict(table.rows["train"].select("subject_id", "label").rows())

    assert told(FEMR) == {1: 0, 2: 0, 3: 1}
    assert told(LabelWindow()) == {1: 0, 2: 1, 3: 1, 4: None}  # the negative control: as every other task is asked


def test_a_probe_honors_the_splits_of_the_data_and_whom_inspect_drops(tmp_path: Path) -> None:
    rows = radiology(240)
    meds = tmp_path / "meds"
    write_dataset(make_events(rows), meds, name="made")
    names = np.array(["train", "tuning", "held_out"])[np.arange(240) % 3]  # a fixed column, by patient
    pl.DataFrame({"subject_id": np.arange(240), "split": names}).write_parquet(meds / SPLITS_FILE)
    studies = pl.DataFrame([(who, day) for who, day, code in rows if code == CT], orient="row", schema=["w", "d"])
    times = [START + timedelta(days=day) for day in studies["d"]]
    cohort = pl.DataFrame({"subject_id": studies["w"], "prediction_time": times}).sort("subject_id", "prediction_time")
    cohort.with_columns(landmark=pl.lit("CT")).write_parquet(tmp_path / "cohort.parquet")
    folder = write_arm(tmp_path / "arm", cohort, np.random.default_rng(0).normal(size=(cohort.height, 4)))
    plan = ProbePlan([load_task("inspect_death_180d")], read_landmarks(tmp_path / "cohort.parquet"))
    settings = ProbeSettings(baselines=False, gap="1 minute", drop_lost=True)
    metrics = probe([folder], meds, tmp_path / "out", plan, settings)["tasks"]["inspect_death_180d@CT"]
    frame = read_predictions(tmp_path / "out" / "inspect_death_180d@CT" / "arm.parquet")[1]
    assert set(frame["subject_id"] % 3) == {2} and metrics["undecidable"] == 0 and metrics["n"] == frame.height
    loose = probe([folder], meds, tmp_path / "all", plan, ProbeSettings(baselines=False))["tasks"]
    assert loose["inspect_death_180d@CT"]["undecidable"] > 0  # others stand for them


MARKS = {
    "start of treatment": "TREATMENT//START", "change of treatment": "TREATMENT//CHANGE",
    "progression": "CANCER//PROGRESSION", "recurrence": "CANCER//RECURRENCE", "end of treatment": "TREATMENT//END",
}  # fmt: skip


SEVERE = ("TOXICITY//GRADE_3//NEUTROPENIA",)


def registry() -> list[tuple]:
    """Courses of cancer: lines of treatment, what they bring, and how they end."""
    draw, rows = np.random.default_rng(4), []
    for patient in range(120):
        day, end = 0.0, float(draw.uniform(300, 900))
        for _ in range(3):
            rows.append((patient, day, "TREATMENT//START//FOLFOX"))
            for code in (*SEVERE, "TOXICITY//GRADE_2", "CANCER//PROGRESSION", "TREATMENT//CHANGE"):
                if draw.random() < 0.5:
                    rows.append((patient, day + float(draw.uniform(5, 150)), code))
            rows.append((patient, day + 151, "TREATMENT//END"))
            rows += [(patient, day + 190, "CANCER//RECURRENCE")] if draw.random() < 0.4 else []
            day += float(draw.uniform(200, 260))
        rows = [row for row in rows if row[0] != patient or row[1] < end]
        rows.append((patient, end, DEATH if draw.random() < 0.5 else FOLLOW_UP_END))
    return rows


def test_the_landmarks_of_a_cancer_registry(tmp_path: Path) -> None:
    """A file made from the records, as docs/how-to/probe.md makes it; three questions at each of its five landmarks."""
    rows = registry()
    events = make_events(rows)
    parts = [
        events.filter(pl.col("code").str.starts_with(code))
        .select("subject_id", prediction_time=pl.col("time") + pl.duration(minutes=1), landmark=pl.lit(name))
        for name, code in MARKS.items()
    ]  # fmt: skip
    pl.concat(parts).write_parquet(tmp_path / "marks.parquet")
    landmarks = read_landmarks(tmp_path / "marks.parquet")
    assert [landmark.name for landmark in landmarks] == list(MARKS)
    by_split = everywhere(events)
    wanted = {
        "cancer_progression_180d": ("CANCER//PROGRESSION", "CANCER//RECURRENCE"),
        "cancer_regimen_change_365d": ("TREATMENT//CHANGE",),
        "cancer_toxicity_90d": ("TOXICITY//GRADE_3", "TOXICITY//GRADE_4", "TOXICITY//GRADE_5"),
    }
    tables = build_tables([load_task(name) for name in wanted], landmarks, by_split)
    assert len(tables) == 15
    for table in tables:
        table.check()
        assert naive(rows, table.landmark, wanted[table.task.name], table.task.horizon / DAY) == {
            (who, time): label for who, time, label, *_ in table.rows["train"].rows()
        }


def naive(rows: list[tuple], landmark: Landmark, wanted: tuple[str, ...], days: float) -> dict[tuple, float | None]:
    """One record after the other: death is an end, after which the answer is no."""
    result: dict[tuple[int, datetime], float | None] = {}
    for patient, time in landmark.given.rows():
        mine = [(START + timedelta(days=day), code) for who, day, code in rows if who == patient]
        last, limit = max(when for when, _ in mine), time + timedelta(days=days)
        if last <= time:  # the record is over
            continue
        within = [(when, code) for when, code in mine if time <= when <= limit]
        died = [when for when, code in within if code == DEATH]
        happened = any(code.startswith(wanted) and not any(when > at for at in died) for when, code in within)
        result[patient, time] = 1.0 if happened else 0.0 if died or last >= limit else None
    return result


def test_wrong_settings_are_told() -> None:
    assert ProbeSettings(gap="24 hours").window == LabelWindow(DAY) and ProbeSettings().window == LabelWindow()
    with pytest.raises(InputError, match=r"`gap` is 'a day'"):
        ProbeSettings(gap="a day")
    with pytest.raises(InputError, match=r"`margin` must be above 0"):
        ProbeSettings(margin=0)
