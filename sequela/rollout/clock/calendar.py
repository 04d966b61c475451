"""Age and calendar are no matter of chance: they follow from birth, the prediction time and the clock.

Shape letters: R rows, V vocabulary, P prompts, B bits of the grammar, I interval classes, S age bands and periods.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from sequela.record.duration import DAY, MINUTE, UNITS
from sequela.record.events import NEVER
from sequela.tokens.ehr.clock import TIME_PREFIX, period_edges
from sequela.tokens.ehr.grammar.grammar import Grammar
from sequela.tokens.ehr.scheme import EhrScheme

MARGIN = 5 * DAY // MINUTE  # by so much a birthday is at most off from so many years of 365.25 days


@dataclass(frozen=True, eq=False)
class Calendar:
    """Sees to it that a rollout says its age band and calendar period when it gets there, and at no other time.

    As in real records a band or period is said once the clock has moved into it, before the next event. So where one is
    due, nothing but it or more time may come; where none is due, none may. The probability that time goes on is that of
    the model in either case: what age and calendar tokens had too much or too little is taken from, or given to, the
    other tokens that move no time, all by the same factor.

    Attributes:
        times: int64 [I], the time tokens.
        groups: the tokens of the age bands, and those of the calendar periods, in their order; S of them in all.
        reached: int64 [S], the grammar's bit of each: whether it, or a later one, was said.
    """

    times: np.ndarray
    groups: tuple[np.ndarray, ...]
    reached: np.ndarray

    @staticmethod
    def of(scheme: EhrScheme, grammar: Grammar) -> Calendar:
        """The calendar of a vocabulary."""
        groups = (scheme.age_tokens, scheme.period_tokens)
        return Calendar(
            scheme.vocabulary.matching(TIME_PREFIX),
            groups,
            grammar.forbids[np.concatenate(groups)].astype(np.int64),
        )

    @cached_property
    def key(self) -> Hashable:
        """Equal for calendars that do the same."""
        return tuple(array.tobytes() for array in (self.times, *self.groups, self.reached))

    def force(self, mass: Tensor, clock: Tensor, begins: Tensor, bits: Tensor) -> Tensor:
        """The mass [R, V] of what may come next, changed in place.

        Args:
            clock: int64 [R], minutes.
            begins: int64 [R, S], the minute at which each band or period begins (see `begin_minutes`).
            bits: bool [R, B], the state of the grammar.
        """
        times, carried = (torch.from_numpy(x).to(mass.device) for x in (self.times, np.concatenate(self.groups)))
        timed, said = mass[:, times], mass[:, carried]
        mass[:, times], mass[:, carried] = 0, 0
        other, lost = mass.sum(-1), said.sum(-1)
        mass[:, times] = timed * torch.where(other > 0, other / (other + lost), 1)[:, None]
        due = self._due(clock, begins, bits)
        # Beside what is infinitely unlikely, even a wrong band is something that can come
        nothing = (due < 0) & (other == 0) & (timed.sum(-1) == 0)
        mass[:, carried] = said * nothing[:, None]
        rows = (due >= 0).nonzero()[:, 0]
        if len(rows):
            mass[rows] = 0
            mass[rows[:, None], times] = timed[rows]
            mass[rows, due[rows]] = (other + lost)[rows]
        return mass

    def _due(self, clock: Tensor, begins: Tensor, bits: Tensor) -> Tensor:
        """The token that is due in each row, int64 [R]; -1 for none. Age comes before the calendar."""
        out, first = torch.full_like(clock, -1), 0
        held = begins <= clock[:, None]
        told = bits[:, torch.from_numpy(self.reached).to(bits.device)]
        for group in self.groups:
            here = slice(first, first + len(group))
            first += len(group)
            now, before = held[:, here].sum(1), told[:, here].sum(1)
            tokens = torch.from_numpy(np.append(group, -1)).to(clock.device)
            out = torch.where((out < 0) & (now > before), tokens[now - 1], out)
        return out


def begin_minutes(scheme: EhrScheme, born: np.ndarray, at: np.ndarray) -> np.ndarray:
    """When each age band and calendar period begins, int64 [P, S]: the first whole minute after `at` [P] in it.

    A minute before `at` is negative. The first of each kind has always been; for those whose birth is not known no
    age band ever begins.

    Args:
        born: int64 [P], microseconds; `NEVER` if unknown.
        at: int64 [P], microseconds.
    """
    width, bands = scheme.settings.age_band_years, len(scheme.age_tokens)
    known = np.flatnonzero(born != NEVER)
    out = np.full((len(at), bands + len(scheme.period_tokens)), NEVER)
    row, band = (x.ravel() for x in np.broadcast_arrays(known[:, None], np.arange(1, bands)))
    since, now = born[row], at[row]
    guess = (since + band * width * UNITS["year"] - now) // MINUTE
    before, after = guess - MARGIN, guess + MARGIN
    while (after - before > 1).any():
        middle = (before + after) // 2
        reached = scheme.age_bands(since, now + middle * MINUTE) >= band
        before, after = np.where(reached, before, middle), np.where(reached, middle, after)
    out[row, band] = after
    out[known, 0] = -NEVER
    if len(scheme.period_tokens):
        edges = period_edges([scheme.vocabulary.tokens[token] for token in scheme.period_tokens])
        out[:, bands] = -NEVER
        out[:, bands + 1 :] = -((at[:, None] - edges) // MINUTE)
    return out
