"""A task: a cohort, an outcome and the kind of answer. The same task reads real and simulated timelines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from sequela.record.timeline import Timeline
from sequela.task.cohort import FIRST, Cohort
from sequela.task.kinds import KINDS, Kind
from sequela.task.outcome import OutcomeRule


@dataclass(frozen=True)
class Task:
    """A question about the future of every patient of a cohort.

    Attributes:
        name: a word, also the name of its file.
        title: a line for people.
        dataset: the data it is for.
        asks: the kind of answer: whether, when, how often, which number.
        cohort: who is asked, and when.
        event: which events are the outcome.
    """

    name: str
    title: str
    dataset: str
    asks: Kind
    cohort: Cohort
    event: OutcomeRule

    @staticmethod
    def of(fields: Mapping[str, Any]) -> Task:
        """A task from flat fields, as `as_dict` gives them; lists, as JSON has them, become tuples.

        Raises:
            KeyError: if there is no such kind.
        """
        flat = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
        cohort = {name: flat[name] for name in ("after", "offset", "exclude", "occurrence") if name in flat}
        event = {
            name: flat[name] for name in ("ends", "horizon", "at_least", "above", "below") if name in flat
        }
        return Task(
            flat["name"], flat["title"], flat["dataset"], KINDS[flat["kind"]],
            Cohort(**cohort), OutcomeRule(flat["outcome"], **event),
        )  # fmt: skip

    def as_dict(self) -> dict[str, Any]:
        """All fields, flat, as manifests and `sequela tasks` hold them."""
        cohort, event = self.cohort, self.event
        repeated = {} if cohort.occurrence == FIRST else {"occurrence": cohort.occurrence}
        return {
            "name": self.name,
            "title": self.title,
            "dataset": self.dataset,
            "kind": self.kind,
            "after": cohort.after,
            "offset": cohort.offset,
            "outcome": event.codes,
            "ends": event.ends,
            "horizon": event.horizon,
            "exclude": cohort.exclude,
            "at_least": event.at_least,
            "above": event.above,
            "below": event.below,
            **repeated,
        }

    @property
    def kind(self) -> str:
        """The name of the kind."""
        return self.asks.name

    @property
    def outcome(self) -> tuple[str, ...]:
        """The codes that are the outcome."""
        return self.event.codes

    @property
    def ends(self) -> tuple[str, ...]:
        """The codes after which no outcome counts."""
        return self.event.ends

    @property
    def horizon(self) -> int | None:
        """Microseconds; None: until the outcome or an end."""
        return self.event.horizon

    @property
    def by_value(self) -> bool:
        """Whether the numbers of events bear on the answer, not only their codes."""
        return self.asks.labels.by_value or self.event.bounded

    @property
    def counted(self) -> str:
        """Which outcome codes decide: the "first" one, "all" of them, or "none" by itself (`Request.counted`).

        With "all" and "none" a simulation continues to an end or the horizon.
        """
        counted = self.asks.labels.counted
        return "none" if self.event.bounded or self.event.at_least > 1 else counted

    @property
    def has_hazard(self) -> bool:
        """Whether the answer is the probability of one event that is the outcome by its code alone.

        Only then do next-token probabilities add up to it; all other answers are read off whole rollouts.
        """
        return self.asks.has_hazard and self.counted == "first"

    def decided_by(self) -> tuple[str, ...]:
        """The codes (and prefixes) of all events that bear on the answer."""
        return self.event.codes + self.event.ends

    def prediction_times(self, events: pl.DataFrame) -> pl.DataFrame:
        """The questions of the cohort in sorted MEDS `events` (see `Cohort.questions`)."""
        return self.cohort.questions(events)

    def label(self, timeline: Timeline, at: int) -> float | None:
        """The answer of `timeline`, real or simulated, to the question asked at `at` (microseconds); None: not known.

        See `OutcomeRule.read` for which events count and `Kind.labels` for what is read off them. This is the reference
        that `sequela.task.label.labels` must agree with.
        """
        return self.asks.labels.label(self.event.read(timeline, at))
