"""What became of the events of one part, small enough to be added up over all parts."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Account:
    """Counts of events and patients.

    Attributes:
        events: how many events were written, by rule.
        dropped: (rule, reason) -> how many were not, because of other events of the same patient.
        first, last: the times of the first and the last dated event, by rule.
        patients: how many patients, by split.
        patients_with: what is odd -> how many patients have it.
        moved: what -> how many events were moved to another time.
    """

    events: Counter[int] = field(default_factory=Counter)
    dropped: Counter[tuple[int, str]] = field(default_factory=Counter)
    first: dict[int, dt.datetime] = field(default_factory=dict)
    last: dict[int, dt.datetime] = field(default_factory=dict)
    patients: Counter[str] = field(default_factory=Counter)
    patients_with: Counter[str] = field(default_factory=Counter)
    moved: Counter[str] = field(default_factory=Counter)

    def plus(self, other: Account) -> Account:
        """Both together; no patient is in both."""
        return Account(
            _sum(self.events, other.events),
            _sum(self.dropped, other.dropped),
            {rule: min(_both(rule, self.first, other.first)) for rule in self.first | other.first},
            {rule: max(_both(rule, self.last, other.last)) for rule in self.last | other.last},
            _sum(self.patients, other.patients),
            _sum(self.patients_with, other.patients_with),
            _sum(self.moved, other.moved),
        )


def _sum(one: Counter, other: Counter) -> Counter:
    total = Counter(one)
    total.update(other)  # unlike `+`, keeps what was counted and found to be none
    return total


def _both(rule: int, *times: dict[int, dt.datetime]) -> list[dt.datetime]:
    return [some[rule] for some in times if rule in some]
