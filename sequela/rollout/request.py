"""Requests: what a simulation is asked. Free of torch, which only the engine needs."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl


@dataclass(frozen=True)
class Request:
    """One outcome, asked at many questions.

    Attributes:
        name: of the task.
        times: the questions, `subject_id` and `prediction_time` (microseconds).
        outcome, ends: codes, or prefixes that end with *.
        horizon_minutes: None for no limit.
        counted: which outcome events give the answer: the "first" one settles it, "all" are counted up to an end or the
            horizon, or "none" does by its code alone (a rule over several events, or over their values).
    """

    name: str
    times: pl.DataFrame
    outcome: tuple[str, ...]
    ends: tuple[str, ...]
    horizon_minutes: int | None
    counted: str = "first"
