"""Each odd record is counted, a plain one is not."""

import datetime as dt

import polars as pl
import pytest

from sequela.record.ingest.plausibility import AFTER_DISCHARGE, count_implausible, far_dates

DAY = dt.datetime(2020, 1, 1)
SCHEMA = {"subject_id": pl.Int64, "time": pl.Datetime("us"), "code": pl.String}
PLAIN = [
    (1, None, "GENDER//F"), (1, -9000, "MEDS_BIRTH"), (1, 0, "HOSPITAL_ADMISSION//X"), (1, 3, "HOSPITAL_DISCHARGE//Y"),
    (1, 3, "MEDS_DEATH"), (1, 4, "FOLLOW_UP//END"), (2, None, "GENDER//M"), (2, -9000, "MEDS_BIRTH"),
    (2, 0, "LAB//HB"),
]  # fmt: skip


def odd(*rows: tuple[int, float | None, str]) -> dict[str, int]:
    """What is odd, those with none left out; rows are (patient, day, code)."""
    times = [None if day is None else DAY + dt.timedelta(days=day) for _, day, _ in rows]
    cells = [(patient, time, code) for (patient, _, code), time in zip(rows, times, strict=True)]
    return {
        what: count for what, count in count_implausible(pl.DataFrame(cells, SCHEMA, orient="row")).items() if count
    }


def far(*years: int) -> dict:
    """Of one event in each of these years, and a thousand in each from 2001 to 2020."""
    rows = [("A", year, 1000) for year in range(2001, 2021)] + [(f"Y{year}", year, 1) for year in years]
    return far_dates(pl.DataFrame(rows, {"code": pl.String, "year": pl.Int32, "events": pl.UInt32}, orient="row"))


def test_a_death_at_the_end_of_a_day_of_discharge_is_counted():
    second = 1 / 86400
    stay = [(1, None, "GENDER//F"), (1, -9000, "MEDS_BIRTH"), (1, 0, "HOSPITAL_ADMISSION//X")]
    left = (1, 3.4, "HOSPITAL_DISCHARGE//UNKNOWN")
    assert odd(*stay, left, (1, 4 - second, "MEDS_DEATH")) == {AFTER_DISCHARGE: 1}
    assert odd(*stay, left, (1, 3.9, "MEDS_DEATH")) == {}, "a clock says that it was later"
    assert odd(*stay, left, (1, 5 - second, "MEDS_DEATH")) == {}, "another day"
    assert odd(*stay, (1, 4 - second, "HOSPITAL_DISCHARGE//DIED"), (1, 4 - second, "MEDS_DEATH")) == {}


def test_dates_far_from_most_are_named_by_their_codes():
    assert far() == far(1960, 2035) | {"events": 0, "codes": {}}, "records begin before, and go on"
    assert far(1900, 2059, 9999)["codes"] == {"Y1900": 1, "Y2059": 1, "Y9999": 1}
    assert far(9999, 9999)["codes"] == {"Y9999": 2}
    one = far_dates(pl.DataFrame({"code": ["A"], "year": [2020], "events": [1]}))
    assert one == {"events": 0, "codes": {}, "most": [2020, 2020]}
    assert far_dates(pl.DataFrame(schema={"code": pl.String, "year": pl.Int32, "events": pl.UInt32}))["events"] == 0


def test_a_date_in_every_record_may_be_far():
    def most(**events: int) -> tuple[list[int], int]:
        rows = [("A", int(year[1:]), count) for year, count in events.items()]
        schema = {"code": pl.String, "year": pl.Int32, "events": pl.UInt32}
        found = far_dates(pl.DataFrame(rows, schema, orient="row"))
        return found["most"], found["events"]

    assert most(y1950=60, y2001=60, y2002=60, y9999=120) == ([1950, 2002], 120)
    assert most(y2010=500, y2015=500, y2099=200) == ([2010, 2015], 200)
    assert most(y2010=500, y2099=400) == ([2010, 2099], 0), "too many to be none of the data"
    assert most(y1930=100, y2010=1000) == ([1930, 2010], 0), "births"
    assert most(y9999=10) == ([9999, 9999], 0)


def test_plain_records_have_nothing_odd():
    assert odd(*PLAIN) == {}


@pytest.mark.parametrize(
    "rows, what",
    [
        ([(3, 0, "LAB//HB")], "no birth"),
        ([(3, 0, "LAB//HB")], "no sex"),
        ([(2, -8000, "MEDS_BIRTH")], "two births"),
        ([(1, None, "GENDER//M")], "two sexes"),
        ([(1, 2, "MEDS_DEATH"), (1, 2.5, "MEDS_DEATH")], "two deaths"),
        ([(1, 3.5, "LAB//HB")], "events after death"),
        ([(2, 5, "ICU_DISCHARGE"), (2, 6, "ICU_ADMISSION")], "discharge before admission"),
        ([(2, 1, "ENCOUNTER_END//HOME"), (2, 2, "ENCOUNTER_START//HOME")], "discharge before admission"),
    ],
)
def test_what_is_odd_is_counted_by_patient(rows, what):
    assert odd(*PLAIN, *rows)[what] == 1


def test_what_is_not_odd():
    assert odd(*PLAIN, (2, 2, "ICU_DISCHARGE")) == {}, "a record that begins during a stay"
    assert odd(*PLAIN, (2, 2, "ICU_ADMISSION"), (2, 2, "ICU_DISCHARGE")) == {}, "a stay of no length"
    assert odd(*PLAIN, (2, 2, "ICU_ADMISSION"), (2, 4, "ICU_ADMISSION"), (2, 6, "ICU_DISCHARGE")) == {}


def test_births_and_deaths_that_say_more_count_and_one_sex_in_two_spellings_is_one():
    longer = {"MEDS_DEATH": "MEDS_DEATH//X", "MEDS_BIRTH": "MEDS_BIRTH//Y"}
    plain = [(patient, day, longer.get(code, code)) for patient, day, code in PLAIN]
    assert odd(*plain, (1, None, "SEX//female")) == {}
    assert odd(*plain, (1, 3.5, "LAB//HB"), (1, None, "SEX//male")) == {"two sexes": 1, "events after death": 1}
