"""Outcome rules: which events are the outcome, until when, and what ends the wait."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import polars as pl

from sequela.record.duration import reached
from sequela.record.spelling import matches_code
from sequela.record.timeline import Timeline
from sequela.task.rules import Reading


@dataclass(frozen=True)
class OutcomeRule:
    """Which events are the outcome. Codes match exactly, or as a prefix if they end with `*`.

    Attributes:
        codes: any of these is the outcome.
        ends: codes after whose moment no outcome counts any more (death, discharge).
        horizon: microseconds; None: until the outcome or an end.
        at_least: the outcome has happened with that many outcome events.
        above: an event counts only if its number is strictly above this; None: no such limit, and no number needed.
        below: an event counts only if its number is strictly below this; None: no such limit, and no number needed.
    """

    codes: tuple[str, ...]
    ends: tuple[str, ...] = ()
    horizon: int | None = None
    at_least: int = 1
    above: float | None = None
    below: float | None = None

    @property
    def bounded(self) -> bool:
        """Whether the numbers of events decide if they count."""
        return self.above is not None or self.below is not None

    def read(self, timeline: Timeline, at: int) -> Reading:
        """What `timeline` shows of the question asked at `at` (microseconds).

        An outcome event at time t counts if at <= t <= at + horizon, no end event comes strictly before it, and its
        number lies within the bounds: so one at the very moment of an end counts. Undated events never count. A
        timeline is complete if it reaches at + horizon, or the calendar day on which a horizon in months or years is
        over (see `sequela.record.duration.reached`). One that stops within a moment (`Timeline.cut`) has to have passed
        an end or at + horizon.
        """
        limit = math.inf if self.horizon is None else at + self.horizon
        times, codes, numbers = timeline.time.tolist(), timeline.code, timeline.number
        inside = [i for i, time in enumerate(times) if at <= time <= limit]
        ending = next((times[i] for i in inside if matches_code(codes[i], self.ends)), None)
        last = limit if ending is None else ending
        counted = [
            i
            for i in inside
            if times[i] <= last and matches_code(codes[i], self.codes) and self.admits(numbers[i])
        ]
        complete = math.inf if self.horizon is None else reached(at, self.horizon)
        end, cut = timeline.end, timeline.cut
        ended = ending is not None and not (cut and ending == end)
        followed = end is not None and (end > limit if cut else end >= complete)
        times, numbers = [times[i] for i in counted], [numbers[i] for i in counted]
        return Reading(at, times, numbers, ended or followed, self.at_least)

    def admits(self, number: float) -> bool:
        """Whether an outcome event with this `number` (NaN: none) counts; compared in single precision, as stored."""
        high = self.above is None or np.float32(number) > np.float32(self.above)
        low = self.below is None or np.float32(number) < np.float32(self.below)
        return bool(high and low)

    def admitted(self) -> pl.Expr:
        """Whether the number in the column `numeric_value` lets an event count: `admits` for frames."""
        conditions = [pl.lit(True)]
        number = pl.col("numeric_value").cast(pl.Float32).fill_nan(None)
        if self.above is not None:
            conditions.append(number > pl.lit(self.above, pl.Float32))
        if self.below is not None:
            conditions.append(number < pl.lit(self.below, pl.Float32))
        return pl.all_horizontal(conditions).fill_null(False)
