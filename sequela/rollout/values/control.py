"""What a value head expects of each outcome as time goes on without it: the guess that steadies rollouts.

The state is read once, after the history. As a rollout goes on, the guess moves with the clock: given that neither the
outcome nor an end came so far, the risk of what is left of the horizon. It is made before a rollout begins, so it is
known before each token, which is all that an unbiased estimate asks of it (see `sequela.rollout.estimators`).

Shape letters: Q questions, K requests, G steps of time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl

from sequela.record.questions import QUESTION
from sequela.rollout.request import Request
from sequela.rollout.tracker import LONGEST
from sequela.rollout.values.head import MINUTES, ValueHead

STEPS = 64  # of the time until the horizon; within a step the guess stays what it was at its beginning


def guesses(
    model: Path, events: pl.DataFrame, questions: pl.DataFrame, requests: Sequence[Request], precision: str = "auto"
) -> np.ndarray:
    """The guesses of a checkpoint's value head for each question, `Prompts.values`, float32 [Q, K, G].

    0, which leaves a rollout as it is, for questions without a history and outcomes that the head does not foresee.

    Args:
        events: MEDS columns, sorted, with the patients of the questions; of an edited history what was recorded.
        questions: sorted.

    Raises:
        InputError: if the model has no value head.
    """
    head = latest(model, precision)
    out = np.zeros((len(questions), len(requests), STEPS), np.float32)
    known, states = head.states(events, questions)
    rows = questions.with_row_index("row").join(known, on=QUESTION, maintain_order="right")["row"].to_numpy()
    for number, request in enumerate(requests):
        if head.can(request):
            minutes = request.horizon_minutes
            step_T = np.arange(STEPS) / STEPS * min(LONGEST, minutes or LONGEST) / MINUTES
            horizon = np.inf if minutes is None else minutes / MINUTES
            out[rows, number] = head.rates(states, request).remaining(step_T, horizon)
    return out


def latest(model: Path, precision: str = "auto") -> ValueHead:
    """The value head of a checkpoint; the latest one is kept in memory until another is loaded, or its files change.

    Raises:
        InputError: see `ValueHead.load`.
    """
    files = sorted(Path(model).iterdir()) if Path(model).is_dir() else []
    return _latest(Path(model), precision, tuple((path.name, path.stat().st_mtime_ns) for path in files))


@lru_cache(maxsize=1)
def _latest(model: Path, precision: str, version: tuple) -> ValueHead:
    return ValueHead.load(model, precision)
