"""A cohort whose strokes depend on age and a lab value, and vectors that know of it, or do not."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sequela.record.dataset import read_events
from sequela.record.duration import DAY
from sequela.rollout.embeddings.folder import EmbeddingFacts, write_embeddings
from sequela.task.baselines.baseline import TrainingSample
from sequela.task.probing.heads import ProbeRows

WIDTH = 6


def make_rows(count: int, seed: int, width: int = WIDTH, strength: float = 2.0) -> ProbeRows:
    """Rows whose first number alone moves the outcome."""
    draw = np.random.default_rng(seed)
    values = draw.normal(size=(count, width)).astype(np.float32)
    outcome = (draw.random(count) < 1 / (1 + np.exp(1 - strength * values[:, 0]))).astype(float)
    return ProbeRows(np.arange(count), TrainingSample(values, outcome, np.ones(count)))


def write_arm(folder: Path, questions: pl.DataFrame, vectors: np.ndarray, objective: str = "next_token") -> Path:
    facts = EmbeddingFacts("model/", "last", vectors.shape[1], objective)
    write_embeddings(folder, facts, [(questions, vectors)])
    return folder


@pytest.fixture(scope="session")
def daily(cohort_folder: Path) -> tuple[pl.DataFrame, np.ndarray]:
    """Questions of every patient on days 1 to 6, and what is true of each: age, lab value, and noise, [N, 6]."""
    events = read_events(cohort_folder)
    entry = events.filter(pl.col("code") == "ENTRY").select("subject_id", "time")
    born = events.filter(pl.col("code") == "MEDS_BIRTH").select("subject_id", born="time")
    lab = events.filter(pl.col("code") == "LAB//A").select("subject_id", lab="numeric_value")
    known = entry.join(born, on="subject_id").join(lab, on="subject_id").sort("subject_id")
    days = pl.DataFrame({"day": list(range(1, 7))})
    rows = known.join(days, how="cross").with_columns(
        prediction_time=pl.col("time") + pl.duration(days="day"),
        age=(pl.col("time") - pl.col("born")).dt.total_microseconds() / DAY / 365.25,
    )
    truth = rows.select((pl.col("age") - 65) / 20, "lab").to_numpy()
    noise = np.random.default_rng(7).normal(size=(len(truth), WIDTH - 2))
    return rows.select("subject_id", "prediction_time"), np.c_[truth, noise].astype(np.float32)


@pytest.fixture(scope="session")
def arms(daily: tuple[pl.DataFrame, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Embeddings folders: of what is true, of what is true and noise, and of noise alone."""
    questions, truth = daily
    home, draw = tmp_path_factory.mktemp("arms"), np.random.default_rng(8)
    made = {
        "knowing": truth,
        "blurred-seed1": truth + draw.normal(size=truth.shape),
        "blurred-seed2": truth + draw.normal(size=truth.shape),
        "blind": draw.normal(size=truth.shape),
    }
    return {name: write_arm(home / name, questions, vectors) for name, vectors in made.items()}
