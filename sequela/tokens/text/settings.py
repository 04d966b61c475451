"""How records are written as text."""

from __future__ import annotations

from dataclasses import dataclass, fields

DAYS = ("date", "age")
NUMBERS = ("significant", "two_decimals")


@dataclass(frozen=True, kw_only=True)
class TextSettings:
    """How records are written as text, for language models."""

    text_days: str = "date"
    """How text heads a day: date ([2024-01-10]), or age ([age 38, day 5]), which tells no calendar time."""
    text_numbers: str = "significant"
    """How text has numbers: significant (three digits), or two_decimals as in published checkpoints (0.004 is 0.00)."""
    text_values: int = 5
    """How many values of a code a day of a text has, the latest ones."""

    @property
    def text(self) -> TextSettings:
        """These settings, without those that a class adds to them."""
        return TextSettings(**{field.name: getattr(self, field.name) for field in fields(TextSettings)})

    def __post_init__(self) -> None:
        if self.text_days not in DAYS:
            raise ValueError(f"text_days must be {' or '.join(DAYS)}, not {self.text_days!r}")
        if self.text_numbers not in NUMBERS:
            raise ValueError(f"text_numbers must be {' or '.join(NUMBERS)}, not {self.text_numbers!r}")
        if self.text_values < 1:
            raise ValueError(f"text_values must be 1 or more, not {self.text_values}")
