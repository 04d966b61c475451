"""How far a predictor sees when it is iterated: windows of time in a row, each foreseen from the one before.

Compared, window by window and on the same ones, with who says that all stays as it was in the last window before, with
the mean, and with ridge regression from the state; the latter two are fitted on training patients.

Shape letters: A anchors, K windows, C hidden width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
HELD_OUT = 5  # every so many-th row chooses the penalty
MOST = 4000  # anchors
FEWEST = 20  # of them, to fit a regression


@dataclass(frozen=True)
class Courses:
    """What came after anchors, and what was foreseen.

    Attributes:
        state: [A, C].
        before: [A, C], the normalized mean of the last window before; has_before: bool [A], whether it held anything.
        after: [A, K, C], the same of the windows after; has_after: bool [A, K].
        foreseen: [A, K, C].
        given_actions: the same, with knowledge of what was done; None where the predictor takes none.
    """

    state: Tensor
    before: Tensor
    has_before: Tensor
    after: Tensor
    has_after: Tensor
    foreseen: Tensor
    given_actions: Tensor | None = None

    @staticmethod
    def joined(parts: list[Courses]) -> Courses:
        """Of one or more rows."""
        return Courses(
            *(
                None if getattr(parts[0], name) is None else torch.cat([getattr(part, name) for part in parts])
                for name in Courses.__dataclass_fields__
            )
        )


def report(tuning: Courses, training: Courses | None, days: float) -> dict[str, Any]:
    """Mean squared errors of features by number of windows ahead, where a window and the one before the anchor hold
    anything; None where that is so of none, or of too few training patients.

    Args:
        days: length of a window.
    """
    count = tuning.after.shape[1]
    errors: dict[str, list] = {name: [] for name in ("pairs", "error", "persistence", "mean", "ridge")}
    if tuning.given_actions is not None:
        errors["given_actions"] = []
    for window in range(count):
        rows = tuning.has_before & tuning.has_after[:, window]
        target = tuning.after[rows, window]
        errors["pairs"].append(int(rows.sum()))
        errors["error"].append(_error(tuning.foreseen[rows, window], target))
        errors["persistence"].append(_error(tuning.before[rows], target))
        if tuning.given_actions is not None:
            errors["given_actions"].append(_error(tuning.given_actions[rows, window], target))
        mean = fitted = None
        if training is not None and int((known := training.has_after[:, window]).sum()) >= FEWEST:
            mean = _error(training.after[known, window].mean(0).expand_as(target), target)
            fitted = _error(ridge(training.state[known], training.after[known, window], tuning.state[rows]), target)
        errors["mean"].append(mean)
        errors["ridge"].append(fitted)
    return {"days": days, "windows": list(range(1, count + 1)), **errors}


def _error(foreseen: Tensor, target: Tensor) -> float | None:
    return float(((foreseen - target) ** 2).mean()) if len(target) else None


def ridge(inputs: Tensor, outputs: Tensor, others: Tensor) -> Tensor:
    """What a ridge regression of `outputs` [N, C] on `inputs` [N, D] says of `others` [M, D], [M, C].

    The penalty is one of PENALTIES, chosen on every fifth row by a fit on the rest; then all rows are fitted.
    """
    held = torch.arange(len(inputs)) % HELD_OUT == 0
    errors = [
        float(((_fit(inputs[~held], outputs[~held], inputs[held], penalty) - outputs[held]) ** 2).mean())
        for penalty in PENALTIES
    ]
    return _fit(inputs, outputs, others, PENALTIES[errors.index(min(errors))]).to(outputs.dtype)


def _fit(inputs: Tensor, outputs: Tensor, others: Tensor, penalty: float) -> Tensor:
    x, y = inputs.double(), outputs.double()
    center, scale = x.mean(0), x.std(0, correction=0).clamp_min(1e-9)
    x, middle = (x - center) / scale, y.mean(0)
    gram = x.t() @ x + penalty * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    weight = torch.linalg.solve(gram, x.t() @ (y - middle))
    return (others.double() - center) / scale @ weight + middle
