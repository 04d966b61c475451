"""Dates without a clock: no later than the stay, or the record, that ends on their day."""

import datetime as dt

import polars as pl
import pytest

from sequela.record.ingest.day_end import CAPPED_AT_DEATH, CAPPED_AT_STAY, cap_days

DAY = dt.datetime(2020, 1, 5)
STAY = [("HOSPITAL_ADMISSION//X", -48), ("HOSPITAL_DISCHARGE//HOME", 14)]
LAST = 24 - 1 / 3600  # the last second of the day


def capped(*rows: tuple[str, float], named: bool = False) -> tuple[float, dict]:
    """The hour of the day at which the order stands that is dated by the day, and the counts."""
    rows = [*rows, ("ORDER", LAST)]
    cells = [(1, DAY + dt.timedelta(hours=hour), code, named) for code, hour in rows]
    schema = {"subject_id": pl.Int64, "time": pl.Datetime("us"), "code": pl.String, "named": pl.Boolean}
    events, counts = cap_days(pl.DataFrame(cells, schema, orient="row"))
    assert events["code"].to_list() == [code for code, _ in rows]
    return (events["time"][-1] - DAY).total_seconds() / 3600, dict(counts)


def test_the_last_day_of_a_stay_ends_with_it():
    assert capped(*STAY) == (14, {CAPPED_AT_STAY: 1})
    assert capped(*STAY, named=True) == (LAST, {}), "the stay that its row names has decided"
    assert capped() == (LAST, {})


@pytest.mark.parametrize(
    "more",
    [
        [("HOSPITAL_ADMISSION//X", 20)],  # back on the same day, and still there
        [("HOSPITAL_ADMISSION//X", 20), ("HOSPITAL_DISCHARGE//HOME", 40)],
        [("ENCOUNTER_START//OUTPATIENT", 16), ("ENCOUNTER_END//OUTPATIENT", 17)],  # it may be of this visit
        [("ICU_ADMISSION//X", 3), ("ICU_DISCHARGE//X", 30)],  # a part of another stay
    ],
)
def test_what_may_be_of_something_later_stays(more):
    assert capped(*STAY, *more) == (LAST, {})


def test_a_ward_within_the_stay_and_a_visit_are_no_end():
    ward = [("HOSPITAL_ADMISSION//X", -48), ("ICU_ADMISSION//X", -9), ("ICU_DISCHARGE//X", 14)]
    assert capped(*ward, ("HOSPITAL_DISCHARGE//HOME", 60)) == (LAST, {})
    assert capped(("ENCOUNTER_START//OUTPATIENT", 9), ("ENCOUNTER_END//OUTPATIENT", 10)) == (LAST, {})
    assert capped(("HOSPITAL_ADMISSION//X", -48), ("HOSPITAL_DISCHARGE//HOME", -10)) == (LAST, {}), "the day before"


def test_the_day_of_death_ends_with_it():
    assert capped(("MEDS_DEATH//IN_HOSPITAL", 15), named=True) == (15, {CAPPED_AT_DEATH: 1})
    assert capped(("MEDS_DEATH", 15), *STAY) == (14, {CAPPED_AT_STAY: 1}), "whichever is first"
    assert capped(("FOLLOW_UP//END", -9), ("FOLLOW_UP//END", 16)) == (16, {CAPPED_AT_DEATH: 1})
    assert capped(("MEDS_DEATH", 39)) == (LAST, {})


def test_what_opens_and_closes_stays_moves_to_death_alone():
    rows = [("HOSPITAL_ADMISSION//X", -48), ("ICU_DISCHARGE//X", 12), ("HOSPITAL_DISCHARGE//DIED", LAST),
            ("MEDS_DEATH", 15)]  # fmt: skip
    cells = [(1, DAY + dt.timedelta(hours=hour), code) for code, hour in rows]
    events, counts = cap_days(pl.DataFrame(cells, ["subject_id", "time", "code"], orient="row"))
    assert counts == {CAPPED_AT_DEATH: 1} and events["time"][2] == DAY + dt.timedelta(hours=15)


def dated(*rows: tuple[str, float]) -> list[float]:
    """The hours at which the rows stand afterwards."""
    cells = [(1, DAY + dt.timedelta(hours=hour), code) for code, hour in rows]
    events, _ = cap_days(pl.DataFrame(cells, ["subject_id", "time", "code"], orient="row"))
    return [(time - DAY).total_seconds() / 3600 for time in events["time"]]


@pytest.mark.parametrize("said", ["DIED", "EXPIRED", "Died in hospital", "20//DEATH"])
def test_a_day_of_death_is_the_end_of_the_stay_that_ends_with_it(said):
    stay = [("HOSPITAL_ADMISSION//X", -48), (f"HOSPITAL_DISCHARGE//{said}", 14)]
    record = [("ORDER", LAST), ("MEDS_DEATH", LAST), ("FOLLOW_UP//END", LAST)]
    assert dated(*stay, *record) == [-48, 14, 14, 14, 14]
    assert dated(*stay, ("MEDS_DEATH", LAST + 24))[-1] == pytest.approx(LAST + 24), "another day"
    assert dated(*stay, ("HOSPITAL_ADMISSION//X", 16), ("MEDS_DEATH", LAST))[-1] == LAST, "back, and still there"


@pytest.mark.parametrize("said", ["HOME", "UNKNOWN", "ALIVE, NOT DEAD", "DEADWOOD CLINIC"])
def test_who_left_alive_died_later_on_that_day(said):
    stay = [("HOSPITAL_ADMISSION//X", -48), (f"HOSPITAL_DISCHARGE//{said}", 14)]
    assert dated(*stay, ("MEDS_DEATH", LAST), ("FOLLOW_UP//END", LAST)) == [-48, 14, LAST, LAST]
