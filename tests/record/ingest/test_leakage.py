"""A leak that is planted is found and moved; where nothing leaks, nothing moves."""

import datetime as dt

import polars as pl
import pytest

from sequela.record.dataset import read_events, write_dataset
from sequela.record.ingest.leakage import (
    AT_TRANSFER,
    COMPARE,
    KEEP,
    KEPT,
    MOVE,
    MOVED,
    MOVED_AT_TRANSFER,
    LeakageRules,
    boundaries,
    find_leaks,
    move_leaks,
)

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
    moved, counts = move_leaks(leaking)
    assert counts == {MOVED: 20} and moved.schema == leaking.schema and find_leaks(moved).is_empty()
    order = ["subject_id", "time", "code"]
    assert moved.sort(order).equals(clean.sort(order))
    again, none = move_leaks(clean)
    assert none == {MOVED: 0} and again.equals(clean)


# An emergency visit that ends in the very minute in which the hospital stay opens, and a diagnosis in that minute
EMERGENCY = [(1, -1, "ED_ADMISSION"), (1, 0, "ED_DISCHARGE"), *STAY, (1, 0, "ICD10CM//R07")]


def judged(rows: list, at_transfer: str) -> tuple[float, dict]:
    """The day on which the first R07 stands then, and the counts."""
    moved, counts = move_leaks(frame(*rows), LeakageRules(at_transfer=at_transfer))
    time = moved.filter(pl.col("code") == "ICD10CM//R07")["time"][0]
    return (time - DAY).total_seconds() / 86400, counts


@pytest.mark.parametrize("at_transfer", AT_TRANSFER)
def test_a_diagnosis_where_one_stay_closes_and_another_opens(at_transfer):
    well_dated = [*EMERGENCY, (1, 3, "ICD10CM//I21")]
    kept, moved = (0, {MOVED: 0, KEPT: 1}), (3, {MOVED: 0, MOVED_AT_TRANSFER: 1})
    assert judged(well_dated, at_transfer) == (moved if at_transfer == MOVE else kept)
    assert judged(EMERGENCY, at_transfer) == (kept if at_transfer == KEEP else moved)


def test_a_stay_around_the_one_that_opens_tells_as_well():
    ward = [(1, -0.1, "HOSPITAL_ADMISSION"), (1, 5, "ICD10CM//I21"), (1, 5, "HOSPITAL_DISCHARGE//HOME")]
    intensive = [
        (1, -1, "ED_ADMISSION"),
        (1, 0, "ED_DISCHARGE"),
        (1, 0, "ICU_ADMISSION"),
        (1, 2, "ICU_DISCHARGE"),
    ]
    diagnosis = (1, 0, "ICD10CM//R07")
    assert judged([*intensive, *ward, diagnosis], COMPARE) == (0, {MOVED: 0, KEPT: 1})
    assert judged([*intensive, diagnosis, (1, 5, "ICD10CM//I21")], COMPARE)[0] == 2, "no stay is around it"


@pytest.mark.parametrize(
    "beside",
    [
        [(1, 3, "DRG//194")],  # billed at the end, though diagnoses stand at the beginning
        [(1, 2, "ICD10CM//I21")],  # in the middle of the stay
        [(2, 3, "ICD10CM//I21")],  # of another patient
        [(1, 3, "LAB//HB")],
        # of the next stay, which opens then: such a source dates all diagnoses too early
        [(1, 3, "HOSPITAL_ADMISSION//X"), (1, 3, "ICD10CM//I21"), (1, 9, "HOSPITAL_DISCHARGE")],
    ],
)
def test_what_is_no_sign_of_a_source_that_dates_diagnoses_well(beside):
    assert judged([*EMERGENCY, *beside], COMPARE)[0] == 3


def test_rules_say_what_is_known_late_whatever_its_code():
    rows = [*STAY, (1, 0, "SNOMED//22298006"), (1, 0, "SNOMED//27113001"), (1, 0, "ICD10CM//Z99")]
    events = frame(*rows).with_columns(rule=pl.Series([1, 2, 3, 4, 5], dtype=pl.Int16))
    leaks = LeakageRules(late=frozenset([3]), timely=frozenset([5]))
    assert find_leaks(events, leaks)["code"].to_list() == ["SNOMED//22298006"]
    assert find_leaks(events)["code"].to_list() == ["ICD10CM//Z99"], "by codes alone"
    assert find_leaks(events, LeakageRules((), late=frozenset([3])))["row"].to_list() == [2]


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


def test_stays_of_no_length_one_after_another_are_no_stay():
    visits = [(1, day, code) for day in (0, 5, 9) for code in ("ENCOUNTER_START//A", "ENCOUNTER_END//A")]
    assert found(*visits, (1, 0, "ICD10CM//I10"), (1, 5, "ICD10CM//I10")) == []
    control = [
        (1, -1, "ENCOUNTER_START//A"),
        *visits,
        (1, 12, "ENCOUNTER_END//A"),
    ]  # each follows the one before
    assert found(*control, (1, 5, "ICD10CM//I10")) == [("ICD10CM//I10", 9)]


def test_a_transfer_at_the_very_moment_of_discharge_moves_what_may_be_of_the_second_stay():
    first = [(1, 0, "HOSPITAL_ADMISSION"), (1, 3, "ICD10CM//I10"), (1, 3, "HOSPITAL_DISCHARGE")]
    both = [*first, (1, 3, "HOSPITAL_ADMISSION"), (1, 6, "HOSPITAL_DISCHARGE")]
    assert found(*both) == [("ICD10CM//I10", 6)]
    assert found(*both, (1, 6, "ICD10CM//Z51")) == []


def test_of_several_stays_that_open_together_the_last_end_counts():
    rows = [(1, 0, "ICU_ADMISSION"), (1, 0, "ICD10CM//I10"), (1, 1, "ICU_DISCHARGE")]
    assert found(*rows, *STAY) == [("ICD10CM//I10", 3)]


def test_which_codes_are_known_late_may_be_said():
    events = frame(*STAY, (1, 0, "ICD10CM//I10"), (1, 0, "BILL//X"))
    assert find_leaks(events, LeakageRules(("BILL",)))["code"].to_list() == ["BILL//X"]
    assert find_leaks(events, LeakageRules(())).is_empty()


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
    moved, _ = move_leaks(planted)
    same = moved.filter(late)["time"] == events.filter(joined.select(late)[:, 0])["time"]
    assert same.mean() > 0.98


def test_real_emergency_visits_that_close_when_the_stay_opens(shared_data):
    """Every stay with diagnoses gets an emergency visit before it, with a diagnosis of its own at its end."""
    events = pl.read_parquet(shared_data / "ehr/mimic4demo_meds_slim/events.parquet").drop("unit")
    events = events.filter(~pl.col("code").str.starts_with("ED_"))
    coded = events.filter(pl.col("code").str.starts_with("DIAGNOSIS//"))["hadm_id"].unique()
    begins = events.filter(
        pl.col("code").str.starts_with("HOSPITAL_ADMISSION") & pl.col("hadm_id").is_in(coded.implode())
    )
    before = pl.col("time") - pl.duration(hours=5)
    emergency = pl.concat(
        [
            begins.with_columns(code=pl.lit("ED_REGISTRATION"), time=before),
            begins.with_columns(code=pl.lit("ED_OUT")),
            begins.with_columns(code=pl.lit("DIAGNOSIS//ICD//10//R079")),
        ]
    )
    clean = pl.concat([events, emergency])
    _, counts = move_leaks(clean)
    assert begins.height == 275 and counts[KEPT] == 281, "true diagnoses of the emergency department stay"
    assert counts[MOVED] + counts[MOVED_AT_TRANSFER] == 1

    opens = begins.select("hadm_id", begin="time")
    diagnosed = pl.col("code").str.starts_with("DIAGNOSIS//") & pl.col("begin").is_not_null()
    joined = clean.join(opens, on="hadm_id", how="left", maintain_order="left")
    leaking = joined.with_columns(time=pl.when(diagnosed).then("begin").otherwise("time"))
    moved, counts = move_leaks(leaking)
    assert counts == {MOVED: 0, MOVED_AT_TRANSFER: 4_506 + 275}, "and where they leak, none is left there"
    assert find_leaks(moved).is_empty()
