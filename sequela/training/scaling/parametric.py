"""Chinchilla's law of the loss, L(N, D) = E + A / N^alpha + B / D^beta, fitted to all runs at once.

Approach 3 of arXiv 2203.15556 (Huber loss on ln L) with the corrections of arXiv 2404.10102: the sum of the losses
rather than their mean, so that the search does not stop early, and intervals as wide as the runs warrant. Starting
points come from a grid of exponents, for each of which E, A, and B are a linear problem. Repeated tokens are discounted
by the law of arXiv 2305.16264.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from scipy import optimize, stats

from sequela.errors import InputError
from sequela.training.scaling.plan import MOST_EPOCHS
from sequela.training.scaling.runs import FinishedRun, Interval, usable

DELTA = 1e-3  # of Huber's loss, in ln L; both papers
TUNING = 1.345  # delta over the spread of the runs, if that is larger: 95 % efficiency under normal noise
MAD = 1.4826  # standard deviation over median absolute deviation, of a normal
WORTH = 15.39  # epochs of repeats after which 63 % of their possible benefit is reached (2305.16264, section 5)
STARTS = (0.1, 0.2, 0.35, 0.5, 0.8, 1.2)  # of alpha and of beta
STEPS = 300
TOLERANCE = 1e-10  # of the objective, relative
RESAMPLES = 400
LEAST, MOST = 0.01, 3.0  # of alpha and beta
LOWEST_FLOOR = -10.0  # ln of E over the lowest loss: no floor at all


def effective(tokens: np.ndarray | float, unique_tokens: np.ndarray | float) -> np.ndarray:
    """The number of new tokens that `tokens` from a repeated corpus of `unique_tokens` are worth (2305.16264, eq. 5).

    >>> [round(float(effective(epochs * 1e6, 1e6)) / 1e6, 2) for epochs in (0.5, 1, 4, 40)]
    [0.5, 1.0, 3.73, 15.17]
    """
    tokens, unique = np.asarray(tokens, float), np.asarray(unique_tokens, float)
    new = np.minimum(tokens, unique)
    with np.errstate(invalid="ignore"):
        repeats = np.where(np.isfinite(unique), np.maximum(tokens / unique - 1, 0), 0.0)
    return np.where(repeats > 0, new * (1 + WORTH * -np.expm1(-repeats / WORTH)), tokens)


@dataclass(frozen=True, eq=False)
class Law:
    """The fitted law; index 0 of each array is the fit, the rest are draws.

    Attributes:
        floor_R, scale_n_R, alpha_R, scale_d_R, beta_R: E, ln A, alpha, ln B, beta.
        residual_N: ln L of each run less that of the law.
        spread: standard deviation of runs around the law, in ln L, corrected for the five fitted numbers.
    """

    floor_R: np.ndarray
    scale_n_R: np.ndarray
    alpha_R: np.ndarray
    scale_d_R: np.ndarray
    beta_R: np.ndarray
    residual_N: np.ndarray = field(repr=False)
    spread: float
    notes: tuple[str, ...]

    def loss(self, parameters: np.ndarray | float, tokens: np.ndarray | float) -> np.ndarray:
        """The loss [..., R] of runs [...] by the fit and by each draw. `tokens` are effective tokens."""
        log_n = np.log(np.asarray(parameters, float))[..., None]
        log_d = np.log(np.asarray(tokens, float))[..., None]
        size = np.exp(self.scale_n_R - self.alpha_R * log_n)
        return self.floor_R + size + np.exp(self.scale_d_R - self.beta_R * log_d)

    @property
    def parameters_exponent(self) -> Interval:
        """a of N_opt ~ C^a, beta / (alpha + beta), if FLOPs are proportional to N D."""
        return Interval.of(self.beta_R / (self.alpha_R + self.beta_R))

    @property
    def tokens_exponent(self) -> Interval:
        """b of D_opt ~ C^b, 1 - a."""
        return Interval.of(self.alpha_R / (self.alpha_R + self.beta_R))

    @property
    def loss_exponent(self) -> Interval:
        """The exponent of the reducible loss along the optimum, -alpha beta / (alpha + beta)."""
        return Interval.of(-self.alpha_R * self.beta_R / (self.alpha_R + self.beta_R))

    def as_dict(self) -> dict[str, object]:
        """Plain values."""
        values = {
            "floor": Interval.of(self.floor_R), "A": Interval.of(np.exp(self.scale_n_R)),
            "alpha": Interval.of(self.alpha_R), "B": Interval.of(np.exp(self.scale_d_R)),
            "beta": Interval.of(self.beta_R),
            "parameters_exponent": self.parameters_exponent, "tokens_exponent": self.tokens_exponent,
            "loss_exponent": self.loss_exponent,
        }  # fmt: skip
        body = {name: value.as_dict() for name, value in values.items()}
        return {**body, "spread": self.spread, "runs": len(self.residual_N), "notes": list(self.notes)}


def fit(
    runs: Iterable[FinishedRun],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    most_epochs: float = MOST_EPOCHS,
    delta: float | None = None,
) -> Law:
    """Fit the law to every run that saw the data at most `most_epochs` times.

    Intervals: the residuals of the runs are drawn with replacement, put on the law, and fitted anew.
    Huber's delta: the papers' 0.001, or 1.345 times the robust spread of these runs where that is more. Small runs
    scatter more than large ones, and a delta far below the scatter fits medians, whose intervals come out too narrow.

    Raises:
        InputError: for fewer than six runs, or fewer than three sizes or three numbers of tokens: five numbers are
            fitted.
    """
    kept, notes = usable(runs, most_epochs)
    n = np.array([run.parameters for run in kept], float)
    d = effective([run.tokens for run in kept], [run.unique_tokens for run in kept])
    y = np.log([run.loss for run in kept])
    for count, least, what in (
        (len(kept), 6, "runs"),
        (len(set(n)), 3, "sizes"),
        (len(set(d)), 3, "numbers of tokens"),
    ):
        if count < least:
            raise InputError(
                f"The law L(N, D) needs {least} {what} or more, the study has {count}: "
                f"add budgets or sizes. {' '.join(notes)}"
            )
    center_n, center_d = np.log(n).mean(), np.log(d).mean()
    x = np.log(n) - center_n, np.log(d) - center_d
    spare = len(y) - 5
    best = _best(_starts(*x, y), *x, y, delta or DELTA)
    if delta is None:
        spread = MAD * np.median(np.abs(y - _log_loss(best, *x))) * math.sqrt(len(y) / spare)
        delta = max(DELTA, TUNING * float(spread))
        best = _best(np.concatenate([best, _starts(*x, y)]), *x, y, delta)
    residual = y - _log_loss(best, *x)[0]
    noise = (residual - residual.mean()) * math.sqrt(len(y) / spare)
    wider = stats.t.ppf(0.975, spare) / stats.norm.ppf(0.975)
    drawn = np.random.default_rng(seed).choice(noise * wider, size=(resamples, len(y)))
    draws, _ = _descend(np.repeat(best, resamples, 0), *x, _log_loss(best, *x) + drawn, delta)
    e, p, alpha, q, beta = np.concatenate([best, draws]).T
    notes += _doubts(best[0], y)
    return Law(
        np.exp(e), p + alpha * center_n, alpha, q + beta * center_d, beta,
        residual, float(np.sqrt((residual**2).sum() / spare)), tuple(notes),
    )  # fmt: skip


def _terms(theta_R5: np.ndarray, x_n: np.ndarray, x_d: np.ndarray) -> tuple[np.ndarray, ...]:
    """E, A / N^alpha, and B / D^beta, each [R, n]; x are centered logarithms."""
    e, p, alpha, q, beta = theta_R5.T[:, :, None]
    with np.errstate(over="ignore"):
        return np.exp(e) + 0 * x_n, np.exp(p - alpha * x_n), np.exp(q - beta * x_d)


def _log_loss(theta_R5: np.ndarray, x_n: np.ndarray, x_d: np.ndarray) -> np.ndarray:
    return np.log(sum(_terms(theta_R5, x_n, x_d)))


def _starts(x_n: np.ndarray, x_d: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Starting points [S, 5]: for each pair of exponents the E, A, B >= 0 of least squared relative error."""
    starts = []
    for alpha in STARTS:
        for beta in STARTS:
            columns = np.stack([np.ones_like(y), np.exp(-alpha * x_n), np.exp(-beta * x_d)], 1)
            scales, _ = optimize.nnls(columns * np.exp(-y)[:, None], np.ones_like(y))
            e, p, q = np.log(np.maximum(scales, 1e-3 * np.exp(y.min())))
            starts.append([e, p, alpha, q, beta])
    return np.array(starts)


def _best(starts: np.ndarray, x_n: np.ndarray, x_d: np.ndarray, y: np.ndarray, delta: float) -> np.ndarray:
    """The best end point of all starts, [1, 5]."""
    ends, objective = _descend(starts, x_n, x_d, y[None], delta)
    return ends[[np.argmin(objective)]]


def _descend(
    theta_R5: np.ndarray, x_n: np.ndarray, x_d: np.ndarray, y_Rn: np.ndarray, delta: float
) -> tuple[np.ndarray, np.ndarray]:
    """Levenberg-Marquardt on Huber's loss, all rows at once: the end points, and the summed losses [R] there.

    A row of theta is a start or a draw; y has a row for each, or one for all.
    """
    low = np.array([y_Rn.min() + LOWEST_FLOOR, -np.inf, LEAST, -np.inf, LEAST])
    high = np.array([np.inf, np.inf, MOST, np.inf, MOST])
    y_Rn = np.broadcast_to(y_Rn, (len(theta_R5), y_Rn.shape[1]))

    def objective(theta: np.ndarray, y: np.ndarray) -> np.ndarray:
        r = np.abs(y - _log_loss(theta, x_n, x_d))
        return np.where(r <= delta, r**2 / 2, delta * (r - delta / 2)).sum(1)

    theta_R5, damping = np.clip(theta_R5, low, high), np.full(len(theta_R5), 1e-2)
    reached = objective(theta_R5, y_Rn)
    still = np.arange(len(theta_R5))
    for _ in range(STEPS):
        theta, y = theta_R5[still], y_Rn[still]
        floor, size, data = _terms(theta, x_n, x_d)
        loss = floor + size + data
        r = y - np.log(loss)
        jacobian = np.stack([floor, size, -x_n * size, data, -x_d * data], -1) / loss[..., None]
        weighted = jacobian * (delta / np.maximum(np.abs(r), delta))[..., None]
        curvature = np.einsum("rni,rnj->rij", weighted, jacobian)
        diagonal = np.einsum("rii->ri", curvature)
        diagonal += damping[still, None] * diagonal + 1e-12
        step = np.linalg.solve(curvature, np.einsum("rni,rn->ri", weighted, r)[..., None])[..., 0]
        new = np.clip(theta + np.clip(step, -2, 2), low, high)
        value = objective(new, y)
        better = value < reached[still]
        gained = np.where(better, 1 - value / np.maximum(reached[still], 1e-300), 0)
        theta_R5[still[better]], reached[still[better]] = new[better], value[better]
        damping[still] = np.where(better, damping[still] / 4, damping[still] * 4)
        still = still[np.where(better, gained > TOLERANCE, damping[still] < 1e8)]
        if not len(still):
            break
    return theta_R5, reached


def _doubts(best: np.ndarray, y: np.ndarray) -> list[str]:
    """A sentence for each parameter at the end of its range."""
    notes = []
    if best[0] < y.min() - 5:
        notes.append("The law finds no floor of the loss: the runs are too far above it.")
    for name, value in (("alpha", best[2]), ("beta", best[4])):
        if not LEAST * 1.01 < value < MOST * 0.99:
            notes.append(f"{name} is at the limit of its range ({value:g}): the runs do not determine it.")
    return notes
