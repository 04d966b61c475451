"""Fit a tokenizer: which codes get a token, and the vocabulary, bins and intervals that follow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import polars as pl

from sequela.errors import InputError
from sequela.record.events import Events
from sequela.record.schema import DEATH, RACE_PREFIX, SEX_PREFIX, means
from sequela.tokens.ehr.bins import Bins
from sequela.tokens.ehr.clock import Intervals, age_names, bulk, period_names, period_width
from sequela.tokens.ehr.code import PROCEDURE_UNKNOWN, families, family, part_place, split_code, stand_ins
from sequela.tokens.ehr.encode import encode
from sequela.tokens.ehr.grammar.stays import stay_of
from sequela.tokens.ehr.scheme import FUSED, QUANTILE_PREFIX, RESERVED
from sequela.tokens.ehr.settings import TokenSettings
from sequela.tokens.ehr.statistics import CodeStatistics
from sequela.tokens.ehr.tokenizer import EhrTokenizer
from sequela.tokens.maps.code_map import CodeMap
from sequela.tokens.maps.recode import recoded
from sequela.tokens.vocabulary import SPECIAL, Vocabulary


def fit(
    columns: Events,
    settings: TokenSettings | None = None,
    maps: tuple[CodeMap, ...] = (),
    *,
    dated: bool = True,
) -> EhrTokenizer:
    """Fit on the events of training patients in memory; `tokenize` does the same on shards.

    Raises:
        InputError: see `fit_statistics`.
    """
    settings = settings or TokenSettings()
    bare = fit_statistics(CodeStatistics.of(recoded(columns, maps), settings), settings, maps, dated=dated)
    return bare.timed(encode(bare, columns).gaps)


def fit_statistics(
    statistics: CodeStatistics, settings: TokenSettings, maps: tuple[CodeMap, ...] = (), *, dated: bool = True
) -> EhrTokenizer:
    """Fit on the counts over training patients; intervals are guessed until `EhrTokenizer.timed` sets them.

    Args:
        maps: the code maps that were applied before counting.
        dated: whether the dataset's dates are real, so that calendar periods mean something.

    Raises:
        InputError: if no code is frequent enough to get a token, or a code has the name of a token of another kind.
    """
    if not statistics.patients:
        raise InputError(
            "No event of the training patients has a time, but for births and ends of follow-up: fill in the column "
            "'time', since only events with a time become tokens."
        )
    known, parts = chosen_codes(statistics, settings)
    _check_names(parts, settings)
    if not known:
        raise InputError(
            f"No code occurs in {settings.min_patients} or more of the {statistics.patients:,} training patients: "
            "lower min_patients or tokenize a larger dataset."
        )
    bins = Bins.fit(statistics.names, statistics.values, settings.quantiles).only(known)
    intervals = Intervals.guess(settings.interval_edges)
    frequent = statistics.persons >= settings.min_patients
    persons = [name for name, kept in zip(statistics.names, frequent, strict=True) if kept]
    # A code in parts keeps its value as a separate token.
    whole = set(bins.codes) & set(parts) if settings.fused else set()
    apart = settings.quantiles if set(bins.codes) - whole else 0
    periods = settings.calendar_years if dated else 0
    names = [
        *SPECIAL,
        *(intervals.names if settings.time == "intervals" else []),
        *age_names(settings.age_band_years),
        *period_names(periods, years_of_data(statistics, settings)),
        *[f"{QUANTILE_PREFIX}{i}" for i in range(1, apart + 1)],
        *[code for code in persons if code.startswith(SEX_PREFIX)],
        *[code for code in persons if code.startswith(RACE_PREFIX)],
        *parts,
        *[f"{code}{FUSED}{i}" for code in sorted(whole) for i in range(1, settings.quantiles + 1)],
    ]
    return EhrTokenizer(settings, Vocabulary(tuple(names)), intervals, bins, maps)


def years_of_data(statistics: CodeStatistics, settings: TokenSettings) -> tuple[int, int] | None:
    """The first and the last year of the data of the training patients (see `bulk`)."""
    return bulk(statistics.periods, period_width(settings.calendar_years), settings.min_patients)


def chosen_codes(statistics: CodeStatistics, settings: TokenSettings) -> tuple[set[str], list[str]]:
    """The codes that get a token, at least for their first part, and the names of all tokens of codes, sorted.

    A hierarchical code counts as often as its first part; each later part counts by itself.
    """
    carriers = dict(zip(statistics.parts, statistics.part_carriers.tolist(), strict=True))
    rows = np.flatnonzero(statistics.events)
    codes = [statistics.names[row] for row in rows]
    first = [code if settings.joint else split_code(code)[0] for code in codes]
    counts = pl.DataFrame(
        {
            "code": codes,
            "events": statistics.events[rows],
            "patients": [carriers[part] for part in first],
        },
        schema_overrides={"code": pl.String, "patients": pl.Int64},
    )
    limits = {"lab": settings.labs, "procedure": settings.procedures}
    kept, unknown = within_budget(counts, limits, settings.min_patients)
    known = set(kept)
    names = {part for part, code in zip(first, codes, strict=True) if code in known}
    rare = counts.filter(~pl.col("code").is_in(kept)).select("code", "patients").rows()
    names |= _of_stays(dict(rare), names, settings.min_patients)
    if not settings.joint:
        names |= {
            part
            for part, patients in carriers.items()
            if part_place(part) > 1 and patients >= settings.min_patients
        }
    return known, sorted(names | ({PROCEDURE_UNKNOWN} if unknown else set()))


def _of_stays(rare: Mapping[str, int], names: set[str], min_patients: int) -> set[str]:
    """The tokens that stand for codes of stays and deaths without one of their own, so that every stay can end.

    They are the codes without where from or where to (see `stand_ins`), of which there are enough patients together; or
    fewer, if stays of that kind have a token that begins or ends them, or other deaths have one: else the few would
    live on.

    Args:
        rare: such codes among others, and how many patients have each.
        names: the tokens of the other codes.
    """
    kinds, out, left = _kinds(names), set(), Counter[str]()
    for code, patients in rare.items():
        alike = [name for name in (code, *stand_ins(code)) if _kinds({name}) == _kinds({code})]
        if _kinds({code}) & kinds:
            out |= set() if names & set(alike) else {alike[-1]}
        elif family(code) in ("encounter", "death"):
            left[(code, *stand_ins(code))[-1]] += patients
    out |= {head for head, patients in left.items() if patients >= min_patients}
    kinds, died = _kinds(names | out), any(means(name, DEATH) for name in names | out)
    return out | {head for head in left if _kinds({head}) & kinds or (died and means(head, DEATH))}


def _kinds(codes: set[str]) -> set[str]:
    """The kinds of stay that any of these codes begins or ends."""
    return {stay[0] for stay in map(stay_of, codes) if stay}


def within_budget(
    counts: pl.DataFrame, limits: Mapping[str, int], min_patients: int
) -> tuple[list[str], list[str]]:
    """The codes that get a token of their own, and those that become `PROCEDURE_UNKNOWN`, both sorted by name.

    A code needs `min_patients` patients; in a family with a limit it must also be among that many with the most events
    (ties by name). Procedures left over become `PROCEDURE_UNKNOWN`; other codes left over get no token.

    Args:
        counts: one row per code, with columns code, events and patients (of the training split).
        limits: family -> the number of its codes that get a token.
    """
    codes = counts.with_columns(family=families(counts["code"])).sort("code")
    if codes["code"].is_duplicated().any():
        raise ValueError("counts must have one row per code")
    frequent = codes.filter(pl.col("patients") >= min_patients)
    ranked = frequent.sort("events", "code", descending=[True, False])
    limit = pl.col("family").replace_strict(dict(limits), default=None, return_dtype=pl.Int64)
    rank = pl.int_range(pl.len()).over("family")
    kept = ranked.filter(limit.is_null() | (rank < limit))["code"].sort()
    rest = codes.filter(pl.col("family") == "procedure")
    unknown = rest.join(kept.to_frame(), on="code", how="anti", maintain_order="left")
    return kept.to_list(), unknown["code"].to_list()


def _check_names(parts: list[str], settings: TokenSettings) -> None:
    for code in parts:
        if code in SPECIAL or code.startswith(RESERVED) or (settings.fused and FUSED in code):
            raise InputError(
                f"The code {code!r} has the name of a token of another kind: rename it, for instance in the "
                f"mapping of its source; codes must not begin with {', '.join(RESERVED)}"
                + (f", or contain {FUSED}." if settings.fused else ".")
            )
