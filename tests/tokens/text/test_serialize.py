"""Records as text, and the ways in which a record can be told wrongly."""

from datetime import datetime

import polars as pl
import pytest

from sequela.errors import InputError
from sequela.record.events import Events
from sequela.record.validate import checked_events
from sequela.tokens.text.serialize import serialize
from sequela.tokens.text.settings import TextSettings

DATE, PUBLISHED, AGE = TextSettings(), TextSettings(text_numbers="two_decimals"), TextSettings(text_days="age")


def frame(*rows):
    names = ("time", "code", "numeric_value", "text_value")
    filled = [dict(zip(names, (*row, None, None), strict=False)) for row in rows]
    types = {"time": pl.Datetime("us"), "code": pl.String, "numeric_value": pl.Float32, "text_value": pl.String}
    return pl.DataFrame(filled, schema=types).with_columns(subject_id=pl.lit(7, pl.Int64))


def text(settings, *rows):
    (record,) = serialize(Events.of(checked_events(frame(*rows), "events")), settings)
    return record


def at(day, hour=0, month=1, year=2024):
    return datetime(year, month, day, hour)


BIRTH = (at(15, month=3, year=1985), "MEDS_BIRTH")
VISIT = (at(5, 9), "ICD10:C34.90")
LABS = (at(10, 8), "LOINC:2160-0", 1.1), (at(10, 17), "LOINC:2160-0", 1.23)


def test_the_layout_is_the_published_one():
    record = text(PUBLISHED, BIRTH, VISIT, *LABS)
    assert record.text == (
        "Birth: 1985-03-15\n\n\n[2024-01-05]\nICD10:C34.90\n\n[2024-01-10]\nLOINC:2160-0: 1.10, 1.23"
    )
    assert [record.text[place:][:12] for place in record.days] == ["[2024-01-05]", "[2024-01-10]"]


def test_the_newest_day_is_last_and_a_day_has_an_order_of_its_own():
    rows = [
        (at(3), "MEDS_DEATH"), (at(3), "RxNorm:583214"), (at(3), "NOTE//WARD", None, "found asleep"),
        (at(3), "LAB//HB", 9.0), (at(3), "HOSPITAL_ADMISSION//EMERGENCY"), (at(3), "CPT:71260"),
        (at(3), "ICD10CM//I21"), (at(3), "INSURANCE//NONE"), (at(2), "LAB//HB", 10.0),
    ]  # fmt: skip
    lines = text(DATE, *rows).text.split("\n")
    assert lines == [
        "", "[2024-01-02]", "LAB//HB: 10", "", "[2024-01-03]", "INSURANCE//NONE", "ICD10CM//I21",
        "HOSPITAL_ADMISSION//EMERGENCY", "LAB//HB: 9", "CPT:71260", "RxNorm:583214", "MEDS_DEATH",
        "NOTE//WARD: found asleep",
    ]  # fmt: skip


def test_a_code_has_one_line_a_day_with_its_latest_values():
    rows = [(at(1, hour), "LAB//HB", 10.0 + hour) for hour in range(8)]
    assert text(DATE, *rows, (at(1, 9), "LAB//K", 4.0)).text.endswith("LAB//HB: 13, 14, 15, 16, 17\nLAB//K: 4")
    assert text(TextSettings(text_values=1), *rows).text.endswith("LAB//HB: 17")
    assert text(DATE, (at(1), "CPT:1"), (at(1, 2), "CPT:1")).text.count("CPT:1") == 1


def test_small_numbers_are_not_rounded_to_nothing():
    troponin = (at(1), "LAB//TROPONIN", 0.004)
    assert text(DATE, troponin).text.endswith("LAB//TROPONIN: 0.004")
    assert text(PUBLISHED, troponin).text.endswith("LAB//TROPONIN: 0.00")  # as the published checkpoints know it


def test_a_value_is_the_number_or_else_the_text():
    rows = (at(1), "LAB//CULTURE", None, "E. coli"), (at(1, 1), "LAB//CULTURE", 3.0, "three")
    assert text(DATE, *rows).text.endswith("LAB//CULTURE: E. coli, 3")


def test_numbers_in_a_column_of_another_name_are_not_lost_silently():
    events = frame(*LABS).rename({"numeric_value": "value"})
    with pytest.raises(InputError, match=r"'value'.*rename it to 'numeric_value'"):
        checked_events(events, "events")
    both = frame(*LABS).with_columns(value=pl.lit(1.0))  # the control: MEDS has its numbers
    assert checked_events(both, "events")["numeric_value"].null_count() == 0


def test_undated_facts_open_the_record_and_the_end_of_follow_up_is_no_event():
    record = text(DATE, (None, "GENDER//F"), BIRTH, VISIT, (at(9), "FOLLOW_UP//END"))
    assert record.text == "GENDER//F\nBirth: 1985-03-15\n\n\n[2024-01-05]\nICD10:C34.90"


def test_ages_and_days_tell_no_calendar_time():
    rows = ((None, "GENDER//F"), BIRTH, VISIT, *LABS, (at(14, month=3), "CPT:1"), (at(15, month=3), "CPT:2"))
    record = text(AGE, *rows)
    heads = [line for line in record.text.split("\n") if line.startswith("[")]
    assert heads == ["[age 38, day 0]", "[age 38, day 5]", "[age 38, day 69]", "[age 39, day 70]"]
    assert record.text.startswith("GENDER//F\n\n\n[age") and "19" not in record.text and "20" not in record.text
    assert text(AGE, VISIT).text == "\n[day 0]\nICD10:C34.90"


def test_a_record_up_to_a_day_begins_the_longer_one():
    for settings in (DATE, PUBLISHED, AGE):
        short, long = text(settings, BIRTH, VISIT), text(settings, BIRTH, VISIT, *LABS)
        assert long.text.startswith(short.text) and long.days[:1] == short.days


def test_settings_that_do_not_exist_are_refused():
    for wrong in ({"text_days": "week"}, {"text_numbers": "all"}, {"text_values": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
            TextSettings(**wrong)
