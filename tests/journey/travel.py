"""A journey through the known world: from events to predictions through the public functions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

import sequela
from sequela import SimulateSettings, TokenSettings, TrainSettings
from sequela.record.dataset import read_events, write_dataset
from sequela.record.worlds.markov import MarkovWorld

TASK = Path(__file__).parent / "death_in_a_week.yaml"
NAME = "death_in_a_week"
PATIENTS, CHANCES = 6000, 8
TRAINING = TrainSettings(
    depth=1, context=512, epochs=6, batch_tokens=4096, learning_rate=6e-3, matrix_rate=6e-3
)


@dataclass
class Answers:
    """Predicted and true risk of each held-out patient, and the level they were at."""

    predicted: np.ndarray
    level: np.ndarray
    world: MarkovWorld

    def excess(self, world: MarkovWorld, level: int | None = None) -> float:
        """Mean predicted risk minus mean true risk in `world`, in standard errors.

        The error is that of a share among as many patients as the model has learned from: no estimate from these data
        can be surer than that.
        """
        chosen = np.ones(len(self.level), bool) if level is None else self.level == level
        true = np.array([world.risk(i, CHANCES) for i in range(3)])[self.level[chosen]]
        learned_from = PATIENTS * 0.7 * chosen.mean()
        error = np.sqrt(
            (true * (1 - true)).mean() / learned_from + self.predicted[chosen].var() / chosen.sum()
        )
        return float((self.predicted[chosen].mean() - true.mean()) / error)


def travel(folder: Path, tokens: TokenSettings) -> Path:
    """The folder, with the world, a corpus, a model, simulated futures and the predictions of two estimators."""
    write_dataset(MarkovWorld.known().events(PATIENTS, seed=0), folder / "meds", name="known world")
    sequela.tokenize(folder / "meds", folder / "corpus", settings=tokens)
    sequela.train(folder / "corpus", folder / "model", settings=TRAINING)
    futures(folder, "simulated", SimulateSettings(rollouts=10))
    for estimator in ("scope", "mc"):
        predictions(folder, "simulated", estimator, estimator)
    return folder


def futures(folder: Path, name: str, settings: SimulateSettings, patients: int | None = None) -> dict:
    """Futures of held-out patients, into a folder of that name."""
    return sequela.simulate(
        folder / "model", folder / "meds", folder / name,
        task=str(TASK), patients=patients, settings=settings,
    )  # fmt: skip


def predictions(folder: Path, simulated: str, name: str, estimator: str) -> pl.DataFrame:
    """What the futures in `simulated` say, into a folder of that name."""
    sequela.predict(
        folder / simulated, folder / "meds", folder / name,
        task=str(TASK), estimator=estimator, baselines=False,
    )  # fmt: skip
    return pl.read_parquet(folder / name / NAME / "sequela.parquet")


def read(folder: Path, name: str) -> Answers:
    """The predictions in the folder of that name beside the truth."""
    world = MarkovWorld.known()
    found = pl.read_parquet(folder / name / NAME / "sequela.parquet").drop_nulls(
        "predicted_boolean_probability"
    )
    level = world.level_before(
        read_events(folder / "meds", "held_out"), found.select("subject_id", "prediction_time")
    )
    return Answers(found["predicted_boolean_probability"].to_numpy(), level, world)
