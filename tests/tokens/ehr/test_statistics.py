import datetime as dt
from collections import Counter

import numpy as np
import polars as pl
from hypothesis import given, settings

from sequela.record.events import Events
from sequela.record.timeline import STATIC
from sequela.tokens.ehr.encode import MINUTE
from sequela.tokens.ehr.settings import TokenSettings
from sequela.tokens.ehr.statistics import CodeStatistics
from tests.tokens.ehr.test_encode import columns_of, people

PLAIN = TokenSettings(min_patients=1)


def facts(one):
    table = {
        name: (int(one.events[row]), int(one.carriers[row]), int(one.persons[row]))
        for row, name in enumerate(one.names)
        if one.events[row] or one.persons[row]
    }
    parts = {part: int(n) for part, n in zip(one.parts, one.part_carriers, strict=True) if n}
    values = [one.values.numbers().tolist(), one.values.count.tolist()]
    return one.patients, table, parts, values, one.periods.tolist()


@settings(deadline=None)
@given(people, people)
def test_the_counts_of_two_shards_merge_to_those_of_both(left, right):
    whole = columns_of([*left, *right])
    cut = int(np.searchsorted(whole.patient, len(left)))
    shards = [whole.take(np.arange(cut)), whole.take(np.arange(cut, len(whole)))]
    merged = CodeStatistics.merge([CodeStatistics.of(shard, PLAIN) for shard in shards])
    assert facts(merged) == facts(CodeStatistics.of(whole, PLAIN))


@settings(deadline=None)
@given(people)
def test_carriers_are_patients_and_events_are_events(population):
    columns = columns_of(population)
    got = CodeStatistics.of(columns, PLAIN)
    held = {
        (patient, 1970 + time // (525_960 * MINUTE) // 5 * 5)
        for patient, time, code in zip(columns.patient.tolist(), columns.time.tolist(), columns.code, strict=True)
        if time != STATIC and not columns.names[code].startswith(("MEDS_BIRTH", "FOLLOW_UP//END", "GENDER//", "RACE//"))
    }
    assert {5 * row: int(got.periods[row]) for row in np.flatnonzero(got.periods)} == Counter(year for _, year in held)
    for row, name in enumerate(got.names):
        own = (columns.code == row) & (columns.time != STATIC)
        person = name.startswith(("GENDER//", "RACE//"))
        have = len(set(columns.patient[columns.code == row].tolist()))
        assert got.persons[row] == (have if person else 0)
        if person or name in ("MEDS_BIRTH", "FOLLOW_UP//END"):
            assert got.events[row] == 0
        else:
            assert got.events[row] == own.sum()
            assert got.carriers[row] == len(set(columns.patient[own].tolist()))


def test_a_patient_with_a_code_and_a_longer_one_is_one_carrier_of_what_they_share():
    record = pl.DataFrame({
        "subject_id": [1, 1, 1, 2],
        "time": [dt.datetime(2020, 1, day) for day in (1, 2, 3, 1)],
        "code": ["ICD10CM//E11", "ICD10CM//E1165", "ICD10CM//E119", "ICD10CM//I10"],
        "numeric_value": pl.Series([None] * 4, dtype=pl.Float32),
    })  # fmt: skip
    got = CodeStatistics.of(Events.of(record), PLAIN)
    assert dict(zip(got.parts, got.part_carriers.tolist(), strict=True)) == {
        "ICD10CM//1//E11": 1,
        "ICD10CM//1//I10": 1,
        "ICD10CM//2//65": 1,
        "ICD10CM//2//9": 1,
    }


def test_what_is_saved_is_what_is_loaded(tmp_path):
    columns = columns_of([([10], [(3, 12, 1.5), (9, 0, np.nan)], True)])
    got = CodeStatistics.of(columns, PLAIN)
    got.save(tmp_path / "counts.npz")
    assert facts(CodeStatistics.load(tmp_path / "counts.npz")) == facts(got)
