"""The bench of recalibration: what noise takes from a risk is given back, and nothing where there is none."""

import importlib
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sequela.task.answers.prediction import write_predictions

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    return importlib.import_module("recalibration")


def predictions(path, votes):
    """Sound risks of 3,000 patients; of so many votes each, or exact."""
    draws = np.random.default_rng(0)
    truth = draws.beta(1, 6, 3000)
    risk = draws.binomial(votes, truth) / votes if votes else truth
    answers = pl.DataFrame(
        {
            "subject_id": np.arange(3000),
            "prediction_time": [datetime(2020, 1, 1)] * 3000,
            "label": (draws.random(3000) < truth).astype(float),
            "until_days": 10.0,
            "decided": "followed",
            "prediction": risk,
            "standard_error": np.sqrt(risk * (1 - risk) / (votes - 1)) if votes else 0 * risk,
        }
    )
    write_predictions(answers, "binary", path)
    return path


def test_noise_is_undone_and_sound_risks_stay(bench, tmp_path):
    noisy, exact = (
        {row["way"]: row for row in bench.rows_of(predictions(tmp_path / name / "sequela.parquet", votes), 400, 5)}
        for name, votes in (("noisy", 10), ("exact", 0))
    )
    assert noisy["raw"]["saved"] == exact["raw"]["saved"] == 0 and noisy["raw"]["draws"] == 5
    assert noisy["credibility alone"]["saved"] > 100 and noisy["raw"]["slope"] < 0.5
    assert noisy["credibility alone"]["slope"] == pytest.approx(1, abs=0.15)
    assert exact["credibility alone"]["saved"] == pytest.approx(0)
    assert exact["line, free"]["saved"] < exact["line, 0.1"]["saved"] < 1  # a sound risk only loses by a map


def test_tasks_with_too_few_events_have_no_rows(bench, tmp_path):
    assert not list(bench.rows_of(predictions(tmp_path / "few" / "sequela.parquet", 0), 20, 3))
