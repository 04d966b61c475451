"""What rates of an outcome and its ends say of a task: a risk, or when."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sequela.rollout.values.competing import CompetingRates

ByRates = Callable[["CompetingRates", float, float], dict[str, np.ndarray]]
"""(rates, the horizon in days, the level of an interval) to columns of an answer, float64 [Q], NaN for none."""


def risk_by_rates(rates: CompetingRates, horizon: float, level: float) -> dict[str, np.ndarray]:
    """The incidence by the horizon; an interval of sampling does not exist."""
    nothing = np.full(len(rates), np.nan)
    return {"prediction": rates.incidence(np.array([horizon]))[:, 0], "low": nothing, "high": nothing}


def time_by_rates(rates: CompetingRates, horizon: float, level: float) -> dict[str, np.ndarray]:
    """Days: the median of those who reach the outcome by the horizon, the range of a share `level` of them, and how
    many they are."""
    shares = {"prediction": 0.5, "low": (1 - level) / 2, "high": (1 + level) / 2}
    days = {name: rates.quantile(share, horizon) for name, share in shares.items()}
    return days | {"reached": rates.incidence(np.array([horizon]))[:, 0]}
