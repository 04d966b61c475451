"""What a simulation is asked. Apart from the engine, so that those who only ask need no torch."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl


@dataclass(frozen=True)
class Request:
    """One question to the futures.

    `times`: frame of subject_id and prediction_time (microseconds); `outcome` and `ends`: codes, a trailing * is a
    prefix; `horizon_minutes`: None is without limit; `counted`: which outcome events tell the answer: the "first" one
    settles it, "all" are counted up to an end or the horizon, or "none" does by itself (a rule over several events, or
    over values).
    """

    name: str
    times: pl.DataFrame
    outcome: tuple[str, ...]
    ends: tuple[str, ...]
    horizon_minutes: int | None
    counted: str = "first"
