"""How records are written as text."""

from __future__ import annotations

from dataclasses import dataclass

DAYS = ("date", "age")
NUMBERS = ("significant", "two_decimals")


@dataclass(frozen=True)
class TextSettings:
    """How records are written as text, for language models."""

    days: str = "date"
    """How text heads a day: date ([2024-01-10]), or age ([age 38, day 5]), which tells no calendar time."""
    numbers: str = "significant"
    """How text has numbers: significant (three digits), or two_decimals as in published checkpoints (0.004 is 0.00)."""
    values: int = 5
    """How many values of a code text has a day, the latest ones."""

    def __post_init__(self) -> None:
        if self.days not in DAYS:
            raise ValueError(f"days must be {' or '.join(DAYS)}, not {self.days!r}")
        if self.numbers not in NUMBERS:
            raise ValueError(f"numbers must be {' or '.join(NUMBERS)}, not {self.numbers!r}")
        if self.values < 1:
            raise ValueError(f"values must be 1 or more, not {self.values}")
