import polars as pl
import pytest

from sequela.record.dataset import read_events
from sequela.task.baselines import strong
from sequela.task.baselines.rivals import STRONG, TOKENS
from sequela.task.label import labels
from tests.task.baselines.test_rivals import TASK, compared


def test_bounds_on_memory_are_kept_and_said(cohort_folder, cohort_tokens, monkeypatch):
    whole, _ = compared(cohort_folder, cohort_tokens)
    monkeypatch.setattr(strong, "CHUNK", 400)  # more than the training patients, fewer than would fit at once
    assert compared(cohort_folder, cohort_tokens)[0][STRONG].equals(whole[STRONG])
    monkeypatch.setattr(strong, "MOST_CELLS", 5_000)
    bounded, said = compared(cohort_folder, cohort_tokens)
    assert not bounded[STRONG].equals(whole[STRONG])
    assert any("`strong` learns from" in line and "to save memory" in line for line in said)


@pytest.mark.parametrize("name", [STRONG, TOKENS])
def test_strong_baselines_find_what_there_is(cohort_folder, cohort_tokens, name):
    answers, _ = compared(cohort_folder, cohort_tokens)
    events = read_events(cohort_folder, "held_out")
    truth = labels(TASK, events, TASK.prediction_times(events)).with_columns(risk=answers[name])
    high, low = (truth.filter(pl.col("label") == label)["risk"].mean() for label in (1, 0))
    assert high > 1.3 * low
