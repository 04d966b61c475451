"""How often an arm is ahead of the reference, over everything that was asked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sequela.task.scoring.bootstrap import interval


def win_rate(gains: Sequence[tuple[str, float, np.ndarray]], seed: int) -> dict[str, object]:
    """The share of cells in which an arm is ahead, ties counted half, and the mean gain, with their intervals.

    Each draw takes other patients, the same for all cells, and other tasks with all their landmarks: cells of one task
    are not independent, and neither are the answers about one patient.

    >>> ahead = [("death", 0.1, np.full(50, 0.1)), ("stay", -0.1, np.full(50, -0.1))]
    >>> win_rate(ahead, seed=0)["win_rate"]["value"]
    0.5

    Args:
        gains: of each cell its task, the gain, and the gain on resamples of the patients [R].
        seed: of the draws of tasks.

    Returns:
        `cells`, `tasks`, `win_rate` and `mean_gain`. With a single task its intervals are over patients alone.
    """
    names, of = np.unique([task for task, _, _ in gains], return_inverse=True)
    values = np.array([gain for _, gain, _ in gains])
    draws_CR = np.array([draws for _, _, draws in gains])
    share = np.full(len(names), 1 / len(names))
    copies_RC = np.random.default_rng(seed).multinomial(len(names), share, draws_CR.shape[1])[:, of]
    total_R = copies_RC.sum(axis=1)
    report: dict[str, object] = {"cells": len(gains), "tasks": len(names)}
    for name, read in (("win_rate", _ahead), ("mean_gain", np.asarray)):
        drawn_R = (read(draws_CR).T * copies_RC).sum(axis=1) / total_R
        report[name] = interval(float(read(values).mean()), drawn_R).as_dict()
    return report


def _ahead(gain: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(gain), np.nan, (np.sign(gain) + 1) / 2)
