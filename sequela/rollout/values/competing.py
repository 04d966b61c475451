"""What follows from rates of an outcome and of what ends the wait for it, each constant within pieces of time.

With rates a and b in a piece of which w days have passed, and S the chance that neither came before it,

    risk within the piece  =  a / (a + b)  S  (1 - exp(-(a + b) w))

Shape letters: Q questions, B pieces, T times.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True, eq=False)
class CompetingRates:
    """Rates of Q questions.

    Attributes:
        edges: float64 [B], the day on which each piece begins, from 0.
        outcome, end: float64 [Q, B], a day.
    """

    edges: np.ndarray
    outcome: np.ndarray
    end: np.ndarray

    def __len__(self) -> int:
        return len(self.outcome)

    @cached_property
    def either(self) -> np.ndarray:
        """The rate at which the wait is over, [Q, B]; above 0, so that shares of it are defined."""
        return np.maximum(self.outcome + self.end, np.finfo(float).tiny)

    @cached_property
    def waiting_at_edges(self) -> np.ndarray:
        """The share that neither has come for when a piece begins, [Q, B]."""
        return self.waiting(self.edges)

    def _within(self, days_T: np.ndarray) -> np.ndarray:
        """How many of the first days are in each piece, [B, T]."""
        length = np.append(np.diff(self.edges), np.inf)[:, None]
        return np.clip(np.asarray(days_T, np.float64) - self.edges[:, None], 0, length)

    def incidence(self, days_T: np.ndarray) -> np.ndarray:
        """How likely the outcome comes by each of these days (infinite: at all), and before any end, [Q, T]."""
        share = self.outcome / self.either * self.waiting_at_edges
        gone = -np.expm1(-self.either[:, :, None] * self._within(days_T))
        return np.einsum("qb,qbt->qt", share, gone)

    def waiting(self, days_T: np.ndarray) -> np.ndarray:
        """How likely neither has come by each of these days, [Q, T]."""
        return np.exp(-self._hazard(days_T))

    def _hazard(self, days_T: np.ndarray) -> np.ndarray:
        return np.einsum("qb,bt->qt", self.either, self._within(days_T))

    def remaining(self, days_T: np.ndarray, horizon: float) -> np.ndarray:
        """How likely the outcome comes by the day `horizon` where neither has come by each of these days, [Q, T]."""
        days_T = np.asarray(days_T, np.float64)
        passed, at_edges = self._hazard(days_T), self._hazard(self.edges)
        waiting = np.exp(-np.maximum(at_edges[:, :, None] - passed[:, None, :], 0))
        left = np.maximum(self._within(np.array([horizon])) - self._within(days_T), 0)
        share = (self.outcome / self.either)[:, :, None]
        return (share * waiting * -np.expm1(-self.either[:, :, None] * left)).sum(1)

    def quantile(self, share: float, horizon: float = np.inf) -> np.ndarray:
        """By which day the outcome has come to so large a `share` of those to whom it comes by `horizon`, [Q]."""
        wanted = share * self.incidence(np.array([horizon]))
        begun = self.incidence(self.edges)  # [Q, B]
        piece = np.maximum((begun <= wanted).sum(1) - 1, 0)
        row = np.arange(len(self))
        outcome, either = self.outcome[row, piece], self.either[row, piece]
        most = outcome / either * self.waiting_at_edges[row, piece]
        with np.errstate(divide="ignore", invalid="ignore"):
            gone = np.clip((wanted[:, 0] - begun[row, piece]) / most, 0, 1)
            return self.edges[piece] - np.log1p(-gone) / either
