"""A leak that is planted is found and moved; where nothing leaks, nothing moves."""

import datetime as dt

import polars as pl
import pytest

from sequela.record.leak import Leaks, boundaries, find_leaks, move_leaks
from sequela.record.store import read_events, write_dataset

DAY = dt.datetime(2020, 1, 1)
SCHEMA = {
    "subject_id": pl.Int64,
    "time": pl.Datetime("us"),
    "code": pl.String,
    "numeric_value": pl.Float32,
}


def frame(*rows: tuple[int, float | None, str]) -> pl.DataFrame:
    """(patient, day, code)."""
    times = [None if day is None else DAY + dt.timedelta(days=day) for _, day, _ in rows]
    cells = [(patient, time, code, None) for (patient, _, code), time in zip(rows, times, strict=True)]
    return pl.DataFrame(cells, SCHEMA, orient="row")


def found(*rows: tuple[int, float | None, str]) -> list[tuple[str, float]]:
    """Code, and the day to which it belongs, of the events that leak."""
    leaks = find_leaks(frame(*rows))
    return [(code, (end - DAY).total_seconds() / 86400) for code, end in leaks.select("code", "end").rows()]


STAY = [(1, 0, "HOSPITAL_ADMISSION//URGENT"), (1, 3, "HOSPITAL_DISCHARGE//HOME")]


def planted(patients: int, day_of_diagnoses: float) -> pl.DataFrame:
    """Two stays of each patient, with the diagnoses on the given day after admission (stays take four days)."""
    rows = []
    for patient in range(patients):
        for start in (10, 50):
            rows += [
                (patient, start, "HOSPITAL_ADMISSION//EMERGENCY"),
                (patient, start, "LAB//HB"),
                (patient, start + day_of_diagnoses, "ICD10CM//E1165"),
                (patient, start + day_of_diagnoses, "ICD9CM//25000"),
                (patient, start + 4, "HOSPITAL_DISCHARGE//HOME"),
            ]
    return frame(*rows).sort("subject_id", "time", maintain_order=True)


def test_all_diagnoses_at_admission_are_found_in_a_dataset_on_disk(tmp_path):
    write_dataset(planted(30, 0), tmp_path / "leaking", name="leaking")
    events = read_events(tmp_path / "leaking")
    leaks = find_leaks(events)
    assert leaks.height == 30 * 2 * 2
    assert leaks["code"].unique().sort().to_list() == ["ICD10CM//E1165", "ICD9CM//25000"]
    assert (leaks["end"] - leaks["time"]).unique().to_list() == [dt.timedelta(days=4)]
    assert events[leaks["row"]]["code"].to_list() == leaks["code"].to_list()


@pytest.mark.parametrize("day", [4, 1.5, 0.01])
def test_a_clean_dataset_has_none(tmp_path, day):
    write_dataset(planted(30, day), tmp_path / "clean", name="clean")
    assert find_leaks(read_events(tmp_path / "clean")).is_empty()


def test_moving_mends_the_planted_leak_and_changes_nothing_else():
    leaking, clean = planted(5, 0), planted(5, 4)
    moved, count, left = move_leaks(leaking)
    assert (count, left) == (20, 0) and moved.schema == leaking.schema and find_leaks(moved).is_empty()
    order = ["subject_id", "time", "code"]
    assert moved.sort(order).equals(clean.sort(order))
    again, *none = move_leaks(clean)
    assert none == [0, 0] and again.equals(clean)


def test_a_diagnosis_where_one_stay_closes_and_another_opens_is_left_and_counted():
    rows = [(1, -1, "ED_ADMISSION"), (1, 0, "ED_DISCHARGE"), *STAY, (1, 0, "ICD10CM//I10")]
    moved, count, left = move_leaks(frame(*rows))
    assert (count, left) == (0, 1) and moved.equals(frame(*rows))


def test_what_is_known_at_admission_stays():
    assert found(*STAY, (1, 0, "LAB//HB"), (1, 0, "CHIEF_COMPLAINT//FEVER"), (1, None, "GENDER//F")) == []


@pytest.mark.parametrize(
    "code", ["ICD10CM//I10", "ICD9CM//4019", "DRG//HCFA//194", "DIAGNOSIS//ICD//10//I10"]
)
def test_codes_that_are_known_late(code):
    assert found(*STAY, (1, 0, code)) == [(code, 3)]
    assert found(*STAY, (2, 0, code)) == [], "another patient's stay"


@pytest.mark.parametrize(
    "opens, closes",
    [
        ("ED_ADMISSION", "ED_DISCHARGE//HOME"),
        ("ED_REGISTRATION", "ED_OUT"),
        ("ICU_ADMISSION//MICU", "ICU_DISCHARGE//SICU"),
        ("ENCOUNTER_START//INPATIENT", "ENCOUNTER_END//INPATIENT"),
    ],
)
def test_kinds_of_stays(opens, closes):
    assert found((1, 0, opens), (1, 0, "ICD10CM//I10"), (1, 2, closes)) == [("ICD10CM//I10", 2)]


def test_encounters_of_another_type_do_not_close_a_stay():
    rows = [(1, 0, "ENCOUNTER_START//INPATIENT"), (1, 0, "DRG//1"), (1, 2, "ENCOUNTER_END//OUTPATIENT")]
    assert found(*rows) == []
    assert found(*rows, (1, 5, "ENCOUNTER_END//INPATIENT")) == [("DRG//1", 5)]


def test_a_stay_without_an_end_keeps_its_diagnoses():
    assert found(STAY[0], (1, 0, "ICD10CM//I10")) == []
    assert (
        found(STAY[0], (1, 0, "ICD10CM//I10"), (1, 9, "HOSPITAL_ADMISSION//X"), (1, 12, "HOSPITAL_DISCHARGE"))
        == []
    )


def test_a_stay_of_no_length_keeps_its_diagnoses_and_its_discharge():
    rows = [(1, 0, "HOSPITAL_ADMISSION"), (1, 0, "HOSPITAL_DISCHARGE"), (1, 0, "ICD10CM//I10")]
    assert found(*rows) == []
    assert found(*rows, (1, 7, "HOSPITAL_ADMISSION"), (1, 9, "HOSPITAL_DISCHARGE")) == []


def test_a_transfer_at_the_very_moment_of_discharge_moves_nothing():
    first = [(1, 0, "HOSPITAL_ADMISSION"), (1, 3, "ICD10CM//I10"), (1, 3, "HOSPITAL_DISCHARGE")]
    assert found(*first, (1, 3, "HOSPITAL_ADMISSION"), (1, 6, "HOSPITAL_DISCHARGE")) == []


def test_of_several_stays_that_open_together_the_last_end_counts():
    rows = [(1, 0, "ICU_ADMISSION"), (1, 0, "ICD10CM//I10"), (1, 1, "ICU_DISCHARGE")]
    assert found(*rows, *STAY) == [("ICD10CM//I10", 3)]


def test_which_codes_are_known_late_may_be_said():
    events = frame(*STAY, (1, 0, "ICD10CM//I10"), (1, 0, "BILL//X"))
    assert find_leaks(events, Leaks(("BILL",)))["code"].to_list() == ["BILL//X"]
    assert find_leaks(events, Leaks(())).is_empty()


def test_boundaries_count_what_opens_and_closes():
    edges = boundaries(frame(*STAY, (1, 3, "HOSPITAL_ADMISSION"), (1, 1, "LAB//HB")))
    assert edges.select("stay", "opens", "closes").rows() == [
        ("HOSPITAL_ADMISSION", 1, 0),
        ("HOSPITAL_ADMISSION", 1, 1),
    ]


def test_real_stays_with_all_diagnoses_at_admission(shared_data):
    events = pl.read_parquet(shared_data / "ehr/mimic4demo_meds_slim/events.parquet")
    assert find_leaks(events).is_empty(), "as it is, diagnoses and DRGs stand at discharge"
    begins = events.filter(pl.col("code").str.starts_with("HOSPITAL_ADMISSION")).select(
        "hadm_id", begin="time"
    )
    late = pl.col("code").str.contains("^(DIAGNOSIS|DRG)//") & pl.col("begin").is_not_null()
    joined = events.join(begins, on="hadm_id", how="left", maintain_order="left")
    planted = joined.with_columns(time=pl.when(late).then("begin").otherwise("time"))
    count = planted.filter(late).height
    assert count == 4_506 + 454
    assert find_leaks(planted).height > 0.98 * count
    moved, *_ = move_leaks(planted)
    same = moved.filter(late)["time"] == events.filter(joined.select(late)[:, 0])["time"]
    assert same.mean() > 0.98
