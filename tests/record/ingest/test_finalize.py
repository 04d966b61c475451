"""A part becomes a shard: what is kept, in which order, what is dropped for which reason, and what is counted."""

import datetime as dt
from pathlib import Path

import polars as pl
import pytest

from sequela.record.dataset import read_events
from sequela.record.ingest.finalize import Partition, finalize
from sequela.record.timeline import timelines

DAY = dt.datetime(2020, 1, 1)
SCHEMA = {"subject_id": pl.Int64, "time": pl.Datetime("us"), "code": pl.String, "numeric_value": pl.Float32,
          "text_value": pl.String, "media": pl.String, "unit": pl.String, "rule": pl.Int16, "position": pl.Int64,
          "reason": pl.String, "named": pl.Boolean}  # fmt: skip


@pytest.fixture
def finalized(tmp_path):
    def run(rows: list[tuple], splits: dict[int, str] | None = None, payload: tuple[str, ...] = ()):
        """Rows are (patient, day, code, value, rule), and perhaps text, unit, position, reason, media."""
        full = []
        for patient, day, code, value, rule, *more in rows:
            text, unit, position, reason, media = [*more, *(None, None, 0, None, None)[len(more) :]]
            time = None if day is None else DAY + dt.timedelta(days=day)
            full.append((patient, time, code, value, text, media, unit, rule, position, reason, False))
        half = len(full) // 2
        for name, some in (("a", full[half:]), ("b", full[:half])):
            pl.DataFrame(some, SCHEMA, orient="row").write_parquet(tmp_path / f"{name}.parquet")
        said = ()
        if splits:
            said = (tmp_path / "splits.parquet",)
            pl.DataFrame({"subject_id": list(splits), "split": list(splits.values())}).write_parquet(said[0])
        files = (tmp_path / "a.parquet", tmp_path / "b.parquet")
        shares = (1.0, 0.0, 0.0)
        return finalize(Partition(0, files, said, tmp_path / "out", tmp_path / "counts", shares, frozenset(payload)))

    return run


def written(tmp_path: Path) -> list[tuple]:
    return [
        (code, value) for code, value in read_events(tmp_path / "out").select("code", "numeric_value").rows()
    ]


def test_order_is_time_then_rule_then_position_then_code(finalized, tmp_path):
    finalized(
        [
            (1, 1, "D", None, 1),
            (1, 0, "Z", None, 2),
            (1, 0, "B", None, 1),
            (1, 0, "A", None, 1),
            (1, None, "S", None, 3),
        ]
    )
    assert written(tmp_path) == [("S", None), ("A", None), ("B", None), ("Z", None), ("D", None)]


def test_of_several_ends_of_follow_up_the_last_counts(finalized, tmp_path):
    """As it does for labels and for tokens."""
    account = finalized([(1, 3, "FOLLOW_UP//END", None, 2), (1, 5, "A", None, 1), (1, 7, "FOLLOW_UP//END", None, 2),
                         (1, 8, "A", None, 1)])  # fmt: skip
    assert account.dropped == {(1, "after follow-up end"): 1}
    assert account.patients_with["several ends of follow-up"] == 1
    (timeline,) = timelines(read_events(tmp_path / "out"))
    assert dt.datetime(1970, 1, 1) + dt.timedelta(microseconds=timeline.end) == DAY + dt.timedelta(days=7)


def test_impossible_ages_are_counted(finalized):
    births = [(patient, 0, "MEDS_BIRTH", None, 1) for patient in (1, 2, 3)]
    account = finalized([*births, (1, 119 * 365, "A", None, 2), (2, 300 * 365, "A", None, 2), (3, -9, "A", None, 2),
                         (3, -8, "A", None, 2), (3, 9, "A", None, 2)])  # fmt: skip
    assert account.patients_with["older than 120 years"] == account.patients_with["events before birth"] == 1


def test_procedures_where_stays_open_are_counted_and_not_moved(finalized, tmp_path):
    stays = [(1, 0, "HOSPITAL_ADMISSION//X", None, 1), (1, 4, "HOSPITAL_DISCHARGE//Y", None, 1)]
    account = finalized([*stays, (1, 0, "ICD10PCS//0DTJ4ZZ", None, 2), (1, 2, "ICD10PCS//0DTJ4ZZ", None, 2),
                         (1, 0, "ICD10CM//I10", None, 3), (1, 0, "LAB//HB", None, 4)])  # fmt: skip
    assert account.at_opening == {"ICD10PCS": 1, "LAB": 1} and account.with_time["ICD10PCS"] == 2
    assert account.moved == {"at admission -> at discharge": 1}
    times = dict(read_events(tmp_path / "out").select("code", "time").rows())
    assert times["ICD10CM//I10"] == DAY + dt.timedelta(days=4)


def test_a_source_with_an_order_of_its_own_keeps_it(finalized, tmp_path):
    finalized([(1, 0, "A", None, 1, None, None, 2), (1, 0, "B", None, 1, None, None, 1)])
    assert written(tmp_path) == [("B", None), ("A", None)]


def test_reasons(finalized, tmp_path):
    account = finalized([
        (1, 0, "MEDS_BIRTH", None, 1), (1, -1, "A", 1.0, 2), (1, 1, "A", 1.0, 2), (1, 1, "A", 1.0, 3),
        (1, 1, "A", 2.0, 3), (1, 9, "FOLLOW_UP//END", None, 4), (1, 10, "A", 1.0, 2), (2, 10, "A", 1.0, 2),
        (1, 5, "A", 1.0, 2, None, None, 0, "no"),
    ])  # fmt: skip
    assert account.dropped == {(2, "before birth"): 1, (3, "duplicate"): 1, (2, "after follow-up end"): 1}
    assert account.events == {1: 1, 2: 2, 3: 1, 4: 1}
    assert written(tmp_path) == [
        ("MEDS_BIRTH", None),
        ("A", 1.0),
        ("A", 2.0),
        ("FOLLOW_UP//END", None),
        ("A", 1.0),
    ]
    assert account.patients == {"train": 2}
    assert account.first[2] == DAY + dt.timedelta(days=1) and account.last[2] == DAY + dt.timedelta(days=10)


def test_texts_tell_events_apart(finalized, tmp_path):
    account = finalized(
        [(1, 0, "A", None, 1, "x"), (1, 0, "A", None, 1, "y"), (1, 0, "A", None, 1, "y")],
        payload=("text_value",),
    )
    assert account.dropped == {(1, "duplicate"): 1}
    assert read_events(tmp_path / "out")["text_value"].to_list() == ["x", "y"]


def test_media_tell_events_apart(finalized, tmp_path):
    rows = [(1, 0, "A", None, 1, "x", None, 0, None, name) for name in ("2.png", "1.png", "2.png", None)]
    assert finalized(rows, payload=("text_value", "media")).dropped == {(1, "duplicate"): 1}
    assert read_events(tmp_path / "out")["media"].to_list() == [None, "1.png", "2.png"]


def test_counts_by_code_and_unit(finalized, tmp_path):
    finalized(
        [
            (1, 0, "A", 1.0, 1, None, "g"),
            (1, 1, "A", 1.0, 1, None, "kg"),
            (2, 1, "A", 1.0, 1, None, "kg"),
            (2, 1, "B", None, 1),
        ]
    )
    read = lambda name: pl.read_parquet(tmp_path / f"counts/{name}/0.parquet")  # noqa: E731
    assert read("codes").sort("code").rows() == [("A", 3, 2), ("B", 1, 1)]
    assert read("units").sort("unit").rows() == [("A", "g", 1), ("A", "kg", 2)]
    assert read("splits").rows() == [(1, "train"), (2, "train")]


def test_splits_of_the_source_win(finalized, tmp_path):
    account = finalized([(patient, 0, "A", None, 1) for patient in (1, 2, 3)], {1: "held_out", 2: "tuning"})
    assert account.patients == {"held_out": 1, "tuning": 1, "train": 1}
    assert read_events(tmp_path / "out", "tuning")["subject_id"].to_list() == [2]


def test_the_same_event_of_two_rules_is_one_even_where_others_stand_between(finalized, tmp_path):
    account = finalized(
        [(1, 0, "B", None, 1), (1, 0, "A", None, 2), (1, 0, "B", None, 3), (1, 0, "A", None, 2)]
    )
    assert account.dropped == {(2, "duplicate"): 1, (3, "duplicate"): 1}
    assert written(tmp_path) == [("B", None), ("A", None)]


def test_repeated_events_of_a_source_with_an_order_of_its_own(finalized, tmp_path):
    rows = [(1, 0, code, None, 1, None, None, position) for position, code in enumerate("BABA", 1)]
    assert finalized(rows).dropped == {(1, "duplicate"): 2}
    assert written(tmp_path) == [("B", None), ("A", None)]


def test_what_leaks_is_moved_and_odd_patients_are_counted(finalized, tmp_path):
    account = finalized([
        (1, 0, "HOSPITAL_ADMISSION", None, 1), (1, 0, "ICD10CM//I10", None, 2), (1, 1, "A", None, 3),
        (1, 4, "HOSPITAL_DISCHARGE", None, 4), (2, 0, "MEDS_BIRTH", None, 1),
    ])  # fmt: skip
    assert account.moved == {"at admission -> at discharge": 1}
    assert account.patients_with["no birth"] == 1 and account.patients_with["two deaths"] == 0
    codes = ["HOSPITAL_ADMISSION", "A", "ICD10CM//I10", "HOSPITAL_DISCHARGE", "MEDS_BIRTH"]
    assert [code for code, _ in written(tmp_path)] == codes
