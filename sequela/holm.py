"""Holm's correction: of many comparisons some look unlikely by chance (Scand J Stat 1979, 6:65)."""

from __future__ import annotations

import numpy as np


def holm(p_C: np.ndarray) -> np.ndarray:
    """Chances [C] of several comparisons, corrected: the smallest times their number, the next times one less, and so
    on. Where those below a level count, the chance that any does without a reason is at most that level.

    >>> holm(np.array([0.01, 0.04, 0.03, 0.005])).round(3).tolist()
    [0.03, 0.06, 0.06, 0.02]
    """
    order = np.argsort(p_C, kind="stable")
    stepped = np.maximum.accumulate(p_C[order] * np.arange(len(p_C), 0, -1))
    corrected = np.empty_like(p_C)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected
