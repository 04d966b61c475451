"""Codes that a patient has once: found where chance alone would have brought many repeats, and there is none.

A code that few have, or with which records end, is never seen twice either. So what counts is how many repeats there
would have been if those who had the code got it again as often as anybody gets it: e of them. If there was none, they
get it again at less than 3 / e of that rate, with a confidence of 95 % (the rule of three).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sequela.tokens.ehr.scheme import EhrScheme
from sequela.tokens.ragged import Ragged

LEAST_EXPECTED = 60  # repeats: those who had the code get it at less than a twentieth of the rate at which others do
MOST_CODES = 64  # each is a bit of the state


@dataclass(frozen=True)
class CodesByToken:
    """The G codes of the tokens that begin an event, with all their values and what may follow as one code.

    `names`: sorted; `group` int64 [V], the row of each token's code, -1 for other tokens; `moves` bool [V], which
    tokens move the clock.
    """

    names: tuple[str, ...]
    group: np.ndarray
    moves: np.ndarray

    @staticmethod
    def of(scheme: EhrScheme) -> CodesByToken:
        """The codes of a vocabulary."""
        begins = np.flatnonzero((scheme.place == 0) | (scheme.place == 1))
        names = sorted({scheme.codes[token] for token in begins})
        rows = {name: row for row, name in enumerate(names)}
        group = np.full(len(scheme.vocabulary), -1)
        group[begins] = [rows[scheme.codes[token]] for token in begins]
        return CodesByToken(tuple(names), group, scheme.minutes_V > 0)


@dataclass(frozen=True)
class RepeatCounts:
    """How often G codes came, int64 [G] each.

    `events`; `again`: of patients who had the code more than once; `later`: events, of whatever code, at moments after
    the first of this code.
    """

    events: np.ndarray
    again: np.ndarray
    later: np.ndarray

    @staticmethod
    def nothing(codes: CodesByToken) -> RepeatCounts:
        """No patient."""
        none = np.zeros(len(codes.names), np.int64)
        return RepeatCounts(none, none, none)

    @staticmethod
    def of(codes: CodesByToken, rows: Ragged) -> RepeatCounts:
        """Count in the token rows of whole patients."""
        size = len(codes.names)
        at = np.flatnonzero(codes.group[rows.flat] >= 0)
        code = codes.group[rows.flat[at]]
        row = np.searchsorted(rows.offsets, at, side="right") - 1
        moment = row + np.cumsum(codes.moves[rows.flat])[at]  # rises from one moment, and from one row, to the next
        later = np.searchsorted(row, row, side="right") - np.searchsorted(moment, moment, side="right")
        _, first, times = np.unique(row * size + code, return_index=True, return_counts=True)
        counted = np.bincount(code[first], weights=later[first], minlength=size)  # exact below 2 ** 53
        return RepeatCounts(
            np.bincount(code, minlength=size),
            np.bincount(code[first][times > 1], minlength=size),
            counted.astype(np.int64),
        )

    def and_also(self, other: RepeatCounts) -> RepeatCounts:
        """The counts of both together."""
        return RepeatCounts(self.events + other.events, self.again + other.again, self.later + other.later)

    def once(self) -> np.ndarray:
        """The rows of the codes that a patient has once, in order; of too many, those with the most evidence."""
        expected = self.later * (self.events / max(self.events.sum(), 1))
        expected[self.again > 0] = 0
        surest = np.argsort(-expected, kind="stable")[:MOST_CODES]
        return np.sort(surest[expected[surest] >= LEAST_EXPECTED])
