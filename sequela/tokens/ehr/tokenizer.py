"""Everything that turns timelines into integers and back, fitted on training patients only.

A patient is `BOS, sex, race, age band, calendar period, events ...`; an event is `[time tokens] [age band] [calendar
period] code part(s) [quantile]`, age and calendar where they changed (arXiv 2508.12104, section on tokenization). Time
stamps are not kept: elapsed time is the time tokens. The end of follow-up is time tokens up to it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from sequela.errors import InputError
from sequela.record.events import Events
from sequela.record.schema import RACE_PREFIX, SEX_PREFIX
from sequela.tokens.ehr.bins import Bins
from sequela.tokens.ehr.budget import chosen
from sequela.tokens.ehr.clock import (
    AGE_PREFIX,
    LAST_YEAR,
    PERIOD_PREFIX,
    TIME_PREFIX,
    Intervals,
    age_names,
    period_names,
    year_of,
)
from sequela.tokens.ehr.code import part_place, split_code
from sequela.tokens.ehr.family import PROCEDURE_UNKNOWN, family
from sequela.tokens.ehr.settings import TokenSettings
from sequela.tokens.ehr.statistics import Statistics
from sequela.tokens.maps.code_map import CodeMap
from sequela.tokens.maps.recode import load_same_maps, recoded, save_maps
from sequela.tokens.vocabulary import BOS, SPECIAL, Vocabulary

QUANTILE_PREFIX = "Q//"
QUANTILE = 9  # of `Tokenizer.place`
FUSED = "=Q"  # LAB//HDL=Q7: a code and its quantile in one token
# They tell the kinds of tokens apart
RESERVED = (TIME_PREFIX, AGE_PREFIX, PERIOD_PREFIX, QUANTILE_PREFIX, SEX_PREFIX, RACE_PREFIX)
FILE = "vocabulary.json"


@dataclass(frozen=True)
class Tokenizer:
    """What `encode` and `decode` need."""

    settings: TokenSettings
    vocabulary: Vocabulary
    intervals: Intervals
    bins: Bins
    maps: tuple[CodeMap, ...] = ()

    @staticmethod
    def fit(
        statistics: Statistics, settings: TokenSettings, maps: tuple[CodeMap, ...] = (), *, dated: bool = True
    ) -> Tokenizer:
        """Fit on the counts over training patients; the interval means are still guesses (see `timed`).

        Args:
            maps: what the codes were translated by before they were counted.
            dated: whether the dataset's dates are real, so that calendar periods mean something.

        Raises:
            InputError: where no code is frequent enough to get a token, or a code has the name of another token.
        """
        kept, parts = chosen(statistics, settings)
        _check_names(parts, settings)
        if not kept:
            raise InputError(
                f"No code occurs in {settings.min_patients} or more training patients: lower min_patients "
                "or tokenize a larger dataset."
            )
        bins = Bins.fit(statistics.names, statistics.values, settings.quantiles).only(kept)
        intervals = Intervals.guess(settings.interval_edges)
        enough = statistics.static >= settings.min_patients  # once a patient
        static = [name for name, many in zip(statistics.names, enough, strict=True) if many]
        # A code in parts keeps its value apart.
        whole = set(bins.codes) & set(parts) if settings.fused else set()
        apart = settings.quantiles if set(bins.codes) - whole else 0
        periods = settings.calendar_years if dated and year_of(statistics.last) <= LAST_YEAR else 0
        names = [
            *SPECIAL,
            *(intervals.names if settings.time == "intervals" else []),
            *age_names(settings.age_band_years),
            *period_names(periods, statistics.first, statistics.last),
            *[f"{QUANTILE_PREFIX}{i}" for i in range(1, apart + 1)],
            *[code for code in static if code.startswith(SEX_PREFIX)],
            *[code for code in static if code.startswith(RACE_PREFIX)],
            *parts,
            *[f"{code}{FUSED}{i}" for code in sorted(whole) for i in range(1, settings.quantiles + 1)],
        ]
        return Tokenizer(settings, Vocabulary(tuple(names)), intervals, bins, maps)

    def timed(self, gaps: np.ndarray) -> Tokenizer:
        """This tokenizer with the mean durations of training gaps (see `Intervals.timed`)."""
        return replace(self, intervals=self.intervals.timed(gaps))

    def translated(self, columns: Events) -> Events:
        """The events in the codes that the tokenizer knows."""
        return recoded(columns, self.maps)

    def split(self, code: str) -> tuple[str, ...]:
        """The token names of a code."""
        return (code,) if self.settings.joint else split_code(code)

    def known(self, code: str) -> list[int]:
        """The integers of a code: its parts up to the first one that has no token; empty where it has none at all.

        A procedure without a token of its own is an unknown procedure, where the vocabulary has that token.
        """
        if code not in self._looked_up:
            self._looked_up[code] = self._look_up(code)
        return self._looked_up[code]

    def _look_up(self, code: str) -> list[int]:
        index, out = self._code_index, []
        for part in self.split(code):
            if part not in index:
                break
            out.append(index[part])
        if not out and PROCEDURE_UNKNOWN in index and family(code) == "procedure":
            return [index[PROCEDURE_UNKNOWN]]
        return out

    @cached_property
    def _code_index(self) -> dict[str, int]:
        """Name -> integer of the tokens that are codes or parts of codes: no event becomes a token of another kind."""
        of_code = (self.place >= 0) & (self.quantile < 0)
        return {token: row for token, row in self.vocabulary.index.items() if of_code[row]}

    @cached_property
    def _looked_up(self) -> dict[str, list[int]]:
        return {}

    @cached_property
    def minutes(self) -> np.ndarray:
        """Minutes by which each token moves the clock, int64 [V]; 0 for all but time tokens."""
        out = np.zeros(len(self.vocabulary), np.int64)
        if self.settings.time == "intervals":
            out[self.vocabulary.matching(TIME_PREFIX)] = self.intervals.means
        return out

    @cached_property
    def head_tokens(self) -> np.ndarray:
        """Integers of the tokens that open a patient: the start and the demographics that do not change."""
        groups = [self.vocabulary.matching(prefix) for prefix in (SEX_PREFIX, RACE_PREFIX)]
        return np.concatenate([[BOS], *groups])

    @cached_property
    def age_tokens(self) -> np.ndarray:
        """Integers of the age bands, youngest first."""
        return self.vocabulary.matching(AGE_PREFIX)

    @cached_property
    def period_tokens(self) -> np.ndarray:
        """Integers of the calendar periods, earliest first; empty where there are none."""
        return self.vocabulary.matching(PERIOD_PREFIX)

    @property
    def carried_tokens(self) -> tuple[np.ndarray, ...]:
        """Groups of tokens whose latest one still holds: the age band, the calendar period."""
        return tuple(group for group in (self.age_tokens, self.period_tokens) if len(group))

    @cached_property
    def codes(self) -> tuple[str, ...]:
        """What each token says of a code, [V]: the token's name, without the quantile of a fused one."""
        if not self.settings.fused:  # a code itself may hold the mark
            return self.vocabulary.tokens
        return tuple(token.partition(FUSED)[0] for token in self.vocabulary.tokens)

    @cached_property
    def quantile(self) -> np.ndarray:
        """The quantile that each token tells, from 0, int64 [V]; -1 for none."""
        out = np.full(len(self.vocabulary), -1)
        apart = self.vocabulary.matching(QUANTILE_PREFIX)
        out[apart] = np.arange(len(apart))
        for first in self.fused_base.values():
            out[first : first + self.settings.quantiles] = np.arange(self.settings.quantiles)
        return out

    @cached_property
    def fused_base(self) -> dict[str, int]:
        """Code -> integer of its first fused token."""
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

    def save(self, folder: Path) -> None:
        """Write `vocabulary.json` (settings, tokens, interval means, cut points, bin centres) and the code maps."""
        body = {
            "hash": self.vocabulary.hash,
            "settings": asdict(self.settings),
            "maps": save_maps(self.maps, folder),
            "interval_means_minutes": self.intervals.means.tolist(),
            "bins": {
                code: {"cuts": cuts.tolist(), "centres": centres.tolist()}
                for code, cuts, centres in zip(
                    self.bins.codes, self.bins.cuts, self.bins.centres, strict=True
                )
            },
            "tokens": self.vocabulary.tokens,
        }
        # One line a part: json's own indentation is many times slower
        lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in body.items()]
        lines.append(f'"checksum": "{_checksum(lines)}"')
        (folder / FILE).write_text("{\n" + ",\n".join(lines) + "\n}\n")

    @staticmethod
    def load(folder: Path) -> Tokenizer:
        """Read what `save` wrote. Raises InputError when the file is missing, damaged or edited."""
        path = Path(folder) / FILE
        try:
            body = json.loads(path.read_text())
            settings = TokenSettings(
                **{**body["settings"], "interval_edges": tuple(body["settings"]["interval_edges"])}
            )
            vocabulary = Vocabulary(tuple(body["tokens"]))
            edges = np.array(settings.interval_edges, np.int64)
            codes = tuple(body["bins"])
            cuts = np.reshape([body["bins"][c]["cuts"] for c in codes], (len(codes), settings.quantiles - 1))
            centres = np.reshape(
                [body["bins"][c]["centres"] for c in codes], (len(codes), settings.quantiles)
            )
            intervals = Intervals(edges, np.array(body["interval_means_minutes"], np.int64))
            identities = dict(body["maps"])
        except FileNotFoundError:
            raise InputError(
                f"{path} is missing: name a folder made by `sequela tokenize` or `sequela train`."
            ) from None
        except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is damaged ({error}): make the folder again.") from error
        checksum = body.pop("checksum", None)
        lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in body.items()]
        if vocabulary.hash != body["hash"] or _checksum(lines) != checksum:
            raise InputError(f"{path} was edited: it no longer matches its hash; make the folder again.")
        maps = load_same_maps(identities, Path(folder))
        return Tokenizer(settings, vocabulary, intervals, Bins(codes, cuts, centres), maps)


def _checksum(lines: list[str]) -> str:
    """The SHA-256 of everything that `save` writes but itself, as `json.dumps` would write it."""
    return hashlib.sha256(("{" + ", ".join(lines) + "}").encode()).hexdigest()


def _check_names(parts: list[str], settings: TokenSettings) -> None:
    for code in parts:
        if code in SPECIAL or code.startswith(RESERVED) or (settings.fused and FUSED in code):
            raise InputError(
                f"The code {code!r} has the name of a token of another kind: rename it, for instance in the "
                f"mapping of its source; codes may not begin with {', '.join(RESERVED)}"
                + (f", nor hold {FUSED}." if settings.fused else ".")
            )
