"""The hidden course of synthetic patients: how much of what can be known do a model's states hold?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from measure.gap import R2, Answered, GapClosed, gap_closed
from sequela.record.dataset import write_shard, write_splits
from sequela.record.questions import QUESTION, write_questions
from sequela.record.schema import HELD_OUT, TRAIN, TUNING
from sequela.record.worlds.belief import ceiling
from sequela.record.worlds.latent import LABS, TREATED, LatentWorld
from sequela.rollout.embeddings.folder import read_embeddings, vectors_of
from sequela.task.baselines.baseline import TrainingSample
from sequela.task.probing.heads import ProbeRows, fit_logistic, fit_ridge
from sequela.task.scoring.bootstrap import Estimate
from sequela.task.scoring.metric import AUROC, Metric

WORLD = LatentWorld(gap=(30.0, 0.5))
COUNTS = {TRAIN: 8000, TUNING: 3000, HELD_OUT: 12_000}
VISITS = (2, 4, 6)  # the third, the fifth and the seventh
ASKED = {"severity": R2, "velocity": R2, "dies": AUROC}


@dataclass(frozen=True)
class HiddenQuestion:
    """What is asked at a visit, counted from 0."""

    name: str
    visit: int

    @property
    def metric(self) -> Metric:
        """What answers are scored by."""
        return ASKED[self.name]

    def __str__(self) -> str:
        return f"{self.name} at visit {self.visit + 1}"


QUESTIONS = [HiddenQuestion(name, visit) for name in ASKED for visit in VISITS]


@dataclass(frozen=True)
class Cohort:
    """Patients of the world in three splits.

    Attributes:
        seed: of everything random.
        counts: patients by split.
    """

    seed: int = 0
    counts: tuple[tuple[str, int], ...] = tuple(COUNTS.items())

    @property
    def patients(self) -> int:
        """In all."""
        return sum(count for _, count in self.counts)

    @cached_property
    def events(self) -> pl.DataFrame:
        """MEDS events."""
        return WORLD.events(self.patients, self.seed)

    @cached_property
    def split(self) -> pl.DataFrame:
        """Patient, split."""
        names = np.repeat([name for name, _ in self.counts], [count for _, count in self.counts])
        return pl.DataFrame({"subject_id": np.arange(self.patients), "split": names})

    @cached_property
    def truth(self) -> pl.DataFrame:
        """What is hidden at the visits that are asked, with the split, and with `best`: what can be known of it."""
        renamed = (pl.col(name).alias(f"{name}_best") for name in ASKED)
        best = ceiling(WORLD, self.events).select("subject_id", "visit", *renamed)
        rows = WORLD.truth(self.patients, self.seed).filter(pl.col("visit").is_in(VISITS))
        return rows.join(best, on=["subject_id", "visit"]).join(self.split, on="subject_id").sort(QUESTION)

    def write(self, meds: Path, labels: Path) -> None:
        """The dataset, and the questions about it."""
        write_shard(self.events, self.split, meds, 0)
        write_splits([self.split], meds)
        write_questions(self.truth.select(QUESTION), labels)

    def last_values(self) -> np.ndarray:
        """Plain features at the truth's rows, float32 [N, F]: first, last and mean labs, treatments, and time."""
        asked = self.truth.select("subject_id", "visit", "prediction_time")
        rows = asked.join(self.events, on="subject_id").filter(pl.col("time") < pl.col("prediction_time"))
        labs = [pl.col("numeric_value").filter(pl.col("code") == lab) for lab in LABS]
        table = rows.group_by("subject_id", "visit").agg(
            *(lab.last().alias(f"last {n}") for n, lab in enumerate(labs)),
            *(lab.mean().alias(f"mean {n}") for n, lab in enumerate(labs)),
            *(lab.first().alias(f"first {n}") for n, lab in enumerate(labs)),
            treated=(pl.col("code") == TREATED).sum(),
            treated_last=(pl.col("code").filter(pl.col("time") == pl.col("time").max()) == TREATED).any(),
            days=(pl.col("time").max() - pl.col("time").sort().get(1)).dt.total_days(),
        )
        values = asked.join(table, on=["subject_id", "visit"], maintain_order="left").drop(asked.columns)
        return np.nan_to_num(values.to_numpy().astype(np.float32))


def answers(cohort: Cohort, vectors: np.ndarray) -> dict[str, np.ndarray]:
    """What linear heads on `vectors`, [N, C] of the truth's rows, tell of the held-out patients, by question."""
    truth, told = cohort.truth, {}
    patient = truth["subject_id"].to_numpy()
    for question in QUESTIONS:
        outcome = truth[question.name].cast(pl.Float64).to_numpy()
        here = (truth["visit"] == question.visit).to_numpy()
        rows = {split: np.flatnonzero(here & (truth["split"] == split).to_numpy()) for split in COUNTS}
        train, tuning = (
            ProbeRows(patient[at], TrainingSample(vectors[at], outcome[at], np.ones(len(at))))
            for at in (rows[TRAIN], rows[TUNING])
        )
        head = fit_logistic(train, tuning) if question.metric is AUROC else fit_ridge(train, tuning, lowest=-np.inf)
        told[str(question)] = head.predict(vectors[rows[HELD_OUT]])
    return told


def embedded(cohort: Cohort, folder: Path) -> np.ndarray:
    """The vectors of an embeddings folder at the truth's rows, float32 [N, C]."""
    asked = cohort.truth.select(QUESTION)
    return vectors_of(asked.join(read_embeddings(folder), on=QUESTION, how="left", maintain_order="left"))


@dataclass(frozen=True)
class Scores:
    """The scores of a model and of the ceiling, each with its interval."""

    model: Estimate
    ceiling: Estimate


def closed(
    cohort: Cohort, model: list[dict[str, np.ndarray]], reference: list[dict[str, np.ndarray]]
) -> Iterator[tuple[str, Metric, GapClosed, Scores]]:
    """Of each question how much of the gap a model closes; `model` and `reference` are `answers` by training seed."""
    held = cohort.truth.filter(pl.col("split") == HELD_OUT)
    for question in QUESTIONS:
        here = held.filter(pl.col("visit") == question.visit)
        outcome, best = (
            here[column].cast(pl.Float64).to_numpy() for column in (question.name, f"{question.name}_best")
        )
        patient, metric = here["subject_id"].to_numpy(), question.metric
        models, references = (np.stack([told[str(question)] for told in each]) for each in (model, reference))
        gap = gap_closed(Answered(patient, outcome, models, references, best), metric)
        # against a score of 0: that of who tells everyone alike, or the worst there is
        nothing = np.full((1, len(outcome)), outcome.mean())
        alone = gap_closed(Answered(patient, outcome, models, nothing, best), metric)
        floor = 0.5 if metric is AUROC else 0.0
        yield str(question), metric, gap, Scores(raised(alone.gain, floor), raised(alone.gap, floor))


def raised(estimate: Estimate, by: float) -> Estimate:
    """An estimate moved by a known number."""
    return Estimate(estimate.value + by, estimate.low + by, estimate.high + by)
