"""A task at one landmark: the answers of every model about the same held-out questions, measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from sequela.record.duration import DAY
from sequela.task.probing.arm_score import ArmScore
from sequela.task.probing.landmarks import Landmark
from sequela.task.probing.rounded import Repeated
from sequela.task.probing.variety import THIRDS, thirds
from sequela.task.scoring.evaluate import why_not
from sequela.task.scoring.measured import OBSERVED, Measured, SharedAnswers, measure_all
from sequela.task.task import Task

Seeds = Mapping[str, int | None]
"""The models of one arm, and which training seed each is; of a baseline only itself, with None."""


@dataclass(frozen=True, eq=False)
class Cell:
    """What was asked at one landmark, and what was answered.

    Attributes:
        task: under its own name.
        landmark: when.
        truth: the `labels` of the N held-out questions.
        predictions: by model, float64 [N].
        entropy: of the codes of each history, in bits, [N].
        learned_from: training rows with a known answer, and tuning rows.
        chosen: the penalty of each model's head.
        few_shot: by model and k, the headline score of each replicate.
        rounded: by model, its probe repeated on rounded vectors.
    """

    task: Task
    landmark: Landmark
    truth: pl.DataFrame
    predictions: dict[str, np.ndarray]
    entropy: np.ndarray
    learned_from: tuple[int, int] = (0, 0)
    chosen: dict[str, float] = field(default_factory=dict)
    few_shot: dict[str, dict[int, list[float]]] = field(default_factory=dict)
    rounded: dict[str, Repeated] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Also the name of its folder of predictions."""
        return f"{self.task.name}@{self.landmark.name}"

    @property
    def answers(self) -> SharedAnswers:
        """In the form that is measured."""
        return SharedAnswers(
            self.task.asks,
            self.truth["subject_id"].to_numpy(),
            self.truth["label"].fill_null(np.nan).to_numpy(),
            self.truth["until_days"].to_numpy(),
            (self.truth["decided"] == "censored").to_numpy(),
            self.predictions,
        )

    @property
    def horizon_days(self) -> float | None:
        """Of the task; None: until the outcome or an end."""
        return None if self.task.horizon is None else self.task.horizon / DAY


@dataclass(frozen=True, eq=False)
class MeasuredCell:
    """A cell with all metrics of its models.

    Attributes:
        cell: what was measured.
        measured: all its questions.
        parts: the same for each third by `entropy`, the headline metric alone.
    """

    cell: Cell
    measured: Measured
    parts: tuple[Measured, ...]

    @staticmethod
    def of(cell: Cell, among: np.ndarray, seed: int, resample_count: int) -> MeasuredCell:
        """Measured on resamples of the patients `among`, so that cells of a run can be compared."""
        answers, part = cell.answers, thirds(cell.entropy)
        kind = replace(answers.kind, metrics=(answers.kind.headline,))
        parts = (replace(answers.take(np.flatnonzero(part == number)), kind=kind) for number in range(len(THIRDS)))
        return MeasuredCell(
            cell,
            measure_all(answers, seed, resample_count, among),
            tuple(measure_all(each, seed, resample_count, among) for each in parts),
        )

    def score(self, models: Seeds, metric: str, *, trained: bool, third: int | None = None) -> ArmScore | None:
        """A metric of the models of one arm, of all questions or a third of them; None if it is not defined."""
        measured = self.measured if third is None else self.parts[third]
        each = np.array([measured.points.get((model, metric), np.nan) for model in models])
        if not len(each) or not np.isfinite(each).all():
            return None
        draws = np.mean([measured.draws[model, metric] for model in models], axis=0)
        return ArmScore(tuple(models.values()), each, draws, trained)

    def counts(self) -> dict[str, object]:
        """What metrics.json says of the questions (see `sequela.task.scoring.evaluate`)."""
        truth, kind = self.cell.truth, self.cell.task.asks
        lost = pl.col("decided") == "censored"
        horizon, offset = self.cell.horizon_days, self.cell.landmark.offset
        return {
            "kind": kind.name,
            "task": self.cell.task.name,
            "landmark": self.cell.landmark.name,
            "landmark_days": None if offset is None else offset / DAY,
            "horizon_days": horizon,
            "n": truth.height,
            "positives": int((truth["label"] == 1).sum()) if not kind.numeric else None,
            "decidable": truth["label"].count(),
            "undecidable": truth.filter(lost).height,
            "without": truth.filter(pl.col("label").is_null() & ~lost).height,
            "evaluated": truth.height,
            "learned_from": dict(zip(("train", "tuning"), self.cell.learned_from, strict=True)),
            "observed": self.measured.estimate(*OBSERVED).as_dict(self.reason),
        }

    @property
    def reason(self) -> str:
        """Why nothing, or not everything, can be scored; empty for none."""
        return why_not(self.cell.answers, self.measured)


def measure_cells(cells: Sequence[Cell], seed: int, resample_count: int) -> list[MeasuredCell]:
    """All cells on the same resamples of the patients of any."""
    among = np.unique(np.concatenate([cell.truth["subject_id"].to_numpy() for cell in cells]))
    return [MeasuredCell.of(cell, among, seed, resample_count) for cell in cells]
