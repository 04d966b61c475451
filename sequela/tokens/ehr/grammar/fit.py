"""The grammar fitted on the token rows of training patients, and read back from its file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sequela.errors import InputError
from sequela.tokens.ehr.clock import TIME_PREFIX
from sequela.tokens.ehr.code import join_parts
from sequela.tokens.ehr.grammar.grammar import FILE, LONGEST, Grammar, checksum, distinct
from sequela.tokens.ehr.grammar.once import CodesByToken, RepeatCounts
from sequela.tokens.ehr.grammar.stays import StayKind, stay_of
from sequela.tokens.ehr.scheme import QUANTILE, EhrScheme
from sequela.tokens.ragged import Ragged

_NOTHING, _SECOND, _THIRD, _VALUE, _STAY = range(5)  # what `fit_grammar` looks for


def fit_grammar(scheme: EhrScheme, rows: Iterable[Ragged]) -> Grammar:
    """Fit on the token rows of whole training patients, some patients at a time; how they are divided does not matter.

    A later part may come after exactly the parts that it came after; a quantile after the codes that came with one
    and have bins; what a patient has once not again.
    """
    tables, codes = _Tables.of(scheme), CodesByToken.of(scheme)
    seen, repeats = _Seen.nothing(tables), RepeatCounts.nothing(codes)
    for block in rows:
        seen = seen.and_also(_Seen.of(tables, block))
        repeats = repeats.and_also(RepeatCounts.of(codes, block))
    return _build(scheme, tables, seen, tuple(codes.names[row] for row in repeats.once()))


def load_grammar(folder: Path, scheme: EhrScheme) -> Grammar:
    """Read what `Grammar.save` wrote.

    Raises:
        InputError: if the file is missing, damaged, edited, or of another vocabulary.
    """
    path = Path(folder) / FILE
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        written = body.pop("checksum")
        in_parts, valued, stays, made_with = (body[key] for key in ("in_parts", "valued", "stays", "hash"))
        once = tuple(body.get("once", ()))  # version 0.1 knew of none
    except FileNotFoundError:
        raise InputError(
            f"{path} is missing: name a folder made by `sequela tokenize` or `sequela train`; if a version without "
            "grammars made it, make it again."
        ) from None
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}): make the folder again.") from error
    if checksum(body) != written:
        raise InputError(f"{path} was edited: it no longer matches its checksum; make the folder again.")
    if made_with != scheme.vocabulary.hash:
        raise InputError(
            f"{path} was made with vocabulary {made_with}, but vocabulary.json is "
            f"{scheme.vocabulary.hash}: copy the right file, or make the folder again."
        )
    tables, index = _Tables.of(scheme), scheme.vocabulary.index
    codes = [tables.keys([[index[name] for name in code] for code in part]) for part in (in_parts, valued)]
    counts = [
        np.array([stays[kind][column] for kind in tables.kinds], np.int64)
        for column in ("ends", "without_start")
    ]
    return _build(scheme, tables, _Seen(*codes, *counts), once)


@dataclass(frozen=True)
class _Tables:
    """What the names of V tokens say before any row is read.

    `place` int8 [V]; `kinds`: the kinds of stay that can end; `kind` int64 [V], the row of the kind that a token
    opens or closes, -1 for none; `closes` bool [V]; `sought` int8 [V], what `_Seen` looks for.
    """

    place: np.ndarray
    kinds: tuple[str, ...]
    kind: np.ndarray
    closes: np.ndarray
    sought: np.ndarray

    @staticmethod
    def of(scheme: EhrScheme) -> _Tables:
        place = scheme.place.astype(np.int8)
        place[(place == QUANTILE) & (scheme.quantile < 0)] = -1  # a code that only looks like a quantile
        stays = [
            stay_of(code) if where == 0 else None for code, where in zip(scheme.codes, place, strict=True)
        ]
        kinds = tuple(sorted({stay[0] for stay in stays if stay and stay[1]}))
        rows = {kind: row for row, kind in enumerate(kinds)}
        kind = np.array([rows.get(stay[0], -1) if stay else -1 for stay in stays], np.int64)
        closes = np.array([stay is not None and stay[1] for stay in stays], bool)
        sought = np.select(
            [place == 2, place == 3, place == QUANTILE, kind >= 0], [_SECOND, _THIRD, _VALUE, _STAY], _NOTHING
        ).astype(np.int8)
        return _Tables(place, kinds, kind, closes, sought)

    def key(
        self, first: np.ndarray, second: np.ndarray | None = None, third: np.ndarray | None = None
    ) -> np.ndarray:
        """Codes of one to three tokens [N] (-1: none) -> a number for each, int64 [N]; shorter codes are smaller."""
        out = first.astype(np.int64)
        for part in (second, third):
            out *= len(self.place) + 1
            out += 0 if part is None else part.astype(np.int64) + 1
        return out

    def keys(self, paths: list[list[int]]) -> np.ndarray:
        """Codes given as tokens -> the distinct keys, sorted."""
        padded = np.array([(*path, -1, -1)[:LONGEST] for path in paths], np.int64).reshape(-1, LONGEST)
        return distinct(self.key(*padded.T))

    def paths(self, keys: np.ndarray) -> np.ndarray:
        """The inverse of `key`, int64 [N, 3]."""
        size = len(self.place) + 1
        return np.stack([keys // size**2, keys // size % size - 1, keys % size - 1], 1)


@dataclass(frozen=True)
class _Seen:
    """What some rows contain: codes with a later part and codes with a quantile (`_Tables.key`, sorted), and for each
    kind of stay its ends and those without a start."""

    in_parts: np.ndarray
    valued: np.ndarray
    ends: np.ndarray
    without: np.ndarray

    @staticmethod
    def nothing(tables: _Tables) -> _Seen:
        none, zero = np.zeros(0, np.int64), np.zeros(len(tables.kinds), np.int64)
        return _Seen(none, none, zero, zero)

    @staticmethod
    def of(tables: _Tables, rows: Ragged) -> _Seen:
        token = rows.flat
        sought = tables.sought[token]
        opens = np.zeros(len(token) + 1, bool)
        opens[rows.offsets[:-1]] = True
        at = np.flatnonzero(sought)
        kind = sought[at]

        # A part counts only right behind the part before it.
        second, third = (where[~opens[where]] for where in (at[kind == _SECOND], at[kind == _THIRD]))
        second = second[tables.place[token[second - 1]] == 1]
        of_second = np.zeros(len(token), bool)
        of_second[second] = True
        third = third[of_second[third - 1]]
        pairs = tables.key(token[second - 1], token[second])
        triples = tables.key(token[third - 2], token[third - 1], token[third])

        value = at[kind == _VALUE]
        has_value = np.zeros(len(token) + 1, bool)
        has_value[value[~opens[value]]] = True
        before = token[value[~opens[value]] - 1]
        starts = np.isin(tables.place, (0, 1))
        whole = np.bincount(before[starts[before]])
        valued = [
            tables.key(np.flatnonzero(whole)),
            pairs[has_value[second + 1]],
            triples[has_value[third + 1]],
        ]
        return _Seen(
            distinct(np.concatenate([pairs, triples])),
            distinct(np.concatenate(valued)),
            *_stays(tables, token, rows.offsets, at[kind == _STAY]),
        )

    def and_also(self, other: _Seen) -> _Seen:
        """What both contain together."""
        return _Seen(
            distinct(np.concatenate([self.in_parts, other.in_parts])),
            distinct(np.concatenate([self.valued, other.valued])),
            self.ends + other.ends,
            self.without + other.without,
        )


def _stays(
    tables: _Tables, token: np.ndarray, offsets: np.ndarray, at: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The ends of each kind of stay, and those without a start; `at` are the tokens that open or close a stay."""
    kind, closes = tables.kind[token[at]], tables.closes[token[at]]
    row = np.searchsorted(offsets, at, side="right")
    order = np.argsort(kind, kind="stable")
    kind, closes, row = kind[order], closes[order], row[order]
    open_before = np.append(False, (kind[1:] == kind[:-1]) & (row[1:] == row[:-1]) & ~closes[:-1])[: len(at)]
    size = len(tables.kinds)
    return (
        np.bincount(kind[closes], minlength=size),
        np.bincount(kind[closes & ~open_before], minlength=size),
    )


def _build(scheme: EhrScheme, tables: _Tables, seen: _Seen, once: tuple[str, ...]) -> Grammar:
    """The grammar that allows what was seen, and the codes `once` no second time."""
    size = len(tables.place)
    paths, children = tables.paths(seen.in_parts), size + np.arange(len(seen.in_parts))

    def node_of(paths: np.ndarray) -> np.ndarray:
        """The nodes of codes [N, 3], each of them seen or a single token."""
        rank = np.searchsorted(seen.in_parts, tables.key(*paths.T))
        return np.where(paths[:, 1] < 0, paths[:, 0], size + rank)

    length = (paths >= 0).sum(1)
    parents, last = paths.copy(), np.arange(len(paths))
    parents[last, length - 1] = -1
    part_key = node_of(parents) * size + paths[last, length - 1]

    valued = tables.paths(seen.valued)
    binned = [_code(scheme, path) in scheme.bins.rows for path in valued.tolist()]
    nodes = node_of(valued[np.array(binned, bool)])
    quantiles = np.flatnonzero(tables.place == QUANTILE)
    value_key = (nodes[:, None] * size + quantiles).ravel()

    keys = np.concatenate([part_key, value_key])
    order = np.argsort(keys)
    counts = zip(tables.kinds, seen.ends.tolist(), seen.without.tolist(), strict=True)
    stays = tuple(StayKind(*row) for row in counts)
    times = scheme.vocabulary.matching(TIME_PREFIX)
    base = (tables.place == 0) | (tables.place == 1)
    base[np.concatenate([times, scheme.age_tokens, scheme.period_tokens])] = True
    return Grammar(
        scheme.vocabulary,
        stays,
        once,
        base,
        keys[order],
        np.concatenate([children, np.zeros_like(value_key)])[order],
        size + len(children),
        *_bits(scheme, tables, stays, once),
        tables.place,
    )


def _code(scheme: EhrScheme, path: list[int]) -> str:
    """The code of tokens, as `decode` reads it."""
    names = tuple(scheme.codes[token] for token in path if token >= 0)
    return names[0] if scheme.settings.joint else join_parts(names)


def _bits(
    scheme: EhrScheme, tables: _Tables, stays: tuple[StayKind, ...], once: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """`needs`, `forbids`, `sets`, `clears` of a grammar: the bits of stays that have a rule, age bands, periods, and
    codes that come once."""
    size, ruled = len(tables.place), [row for row, stay in enumerate(stays) if stay.ruled]
    reached = (scheme.age_tokens, scheme.period_tokens)
    width = len(ruled) + sum(len(group) for group in reached) + len(once)
    needs, forbids = np.full(size, -1, np.int16), np.full(size, -1, np.int16)
    sets, clears = np.zeros((size, width), bool), np.zeros((size, width), bool)
    for bit, row in enumerate(ruled):
        of_kind = tables.kind == row
        needs[of_kind & tables.closes] = bit
        sets[of_kind & ~tables.closes, bit] = True
        clears[of_kind & tables.closes, bit] = True
    first = len(ruled)
    for group in reached:
        forbids[group] = first + np.arange(len(group))
        for token, upto in zip(group, forbids[group], strict=True):
            sets[token, first : upto + 1] = True
        first += len(group)
    bits = {code: first + number for number, code in enumerate(once)}
    for token in np.flatnonzero((tables.place == 0) | (tables.place == 1)):
        if scheme.codes[token] in bits:
            forbids[token] = bits[scheme.codes[token]]
            sets[token, forbids[token]] = True
    return needs, forbids, sets, clears
