"""The strong baselines of a task: features of windows, tuned models; on the records, and on what tokens say of them.

Memory stays bounded: of many training patients some are sampled, of many codes the most frequent get columns, and the
questions to answer are read some at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import polars as pl

from sequela.record.questions import QUESTION
from sequela.task.baselines.baseline import TrainingSample, one_thread
from sequela.task.baselines.histories import Histories
from sequela.task.baselines.tuned import Tuned, fit_tuned
from sequela.task.baselines.windows import WindowTable
from sequela.task.task import Task

MOST_CELLS = 50_000_000  # of a table of features, 200 MB
CHUNK = 10_000  # histories read at once

Reader = Callable[[pl.DataFrame], Histories]
"""Questions -> their histories."""


@dataclass(frozen=True, eq=False)
class StrongAnswers:
    """The predictions of one strong baseline.

    Attributes:
        prediction: float64 [N].
        tuned: the model that was chosen.
        learned_from: training questions used, and how many there are.
    """

    prediction: np.ndarray
    tuned: Tuned
    learned_from: tuple[int, int]


@one_thread  # around the pool too: a limit that one of its threads lifts would be lifted for the other
def answer_each(
    task: Task,
    readers: Mapping[str, Reader],
    train: pl.DataFrame,
    tuning: pl.DataFrame,
    asked: pl.DataFrame,
    seed: int,
) -> dict[str, StrongAnswers | None]:
    """`answer_strongly` by each of the readers, side by side: each waits for one core only."""
    with ThreadPoolExecutor(len(readers)) as pool:
        answers = pool.map(lambda read: answer_strongly(task, read, train, tuning, asked, seed), readers.values())
        return dict(zip(readers, answers, strict=True))


def answer_strongly(
    task: Task, read: Reader, train: pl.DataFrame, tuning: pl.DataFrame, asked: pl.DataFrame, seed: int
) -> StrongAnswers | None:
    """Fit on the questions `train`, choose on `tuning`, and answer `asked`; None if either are too few.

    Args:
        read: the histories, of the training, tuning, and asked patients alike.
        train: `labels` of the training patients.
        tuning: of the tuning patients.
        asked: only the questions are read.
    """
    if train.is_empty() or tuning.is_empty():
        return None
    table = WindowTable.of(read(_sample(train, CHUNK, seed)))
    used, chosen_on = (_sample(labelled, MOST_CELLS // len(table.names), seed) for labelled in (train, tuning))
    samples = (sample_of(labelled, _values(table, read, labelled)) for labelled in (used, chosen_on))
    tuned = fit_tuned(task, *samples, seed)
    if tuned is None:
        return None
    parts = [tuned.predict(_values(table, read, chunk)) for chunk in asked.iter_slices(CHUNK)]
    return StrongAnswers(np.concatenate(parts), tuned, (used.height, train.height))


def sample_of(labelled: pl.DataFrame, values: np.ndarray) -> TrainingSample:
    """Features [N, F] with the labels of the same N questions."""
    outcome = labelled["label"].fill_null(np.nan).to_numpy()
    lost = (labelled["decided"] == "censored").to_numpy()
    return TrainingSample(values, outcome, labelled["until_days"].to_numpy(), lost)


def _sample(labelled: pl.DataFrame, most: int, seed: int) -> pl.DataFrame:
    """At most so many rows, in their order."""
    if labelled.height <= most:
        return labelled
    rows = np.random.default_rng(seed).choice(labelled.height, most, replace=False)
    return labelled[np.sort(rows)]


def _values(table: WindowTable, read: Reader, asked: pl.DataFrame) -> np.ndarray:
    return np.concatenate(
        [table.values(read(chunk.select(QUESTION))) for chunk in asked.iter_slices(CHUNK)]
    )
