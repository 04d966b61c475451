"""Cumulative incidence: risk over time, and time to event, from rollouts in which other events compete.

A rollout that is truncated, or complete only up to the horizon, is censored there. If nothing else can happen first,
the estimate is 1 minus the Kaplan-Meier curve. If patients can die first, that would count outcomes of the dead; the
cumulative incidence of Aalen and Johansen (1978) does not: F(t) is the sum over outcome times u <= t of S(u-) d / n,
with n rollouts still at risk, d outcomes among them, and S the share with neither an outcome nor an end so far. It
assumes that truncation is independent of what would have come.

Shape letters: P questions, N rollouts per question (the largest number; rows are padded), T times.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from sequela.errors import InputError
from sequela.record.questions import QUESTION

LEVEL = 0.95  # of intervals of numbers
CELLS = 1 << 20  # rollouts processed at once
TINY = 1e-9  # sums of shares are compared up to this
CENSORED, OUTCOME, END = range(3)
CAUSES = {"outcome": OUTCOME, "end": END, "horizon": CENSORED, "censored": CENSORED}


def incidence(
    until_N: np.ndarray, decided_N: Sequence[str] | np.ndarray, days_T: Sequence[float] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The probability that the outcome of one question has happened by each of the times `days_T`.

    The standard error is by the delta method (Dinse and Larson 1986; Marubini and Valsecchi 1995, section 10.2.1);
    without censoring it is sqrt(F (1 - F) / N). It is 0 before the first outcome.

    >>> risk, error = incidence([1.0, 2.0, 3.0, 9.0], ["outcome", "end", "outcome", "horizon"], [2, 5])
    >>> risk, error.round(3)
    (array([0.25, 0.5 ]), array([0.217, 0.25 ]))

    Args:
        until_N: days until each rollout was decided or truncated.
        decided_N: how, as in `labels`: "outcome", "end" (competes), "horizon" or "censored".
        days_T: days from the prediction time, not negative.

    Returns:
        Risk [T] and standard error [T]; NaN at times that no rollout reaches, unless the risk is final by then.

    Raises:
        InputError: for a negative time.
    """
    curves = _Curves.of(
        np.asarray(until_N, np.float64)[None], _causes(decided_N)[None], np.array([len(until_N)])
    )
    risk_PT, error_PT = curves.at(_days(days_T))
    return risk_PT[0], error_PT[0]


def time_span(
    until_N: np.ndarray, decided_N: Sequence[str] | np.ndarray, level: float = LEVEL
) -> tuple[float | None, float | None, float | None]:
    """The median time to the outcome of one question, and the interval that contains a share `level` of the times.

    If an end comes first, the time is "never". So each of the three is the day by which the incidence has reached its
    share, or None if it does not before the rollouts end (at the horizon, for example). A prediction of kind "time" is
    of those alone who reach the outcome (see `sequela.task.kinds`).

    >>> time_span([1.0, 2.0, 3.0, 9.0], ["outcome", "outcome", "outcome", "end"])
    (2.5, 1.0, None)

    Args:
        until_N, decided_N: as for `incidence`.
        level: between 0 and 1. With fewer than 2 / (1 - level) - 1 rollouts (39 for 95 %) even the range from the least
            to the greatest contains less than that.

    Returns:
        Median, low, high: days.

    Raises:
        InputError: for a level that is not between 0 and 1.
    """
    curves = _Curves.of(
        np.asarray(until_N, np.float64)[None], _causes(decided_N)[None], np.array([len(until_N)])
    )
    median, low, high = (None if np.isinf(one[0]) else float(one[0]) for one in curves.span(level))
    return median, low, high


def incidences(answered: pl.DataFrame, days: Sequence[float]) -> pl.DataFrame:
    """`incidence` of every question in a frame.

    Args:
        answered: one row per rollout: `subject_id`, `prediction_time`, `until_days`, `decided`, as from `labels` or
            `estimate.answers` for a task of kind binary or time.
        days: T times.

    Returns:
        T rows per question, in order: `subject_id`, `prediction_time`, `days`, `risk`, `standard_error`; the last two
        null if `incidence` is NaN.
    """
    days_T = _days(days)
    parts = []
    for asked, curves in _questions(answered):
        risk_PT, error_PT = curves.at(days_T)
        rows = asked.select(pl.all().repeat_by(len(days_T)).explode())
        columns = {
            "days": np.tile(days_T, asked.height),
            "risk": risk_PT.ravel(),
            "standard_error": error_PT.ravel(),
        }
        parts.append(
            rows.with_columns(pl.Series(name, column).fill_nan(None) for name, column in columns.items())
        )
    return pl.concat(parts)


def time_spans(answered: pl.DataFrame, level: float = LEVEL) -> pl.DataFrame:
    """`time_span` of every question in a frame like that of `incidences`.

    Returns:
        One row per question, in order: `subject_id`, `prediction_time`, `median`, `low`, `high` (days; null if not
        reached).
    """
    parts = []
    for asked, curves in _questions(answered):
        columns = zip(("median", "low", "high"), curves.span(level), strict=True)
        parts.append(
            asked.with_columns(
                pl.Series(name, np.where(np.isinf(days_P), np.nan, days_P)).fill_nan(None)
                for name, days_P in columns
            )
        )
    return pl.concat(parts)


def order_statistics(count: Any, level: float) -> tuple[Any, Any]:
    """Ranks, from 1, of the two of `count` ordered numbers between which a further one falls with probability `level`.

    A further number falls between the k-th and the m-th of n with probability (m - k) / (n + 1) (Wilks 1941). The ranks
    are rounded so that this is `level` or more; with fewer than 2 / (1 - level) - 1 numbers (39 for 95 %) they are the
    first and the last.

    >>> order_statistics(np.array([10, 39, 200]), 0.95)
    (array([1., 1., 5.]), array([ 10.,  39., 196.]))

    Args:
        count: an array, or a polars expression; so are the results.

    Raises:
        InputError: for a level that is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise InputError(f"the level of an interval is {level}; give a share between 0 and 1, such as 0.95.")
    first = (((count + 1) * ((1 - level) / 2) + TINY) // 1).clip(1)
    return first, count + 1 - first


@dataclass(frozen=True, eq=False)
class _Curves:
    """The steps of P curves, one per rollout, in the order of time.

    Attributes:
        until_PN: days; infinite if a question has fewer rollouts than N.
        risk_PN, error_PN: the incidence after each step, and its standard error.
        free_PN: the share S with neither an outcome nor an end.
        count_P: how many rollouts there are.
    """

    until_PN: np.ndarray
    risk_PN: np.ndarray
    error_PN: np.ndarray
    free_PN: np.ndarray
    count_P: np.ndarray

    @classmethod
    def of(cls, until_PN: np.ndarray, cause_PN: np.ndarray, count_P: np.ndarray) -> _Curves:
        """From rollouts in any order.

        Rollouts that are decided at the same time are taken one by one, before those that are truncated then: the
        products and sums telescope, so the curve is the usual one.
        """
        order = np.lexsort((cause_PN == CENSORED, until_PN), axis=-1)
        until_PN, cause_PN = (np.take_along_axis(x, order, axis=-1) for x in (until_PN, cause_PN))
        left = np.maximum(count_P[:, None] - np.arange(until_PN.shape[1]), 1.0)
        decided, outcome = (cause_PN != CENSORED).astype(float), (cause_PN == OUTCOME).astype(float)
        free = np.cumprod(1 - decided / left, axis=1)
        before = np.hstack([np.ones((len(free), 1)), free[:, :-1]])
        risk = np.cumsum(before / left * outcome, axis=1)
        # Greenwood's term, the binomial one and their covariance; after the last rollout the first is infinite, but
        # multiplied by a difference that stays 0
        greenwood = np.where(left > 1, decided / (left * np.maximum(left - 1, 1)), 0)
        binomial = outcome * before**2 * (left - 1) / left**3
        joint = outcome * before / left**2

        def summed(x: np.ndarray) -> np.ndarray:
            return np.cumsum(x, axis=1)

        variance = (
            risk**2 * summed(greenwood)
            - 2 * risk * summed(greenwood * risk)
            + summed(greenwood * risk**2)
            + summed(binomial)
            - 2 * (risk * summed(joint) - summed(joint * risk))
        )
        return cls(until_PN, risk, np.sqrt(np.maximum(variance, 0)), free, count_P)

    def at(self, days_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Risk and standard error [P, T] at each time; NaN if no rollout lasts so long and the risk is not final."""
        passed_PT = np.stack([(self.until_PN <= day).sum(axis=1) for day in days_T], axis=1)
        last_P = self.count_P[:, None] - 1
        still_open = np.take_along_axis(self.free_PN, last_P, axis=1) > TINY
        beyond = still_open & (days_T > np.take_along_axis(self.until_PN, last_P, axis=1))

        def read(step_PN: np.ndarray) -> np.ndarray:
            reached = np.take_along_axis(step_PN, np.maximum(passed_PT - 1, 0), axis=1)
            return np.where(beyond, np.nan, np.where(passed_PT > 0, reached, 0.0))

        return read(self.risk_PN), read(self.error_PN)

    def span(self, level: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Median, low and high [P], days; infinite if not reached."""
        first_P, last_P = order_statistics(self.count_P, level)
        # if the curve is flat at one half, the middle of the flat part, as for an even number of ordered times
        median_P = (self._reached(0.5 - TINY) + self._reached(0.5 + TINY)) / 2
        low_P, high_P = (self._reached(place_P / self.count_P - TINY) for place_P in (first_P, last_P))
        return median_P, low_P, high_P

    def _reached(self, share: float | np.ndarray) -> np.ndarray:
        """The days [P] at which the incidence first is `share` or more."""
        there_PN = self.risk_PN >= np.broadcast_to(share, len(self.count_P))[:, None]
        days_P = np.take_along_axis(self.until_PN, there_PN.argmax(axis=1)[:, None], axis=1)[:, 0]
        return np.where(there_PN.any(axis=1), days_P, np.inf)


def _questions(answered: pl.DataFrame) -> Iterator[tuple[pl.DataFrame, _Curves]]:
    """The questions in order, several at a time, with their curves."""
    if answered.is_empty():
        raise InputError("there are no rollouts to read an incidence from: simulate first.")
    key = list(QUESTION)
    ordered = answered.sort(key).select(*key, "until_days", "decided")
    asked = ordered.group_by(key, maintain_order=True).len()
    count_P = asked["len"].to_numpy().astype(np.int64)
    starts_P = np.r_[0, np.cumsum(count_P)]
    until, cause = ordered["until_days"].to_numpy(), _causes(ordered["decided"].to_numpy())
    widest = int(count_P.max())
    step = max(1, CELLS // widest)
    for first in range(0, len(count_P), step):
        count = count_P[first : first + step]
        there_PN = np.arange(widest) < count[:, None]
        rows = slice(starts_P[first], starts_P[first + len(count)])
        until_PN = np.full(there_PN.shape, np.inf)
        cause_PN = np.full(there_PN.shape, CENSORED)
        until_PN[there_PN], cause_PN[there_PN] = until[rows], cause[rows]
        yield asked[first : first + step].select(key), _Curves.of(until_PN, cause_PN, count)


def _causes(decided_N: Sequence[str] | np.ndarray) -> np.ndarray:
    return np.array([CAUSES[one] for one in decided_N], np.int64)


def _days(days: Sequence[float] | np.ndarray) -> np.ndarray:
    days_T = np.asarray(days, np.float64)
    if not (days_T >= 0).all():
        raise InputError(f"an incidence is asked for at {days_T.min()} days; give times of 0 days or more.")
    return days_T
