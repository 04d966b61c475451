"""What the tokens of an EHR vocabulary mean.

A patient is `BOS, sex, race, age band, calendar period, events ...`; an event is `[time tokens] [age band] [calendar
period] [race] code part(s) [quantile]`, with age, calendar and race only where they changed (arXiv 2508.12104, section
on tokenization). Timestamps are not kept: time tokens tell how much time passed, up to the end of follow-up.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sequela.record.duration import UNITS, whole_years
from sequela.record.events import NEVER, Events
from sequela.record.schema import DEATH, RACE_PREFIX, SEX_PREFIX, means
from sequela.record.spelling import canonical
from sequela.tokens.ehr.bins import Bins
from sequela.tokens.ehr.clock import (
    AGE_PREFIX,
    PERIOD_PREFIX,
    TIME_PREFIX,
    YEAR_MINUTES,
    Intervals,
    age_band,
)
from sequela.tokens.ehr.code import COMPLAINT, FAMILIES, family, join_parts, part_place, split_code, stand_ins
from sequela.tokens.ehr.settings import TokenSettings
from sequela.tokens.maps.code_map import CodeMap
from sequela.tokens.maps.recode import recoded
from sequela.tokens.token_types import TokenTypes, Traits
from sequela.tokens.vocabulary import BOS, SPECIAL, Vocabulary

QUANTILE_PREFIX = "Q//"
QUANTILE = 9  # of `EhrScheme.place`
# What a vocabulary means has changed once: in edition 1, of version 0.1, a year of age has 365.25 days, and only
# procedures have a stand-in.
EDITION = 2
CALENDAR_YEARS = 10_000  # no gap is longer
FUSED = "=Q"  # LAB//HDL=Q7: a code and its quantile in one token
# No code may start with these: they tell tokens of different meaning apart.
RESERVED = (TIME_PREFIX, AGE_PREFIX, PERIOD_PREFIX, QUANTILE_PREFIX, SEX_PREFIX, RACE_PREFIX)
BACKGROUND, TIME, VALUE = "background", "time", "value"
TYPES = (*FAMILIES, BACKGROUND, TIME, VALUE)
"""Events are of a family; background is sex, race, age band and calendar period."""


@dataclass(frozen=True)
class EhrScheme:
    """The V tokens of a vocabulary and what each of them means: everything that encoding and decoding look up.

    Attributes:
        settings: the choices of the tokenization.
        vocabulary: the tokens.
        intervals: the classes of elapsed time.
        bins: cut points and centers of the codes that have values.
        maps: the code maps, applied to events before they are encoded.
        edition: of the rules by which events become tokens (see `EDITION`).
    """

    settings: TokenSettings
    vocabulary: Vocabulary
    intervals: Intervals
    bins: Bins
    maps: tuple[CodeMap, ...] = ()
    edition: int = EDITION

    def translated(self, columns: Events) -> Events:
        """The events with their codes translated by the code maps."""
        return recoded(columns, self.maps)

    def split(self, code: str) -> tuple[str, ...]:
        """The token names of a code."""
        return (code,) if self.settings.joint else split_code(code)

    def known(self, code: str) -> list[int]:
        """The ids of a code: its parts up to the first that has no token; empty if it has none at all.

        A code whose spelling has no token takes that of another spelling, and one without any token that of its
        closest stand-in, if the vocabulary has one.
        """
        if code not in self._looked_up:
            self._looked_up[code] = self._look_up(code)
        return self._looked_up[code]

    def _look_up(self, code: str) -> list[int]:
        index, spellings = self._code_index, self._spellings
        out: list[int] = []
        for part in self.split(code):
            token = index.get(part, spellings.get(_spelling(part)))
            if token is None:
                break
            out.append(token)
        if out or _spelling(code) in spellings:
            return out or [spellings[_spelling(code)]]
        replaced = self.edition > 1 or means(code, DEATH) or family(code) == "procedure"
        return next(([index[name]] for name in stand_ins(code) if replaced and name in index), [])

    @cached_property
    def _code_index(self) -> dict[str, int]:
        """Name -> id of the tokens that are codes or parts of codes: no event becomes any other token."""
        of_code = (self.place >= 0) & (self.quantile < 0)
        return {token: row for token, row in self.vocabulary.index.items() if of_code[row]}

    @cached_property
    def _spellings(self) -> dict[str, int]:
        """The same by `_spelling`, for codes that are spelled in another way than when the vocabulary was made."""
        return {_spelling(token): row for token, row in reversed(self._code_index.items())}

    @cached_property
    def _looked_up(self) -> dict[str, list[int]]:
        return {}

    @cached_property
    def longest_gap(self) -> int:
        """The minutes that a longer gap counts as: whole intervals of the longest class."""
        edge, years = int(self.intervals.edges[-1]), self.settings.gap_years or CALENDAR_YEARS
        return max(min(years, CALENDAR_YEARS) * YEAR_MINUTES // edge, 1) * edge

    @cached_property
    def minutes_V(self) -> np.ndarray:
        """Minutes by which each token moves the clock, int64 [V]; 0 for all but time tokens."""
        out = np.zeros(len(self.vocabulary), np.int64)
        if self.settings.time == "intervals":
            out[self.vocabulary.matching(TIME_PREFIX)] = self.intervals.means
        return out

    def survival(self, rest: np.ndarray) -> np.ndarray:
        """How likely each time token stands for more than `rest` [N] minutes, float64 [N, I], by id."""
        return self.intervals.survival(rest)

    @cached_property
    def head(self) -> np.ndarray:
        """Ids of the tokens that open a patient: the start, and the demographics that do not change."""
        groups = [self.vocabulary.matching(prefix) for prefix in (SEX_PREFIX, RACE_PREFIX)]
        return np.concatenate([[BOS], *groups])

    def attribute(self, name: str) -> int:
        """The id of the token of a sex or race, in whatever spelling; -1 if it has none."""
        return self._attributes.get(canonical(name), -1)

    @cached_property
    def _attributes(self) -> dict[str, int]:
        return {canonical(self.vocabulary.tokens[token]): int(token) for token in self.head[:0:-1]}

    @cached_property
    def final(self) -> np.ndarray:
        """Ids of death, after which nothing comes."""
        return np.flatnonzero([means(code, DEATH) for code in self.codes])

    @cached_property
    def age_tokens(self) -> np.ndarray:
        """Ids of the age bands, youngest first."""
        return self.vocabulary.matching(AGE_PREFIX)

    def age_bands(self, born: np.ndarray, time: np.ndarray) -> np.ndarray:
        """The rows [N] of `age_tokens` at `time` [N] of people born at `born` [N], microseconds; -1: birth unknown."""
        since = np.where(born == NEVER, time, born)
        years = whole_years(since, time) if self.edition > 1 else (time - since) // UNITS["year"]
        return np.where(born == NEVER, -1, age_band(years, self.settings.age_band_years))

    @cached_property
    def period_tokens(self) -> np.ndarray:
        """Ids of the calendar periods, earliest first; empty if there are none."""
        return self.vocabulary.matching(PERIOD_PREFIX)

    @property
    def carried(self) -> tuple[np.ndarray, ...]:
        """Groups of ids of which the latest token still holds: age bands, calendar periods, races."""
        races = self.vocabulary.matching(RACE_PREFIX)
        return tuple(group for group in (self.age_tokens, self.period_tokens, races) if len(group))

    @cached_property
    def codes(self) -> tuple[str, ...]:
        """The code, or part of a code, that each token names [V]: its name, without the quantile of a fused token."""
        if not self.settings.fused:  # a code itself may contain the mark
            return self.vocabulary.tokens
        return tuple(token.partition(FUSED)[0] for token in self.vocabulary.tokens)

    @cached_property
    def quantile(self) -> np.ndarray:
        """The quantile that each token stands for, from 0, int64 [V]; -1 for none."""
        out = np.full(len(self.vocabulary), -1)
        apart = self.vocabulary.matching(QUANTILE_PREFIX)
        out[apart] = np.arange(len(apart))
        for first in self.fused_base.values():
            out[first : first + self.settings.quantiles] = np.arange(self.settings.quantiles)
        return out

    @cached_property
    def fused_base(self) -> dict[str, int]:
        """Code -> id of its first fused token."""
        if not self.settings.fused:
            return {}
        first = f"{FUSED}1"
        return {
            token.removesuffix(first): row
            for token, row in self.vocabulary.index.items()
            if token.endswith(first)
        }

    @cached_property
    def place(self) -> np.ndarray:
        """int64 [V]: -1 not part of an event, 0 whole code, 1..3 part of a code, 9 quantile."""
        kinds = [0 if self.settings.joint else part_place(token) for token in self.vocabulary.tokens]
        place = np.array(kinds, np.int64)
        for prefix in RESERVED:
            place[self.vocabulary.matching(prefix)] = -1
        place[: len(SPECIAL)] = -1
        place[self.vocabulary.matching(QUANTILE_PREFIX)] = QUANTILE
        return place

    @property
    def positions_from_clock(self) -> bool:
        """Whether a token's position is its place plus the hours passed, and there are no time tokens."""
        return self.settings.time == "rotary"

    @cached_property
    def types(self) -> TokenTypes:
        """One of `TYPES` per token; a code in several tokens counts once, a fused one adds its value to its code."""
        number = {name: i for i, name in enumerate(TYPES)}
        token = np.array([number[family(code)] for code in self.codes])
        token[: len(SPECIAL)] = number["other"]
        for prefix in RESERVED:
            token[self.vocabulary.matching(prefix)] = number[BACKGROUND]
        token[self.vocabulary.matching(TIME_PREFIX)] = number[TIME]
        valued = self.quantile >= 0
        apart = valued & ~np.isin(self.place, (0, 1))
        token[apart] = number[VALUE]
        counts = ~np.isin(self.place, (2, 3))
        events = np.isin(TYPES, FAMILIES)
        if not self.settings.fused:
            return TokenTypes(token, TYPES, counts, events=events)
        group = np.unique(self.codes, return_inverse=True)[1]
        return TokenTypes(token, TYPES, counts, group, np.where(valued & ~apart, number[VALUE], -1), events)

    @cached_property
    def traits(self) -> Traits:
        """Categories are whole codes, or their first parts; death is one. States are sex, race, age band, calendar
        period, and whether the last value of a code is among the lowest or the highest ones."""
        names, size = [""] * len(self.vocabulary), len(self.vocabulary)
        for token in np.flatnonzero((self.place == 0) | (self.place == 1)):
            names[token] = _category(self.codes[token])
        categories = sorted(set(names) - {""})
        number = {name: i for i, name in enumerate(categories)} | {"": -1}
        states, switches = [], []
        for prefix in (SEX_PREFIX, RACE_PREFIX, AGE_PREFIX, PERIOD_PREFIX):
            group = self.vocabulary.matching(prefix)
            for token in group:
                switches += [(other, -1, len(states), other == token) for other in group]
                states.append(self.vocabulary.tokens[token])
        for code in self.bins.codes:
            values = self._values_of(code)
            for words, wanted in _ends(self.settings.quantiles).items():
                switches += [(*at, len(states), quantile in wanted) for quantile, at in enumerate(values)]
                states.append(f"{code} {words}")
        table = np.array(switches, np.int64).reshape(-1, 4)
        return Traits(np.array([number[name] for name in names]).reshape(size), tuple(categories), tuple(states), table)

    def _values_of(self, code: str) -> list[tuple[int, int]]:
        """The tokens of a code's quantiles, lowest first, and the token before each; -1 where that does not matter."""
        first = self.fused_base.get(code)
        if first is not None:
            return [(first + quantile, -1) for quantile in range(self.settings.quantiles)]
        ids = self.known(code)
        return [(token, ids[-1]) for token in self.vocabulary.matching(QUANTILE_PREFIX)] if ids else []


def _category(code: str) -> str:
    """The name of a code's category; of a code in parts, that of its first part.

    >>> [_category(code) for code in ("ICD10CM//E1165", "ICD10CM//1//E11", "DIAGNOSIS//NAFLD", "MEDS_DEATH//HOME")]
    ['ICD10CM//E11', 'ICD10CM//E11', 'DIAGNOSIS//NAFLD', 'death']
    """
    if family(code) == "death":
        return "death"
    first = code if part_place(code) else split_code(code)[0]
    return join_parts((first,))


def _ends(quantiles: int) -> dict[str, range]:
    """The lowest and highest quantiles in words: one of them, and three of ten.

    >>> _ends(10)
    {'lowest 10 %': range(0, 1), 'highest 10 %': range(9, 10), 'lowest 30 %': range(0, 3), 'highest 30 %': range(7, 10)}
    >>> list(_ends(3))
    ['lowest 33 %', 'highest 33 %']
    """
    counts = dict.fromkeys((1, round(0.3 * quantiles) or 1))
    return {
        f"{words} {100 * count / quantiles:.0f} %": range(first, first + count)
        for count in counts
        for words, first in (("lowest", 0), ("highest", quantiles - count))
    }


def _spelling(token: str) -> str:
    """What the spellings of one code, or of one part of a code, have in common."""
    return token.upper() if part_place(token) and not token.startswith(COMPLAINT) else canonical(token)
