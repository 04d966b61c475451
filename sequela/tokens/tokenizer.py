"""Timelines to integers and back, in the CoMET scheme (arXiv 2508.12104, section on tokenisation).

A patient is `BOS, sex, race, age band, events ...`; an event is `[time tokens] [age band, when it changed] code part(s)
[quantile]`. Time stamps are not kept: elapsed time is the time tokens. The end of follow-up is time tokens up to it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from sequela.record.codes import BIRTH, FOLLOW_UP_END, RACE_PREFIX, SEX_PREFIX
from sequela.record.errors import InputError
from sequela.tokens.bins import Bins
from sequela.tokens.code import join_parts, order_rank, part_place, split_code
from sequela.tokens.interval import Intervals
from sequela.tokens.ragged import Ragged, interleave, offsets_of, optional
from sequela.tokens.settings import TokenSettings
from sequela.tokens.vocabulary import BOS, SPECIAL, Vocabulary

MINUTE = 60_000_000  # microseconds
YEAR = 365.25 * 1440 * MINUTE
MAX_AGE = 120
RESERVED = ("TIME//", "AGE//", "Q//", SEX_PREFIX, RACE_PREFIX)  # they tell the kinds of tokens apart
FILE = "vocabulary.json"


@dataclass(frozen=True)
class Encoded:
    """Token rows of P patients, in the order of their ids.

    `patients` int64 [P]; `tokens` ragged [P, length]; `last` int64 [P]: microsecond of each patient's last event with a
    token; `events`: number of events with tokens; `dropped`: number of events without a token, by code.
    """

    patients: np.ndarray
    tokens: Ragged
    last: np.ndarray
    events: int
    dropped: dict[str, int]


@dataclass(frozen=True)
class Tokenizer:
    """Everything that `encode` and `decode` need, fitted on training patients only."""

    settings: TokenSettings
    vocabulary: Vocabulary
    intervals: Intervals
    bins: Bins

    @staticmethod
    def fit(events: pl.DataFrame, settings: TokenSettings) -> Tokenizer:
        """Fit on the events of training patients (MEDS columns, sorted by patient and time).

        Raises InputError when no code is frequent enough to get a token.
        """
        moving = _moving(events, settings)
        every = moving["code"].unique().sort()
        taken = [code for code in every if code in SPECIAL or code.startswith(RESERVED)]
        if taken:
            raise InputError(
                f"The code {taken[0]!r} has the name of a token of another kind: rename it, for instance in the "
                f"mapping of its source; codes may not begin with {', '.join(RESERVED)}."
            )
        parts = pl.DataFrame({"code": every, "part": [list(split_code(code)) for code in every]}).explode(
            "part"
        )
        counts = moving.join(parts, on="code").group_by("part").agg(pl.col("subject_id").n_unique())
        frequent = set(counts.filter(pl.col("subject_id") >= settings.min_patients)["part"])
        codes = [code for code in every if split_code(code)[0] in frequent]
        if not codes:
            raise InputError(
                f"No code occurs in {settings.min_patients} or more training patients: lower min_patients "
                "or tokenise a larger dataset."
            )
        kept = moving.filter(pl.col("code").is_in(codes))
        bins = Bins.fit(kept.select("code", "numeric_value"), settings.quantiles)
        gaps = kept.select(pl.col("time").diff().over("subject_id")).to_series().drop_nulls()
        intervals = Intervals.fit(settings.interval_edges, gaps.dt.total_minutes().to_numpy())
        static = events.filter(pl.col("time").is_null())["code"].unique().sort().to_list()
        names = [
            *SPECIAL,
            *intervals.names,
            *[
                f"AGE//{a}-{a + settings.age_band_years - 1}"
                for a in range(0, MAX_AGE, settings.age_band_years)
            ],
            *[f"Q//{i}" for i in range(1, settings.quantiles + 1)],
            *[code for code in static if code.startswith(SEX_PREFIX)],
            *[code for code in static if code.startswith(RACE_PREFIX)],
            *sorted(frequent),
        ]
        return Tokenizer(settings, Vocabulary(tuple(names)), intervals, bins)

    @cached_property
    def minutes(self) -> np.ndarray:
        """Minutes by which each token moves the clock, int64 [V]; 0 for all but time tokens."""
        out = np.zeros(len(self.vocabulary), np.int64)
        out[self.vocabulary.matching("TIME//")] = self.intervals.means
        return out

    @cached_property
    def head_tokens(self) -> np.ndarray:
        """Integers of the tokens that open a patient: the start and the demographics that do not change."""
        groups = [self.vocabulary.matching(prefix) for prefix in (SEX_PREFIX, RACE_PREFIX)]
        return np.concatenate([[BOS], *groups])

    @cached_property
    def age_tokens(self) -> np.ndarray:
        """Integers of the age bands, youngest first."""
        return self.vocabulary.matching("AGE//")

    @cached_property
    def _place(self) -> np.ndarray:
        """int64 [V]: -1 not part of an event, 0 whole code, 1..3 part of a code, 9 quantile."""
        kinds = [part_place(token) for token in self.vocabulary.tokens]
        place = np.array(kinds, np.int64)
        for prefix in RESERVED:
            place[self.vocabulary.matching(prefix)] = -1
        place[: len(SPECIAL)] = -1
        place[self.vocabulary.matching("Q//")] = 9
        return place

    def encode(self, events: pl.DataFrame) -> Encoded:
        """Token rows of all patients of `events` (MEDS columns, sorted by patient and time) that have an event.

        Static events are sex and race; others are ignored. A hierarchical code whose later part is unknown is cut
        there; a code without a known first part is dropped and counted.
        """
        index = self.vocabulary.index
        moving = _moving(events, self.settings)
        names = moving["code"].unique().sort()
        parts = [_known_prefix(split_code(code), index) for code in names]
        kept = pl.Series([bool(part) for part in parts], dtype=pl.Boolean)
        known = pl.DataFrame({"code": names, "row": np.arange(len(names)), "kept": kept})
        moving = moving.join(known, on="code", how="left", maintain_order="left")
        lost = moving.filter(~pl.col("kept"))["code"].value_counts()
        moving = moving.filter("kept")

        patient = moving["subject_id"].to_numpy()
        time = moving["time"].to_physical().to_numpy()
        first = np.append(True, patient[1:] != patient[:-1])[: len(patient)]
        last = np.append(patient[1:] != patient[:-1], True)[: len(patient)]
        patients = patient[first]
        gap = np.where(first, 0, np.diff(time, prepend=time[:1])) // MINUTE
        repeats, rest = self.intervals.encode(gap)

        table = pl.DataFrame({"subject_id": patients})
        age, changed = self._age_tokens(events, table, patient, time, first)
        code_row = moving["row"].to_numpy()
        bin_row = {code: i for i, code in enumerate(self.bins.codes)}
        bin_of_name = np.array([bin_row.get(code, -1) for code in names], np.int64)
        value = moving["numeric_value"].fill_null(np.nan).to_numpy()
        quantile = self.bins.encode(bin_of_name[code_row], value)
        end = events.filter(pl.col("code") == FOLLOW_UP_END).group_by("subject_id").agg(pl.col("time").max())
        until = table.join(end, on="subject_id", how="left", maintain_order="left")["time"].to_physical()
        idle = np.maximum(until.fill_null(0).to_numpy() - time[last], 0) // MINUTE
        tail = np.zeros(len(patient), np.int64)
        tail[last] = self.intervals.tail(idle)

        time_0 = index[self.intervals.names[0]]
        longest = time_0 + len(self.intervals.edges) - 1
        event_tokens = interleave([
            self._heads(events, table, first),
            _repeated(longest, repeats),
            optional(np.where(rest >= 0, time_0 + rest, -1)),
            optional(np.where(changed, age, -1)),
            Ragged.of(parts).take(code_row),
            optional(np.where(quantile >= 0, index["Q//1"] + quantile, -1)),
            _repeated(longest, tail),
        ])  # fmt: skip
        offsets = event_tokens.offsets[np.append(np.flatnonzero(first), len(patient))]
        dropped = dict(lost.sort("code").iter_rows())
        return Encoded(patients, Ragged(event_tokens.flat, offsets), time[last], len(patient), dropped)

    def _heads(self, events: pl.DataFrame, table: pl.DataFrame, first: np.ndarray) -> Ragged:
        """`BOS, sex, race` in the row of each patient's first event."""
        static = events.filter(pl.col("time").is_null())
        columns = [optional(np.where(first, BOS, -1))]
        for prefix in (SEX_PREFIX, RACE_PREFIX):
            found = static.filter(pl.col("code").str.starts_with(prefix)).group_by("subject_id").agg(
                pl.col("code").sort().first()
            )  # fmt: skip
            code = table.join(found, on="subject_id", how="left", maintain_order="left")["code"]
            token = np.full(len(first), -1)
            token[first] = [self.vocabulary.index.get(c, -1) for c in code.to_list()]
            columns.append(optional(token))
        return interleave(columns)

    def _age_tokens(
        self,
        events: pl.DataFrame,
        table: pl.DataFrame,
        patient: np.ndarray,
        time: np.ndarray,
        first: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Age-band token of each event [N] (-1: no birth known), and whether it differs from the event before [N]."""
        births = events.filter(pl.col("code") == BIRTH).group_by("subject_id").agg(pl.col("time").min())
        birth = table.join(births, on="subject_id", how="left", maintain_order="left")["time"].to_physical()
        row = np.cumsum(first) - 1
        years = (time - birth.fill_null(0).to_numpy()[row]) / YEAR
        band = np.clip(years, 0, MAX_AGE - 1).astype(np.int64) // self.settings.age_band_years
        token = np.where(birth.is_null().to_numpy()[row], -1, self.age_tokens[0] + band)
        return token, first | (np.diff(token, prepend=-2) != 0)

    def decode(self, rows: Ragged, start: np.ndarray) -> tuple[pl.DataFrame, np.ndarray]:
        """Token rows [R] and the microsecond at which each starts [R] -> (events, end of each row's clock [R]).

        Events have columns row, time, code, numeric_value (float32, the centre of the bin). Only what binning must lose
        is lost: a time inside its interval, a value inside its quantile. Tokens that form no event (a quantile after
        no numeric code, a later part without its first) are skipped.
        """
        token, row = rows.flat, np.repeat(np.arange(len(rows)), rows.lengths)
        passed = np.append(0, np.cumsum(self.minutes[token]))
        clock = passed[1:] - passed[rows.offsets[:-1]][row]
        place = self._place[token]
        event = np.cumsum((place == 0) | (place == 1)) - 1
        previous = np.append(-1, place[:-1])
        previous[
            np.minimum(rows.offsets[:-1], max(len(token) - 1, 0))
        ] = -1  # nothing reaches over from the row before
        starts = np.flatnonzero((place == 0) | (place == 1))
        second = (place == 2) & (previous == 1)
        third = (place == 3) & (previous == 2) & np.append(False, second[:-1])[: len(token)]
        key = np.full((len(starts), 3), -1)
        key[:, 0] = token[starts]
        key[event[second], 1] = token[second]
        key[event[third], 2] = token[third]
        kinds, kind = (
            np.unique(key, axis=0, return_inverse=True) if len(key) else (key, np.zeros(0, np.int64))
        )
        names = self.vocabulary.tokens
        codes = np.array([join_parts(tuple(names[t] for t in k if t >= 0)) for k in kinds.tolist()], object)
        code = codes[kind.ravel()] if len(codes) else np.zeros(0, object)

        bin_row = {c: i for i, c in enumerate(self.bins.codes)}
        bin_of_kind = np.array([bin_row.get(c, -1) for c in codes], np.int64)
        value = np.full(len(starts), np.nan, np.float32)
        at = np.flatnonzero((place == 9) & np.isin(previous, (0, 1, 2, 3)))
        if len(at) and len(starts):
            which = bin_of_kind[kind.ravel()[event[at]]]
            at, which = at[which >= 0], which[which >= 0]
            value[event[at]] = self.bins.centres[which, token[at] - self.vocabulary.index["Q//1"]]
        micro = start[row[starts]] + clock[starts] * MINUTE
        frame = pl.DataFrame({
            "row": row[starts],
            "time": pl.Series(micro, dtype=pl.Int64).cast(pl.Datetime("us")),
            "code": pl.Series(code.tolist(), dtype=pl.String),
            "numeric_value": pl.Series(value, dtype=pl.Float32).fill_nan(None),
        })  # fmt: skip
        return frame, start + (passed[rows.offsets[1:]] - passed[rows.offsets[:-1]]) * MINUTE

    def save(self, folder: Path) -> None:
        """Write `vocabulary.json`: settings, tokens, interval means, cut points and bin centres."""
        body = {
            "hash": self.vocabulary.hash,
            "settings": asdict(self.settings),
            "interval_means_minutes": self.intervals.means.tolist(),
            "bins": {
                code: {"cuts": cuts.tolist(), "centres": centres.tolist()}
                for code, cuts, centres in zip(
                    self.bins.codes, self.bins.cuts, self.bins.centres, strict=True
                )
            },
            "tokens": self.vocabulary.tokens,
        }
        (folder / FILE).write_text(json.dumps(body, indent=1))

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
        except FileNotFoundError:
            raise InputError(
                f"{path} is missing: name a folder made by `sequela tokenize` or `sequela train`."
            ) from None
        except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is damaged ({error}): make the folder again.") from error
        if vocabulary.hash != body["hash"]:
            raise InputError(
                f"{path} was edited: its tokens no longer match its hash; make the folder again."
            )
        return Tokenizer(settings, vocabulary, intervals, Bins(codes, cuts, centres))


def _moving(events: pl.DataFrame, settings: TokenSettings) -> pl.DataFrame:
    """The events that become tokens, in their token order: dated, neither birth nor end of follow-up, thinned."""
    moving = events.filter(
        pl.col("time").is_not_null() & ~pl.col("code").is_in([BIRTH, FOLLOW_UP_END])
    ).select("subject_id", "time", "code", "numeric_value")
    if settings.thin_minutes:
        moving = _thinned(moving, settings.thin_minutes)
    codes = moving["code"].unique()
    rank = pl.col("code").replace_strict(codes, [order_rank(code) for code in codes], return_dtype=pl.Int8)
    return moving.sort("subject_id", "time", rank, "code", "numeric_value", maintain_order=True)


def _thinned(moving: pl.DataFrame, minutes: int) -> pl.DataFrame:
    """Each code once in every window: without a value the first time, with values the last one.

    The last values of a window are dated to the latest of them, which saves time tokens. An event without a value ends
    a window, so no value is moved past a diagnosis, a discharge or a death.
    """
    moving = moving.with_columns(window=pl.col("time").dt.truncate(f"{minutes}m"))
    bare = pl.col("numeric_value").is_null()
    moving = moving.filter(
        ~bare | pl.struct("subject_id", "window", "code", bare.alias("bare")).is_first_distinct()
    )
    moving = moving.with_columns(block=bare.cum_sum().over("subject_id"))
    group = ["subject_id", "window", "block"]
    last = moving.filter(~bare).group_by(*group, "code", maintain_order=True).agg(pl.all().last())
    last = last.with_columns(pl.col("time").max().over(group))
    columns = ["subject_id", "time", "code", "numeric_value"]
    return pl.concat([moving.filter(bare).select(columns), last.select(columns)])


def _known_prefix(parts: tuple[str, ...], index: dict[str, int]) -> list[int]:
    """Integers of the parts up to the first one that has no token."""
    out = []
    for part in parts:
        if part not in index:
            break
        out.append(index[part])
    return out


def _repeated(token: int, times: np.ndarray) -> Ragged:
    return Ragged(np.full(times.sum(), token), offsets_of(times))
