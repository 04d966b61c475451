"""Power laws of compute, fitted to the minima of the budgets.

Straight lines in logarithms, ln optimum on ln FLOPs, and for the loss also with a floor. Each minimum is weighted by
how well it is known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from sequela.training.scaling.runs import Interval

MISFIT = 0.05  # below this probability the scatter between budgets is more than the scatter of runs explains
DECAYS = np.geomspace(0.005, 1.0, 240)  # of the loss with compute


@dataclass(frozen=True, eq=False)
class PowerLaw:
    """y = floor + scale * flops^exponent; index 0 of each array is the fit, the rest are draws.

    Attributes:
        scatter: factor by which intervals were widened because budgets scatter more than their runs explain.
    """

    exponent_R: np.ndarray
    log_scale_R: np.ndarray
    floor_R: np.ndarray
    scatter: float = 1.0

    @property
    def exponent(self) -> Interval:
        """The exponent with its interval."""
        return Interval.of(self.exponent_R)

    def at(self, flops: float) -> np.ndarray:
        """y at a compute budget: the fit, then the draws."""
        return self.floor_R + np.exp(self.log_scale_R + self.exponent_R * math.log(flops))

    def as_dict(self) -> dict[str, object]:
        """Plain values."""
        body = {"exponent": self.exponent.as_dict(), "scale": float(np.exp(self.log_scale_R[0]))}
        if self.floor_R.any():
            body["floor"] = Interval.of(self.floor_R).as_dict()
        return {**body, "scatter": self.scatter}


def _weights(values_KR: np.ndarray) -> np.ndarray:
    """1 / variance of each budget's minimum; equal weights without draws."""
    if values_KR.shape[1] < 3:
        return np.ones(len(values_KR))
    low, high = np.nanpercentile(values_KR[:, 1:], (15.87, 84.13), axis=1)
    spread = np.maximum((high - low) / 2, 1e-9)
    return 1 / spread**2


def fit_power_law(flops_K: np.ndarray, log_y_KR: np.ndarray) -> PowerLaw:
    """Weighted least squares of ln y [K, R] on ln FLOPs [K]."""
    weight = _weights(log_y_KR)
    x = np.log(flops_K)
    x_mean, y_mean_R = weight @ x / weight.sum(), weight @ log_y_KR / weight.sum()
    slope_R = (weight * (x - x_mean)) @ (log_y_KR - y_mean_R) / (weight @ (x - x_mean) ** 2)
    scatter, spare = 1.0, len(x) - 2
    if spare and log_y_KR.shape[1] > 1:
        left = log_y_KR[:, 0] - y_mean_R[0] - slope_R[0] * (x - x_mean)
        chi2 = float(weight @ left**2)
        if stats.chi2.sf(chi2, spare) < MISFIT:
            scatter = math.sqrt(chi2 / spare)
    slope_R = slope_R[0] + scatter * (slope_R - slope_R[0])
    y_mean_R = y_mean_R[0] + scatter * (y_mean_R - y_mean_R[0])
    return PowerLaw(slope_R, y_mean_R - slope_R * x_mean, np.zeros_like(slope_R), scatter)


def fit_power_law_with_floor(flops_K: np.ndarray, y_KR: np.ndarray) -> PowerLaw:
    """y = E + K flops^-c: for each c on a grid E >= 0 and K by linear least squares, then the best c."""
    weight = _weights(y_KR)
    weight = weight / weight.sum()
    relative = flops_K / flops_K.max()
    best = np.full(y_KR.shape[1], np.inf)
    c_R, k_R, e_R = np.zeros_like(best), np.zeros_like(best), np.zeros_like(best)
    for c in DECAYS:
        z = relative**-c
        z_mean, y_mean = weight @ z, weight @ y_KR
        k = (weight * (z - z_mean)) @ (y_KR - y_mean) / (weight @ (z - z_mean) ** 2)
        k = np.where(y_mean < k * z_mean, (weight * z) @ y_KR / (weight @ z**2), k)  # a floor below 0
        e = np.maximum(y_mean - k * z_mean, 0)
        error = weight @ (y_KR - e - k * z[:, None]) ** 2
        better = error < best  # False for NaN too
        best = np.where(better, error, best)
        c_R, k_R, e_R = (np.where(better, new, old) for new, old in ((c, c_R), (k, k_R), (e, e_R)))
    valid = np.isfinite(best) & (k_R > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_scale = np.where(valid, np.log(k_R) + c_R * math.log(flops_K.max()), np.nan)
    return PowerLaw(np.where(valid, -c_R, np.nan), log_scale, e_R)
