"""Ingest, labels and tokens against a second program: random sources with odd but legal values, read by plain Python.

The second program (`tests/fuzz/differential/`) is written from the documentation and shares no code with the first: no
DuckDB, no polars, one row and one event at a time. It knows what a cell means because it chose the meaning before the
spelling. A few sources are tried here; many more in the slow tests:

    python -m pytest tests/fuzz/test_differential.py -m slow
"""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from functools import cache

import pytest

from tests.fuzz.differential import events, labels, tokens
from tests.fuzz.differential.trial import Trial

FEW = {"clinic": 8, "fhir": 3, "omop": 2}  # reading OMOP takes a second or two
MANY = {"clinic": 300, "fhir": 100, "omop": 100}


@pytest.fixture(scope="module")
def tried(tmp_path_factory):
    """A function that runs a source through both programs, once."""

    @cache
    def trial(kind: str, seed: int) -> Trial:
        return Trial.of(kind, seed, tmp_path_factory.mktemp(f"{kind}-{seed}") / "trial")

    return trial


@pytest.mark.parametrize(
    ("kind", "seed"), [(kind, seed) for kind, number in FEW.items() for seed in range(number)]
)
def test_both_programs_agree(tried, kind, seed):
    assert tried(kind, seed).differences() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "seed"), [(kind, seed) for kind, number in MANY.items() for seed in range(FEW[kind], number)]
)
def test_both_programs_agree_on_many_more(tmp_path, kind, seed):
    assert Trial.of(kind, seed, tmp_path / "trial").differences() == []


def _leaks_stay(patient_events, late):
    return patient_events


def _history_includes_now(task, record):
    later = replace(task.cohort, offset=task.cohort.offset)
    return [
        (patient, at)
        for patient, at in QUESTIONS(replace(task, cohort=later), record)
        if not any(e.patient == patient and e.time == at and e.code == "MEDS_DEATH" for e in record)
    ]


def _ends_come_first(task, record, question):
    """An end at the moment of an outcome wins: the order of tokens, taken for the order of time."""
    patient, at = question
    moved = [
        replace(e, time=e.time + dt.timedelta(microseconds=1))
        if e.patient == patient and e.time and e.time >= at and labels.matches(e.code, task.outcome)
        else e
        for e in record
    ]
    return ANSWER(task, moved, question)


def _a_year_is_365_days(self, born, now):
    if born is None:
        return None
    width = self.settings.age_band_years
    low = min(max((now - born).days // 365, 0), 119) // width * width
    return f"AGE//{low}-{low + width - 1}"


QUESTIONS, ANSWER = labels.questions, labels.answer
OFFENCES = {
    "leaks stay where they are": (events, "move_leaks", _leaks_stay, Trial.of_events),
    "a history includes its last moment": (labels, "questions", _history_includes_now, Trial.of_labels),
    "an end wins a tie": (labels, "answer", _ends_come_first, Trial.of_labels),
    "a year is 365 days": (tokens.NaiveTokenizer, "age", _a_year_is_365_days, Trial.of_tokens),
    "a value at a cut is above it": (
        tokens,
        "quantiles",
        lambda held, number: [0.0] * (number - 1),
        Trial.of_tokens,
    ),
}


@pytest.mark.parametrize("offence", OFFENCES)
def test_an_offence_in_either_program_shows(tried, offence, monkeypatch):
    module, name, wrong, check = OFFENCES[offence]
    monkeypatch.setattr(module, name, wrong)
    trials = [
        replace(tried("clinic", seed)) for seed in range(FEW["clinic"])
    ]  # nothing computed before is kept
    assert any(check(trial) for trial in trials)
