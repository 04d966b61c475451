"""Which token may follow what a timeline has said so far, fitted on the token rows of training patients.

A simulated future that keeps to it is well-formed by construction: codes in parts are codes that somebody had, a
quantile stands where `decode` reads it, no stay ends that has not begun, and nobody grows younger. It says nothing
of what is likely; that is the model's part.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sequela.errors import InputError
from sequela.tokens.ehr.clock import TIME_PREFIX
from sequela.tokens.ehr.code import CLOSES, OPENS, join_parts, order_rank
from sequela.tokens.ehr.tokenizer import QUANTILE, Tokenizer
from sequela.tokens.ragged import Ragged, offsets_of, within
from sequela.tokens.vocabulary import Vocabulary

FILE = "grammar.json"
# There is a rule for a kind of stay where at most this share of its ends has no start; some sources tell ends only.
MOST_WITHOUT_START = 1 / 1000
LONGEST = 3  # parts of a code
_NOTHING, _SECOND, _THIRD, _VALUE, _STAY = range(5)  # what `fit` looks for


@dataclass(frozen=True)
class Stay:
    """A kind of stay, and how its ends came in the training rows.

    Attributes:
        kind: the code that ends it, without what says where to or from (see `stay_of`).
        ends: how many there were.
        without_start: how many of them while no stay of this kind was open.
    """

    kind: str
    ends: int
    without_start: int

    @property
    def ruled(self) -> bool:
        """Whether an end of this kind needs an open stay."""
        return self.ends > 0 and self.without_start <= MOST_WITHOUT_START * self.ends


@dataclass(frozen=True)
class Grammar:
    """What may follow what, for V tokens.

    The state of a timeline is a `node`, the event so far, and B `bits`, which are the case or not. Node 0 is between
    events; a node below V is the token that began the event; every other node is a code with a later part. A bit
    says that a stay of one kind is open, or that an age band or a calendar period, or one after it, was reached.

    Attributes:
        vocabulary: of the tokens.
        stays: the kinds of stay that can end, by name.
        base: bool [V], tokens that may come at any node: a code or its first part, time, age band, calendar period.
        pair_key: int64 [E], node * V + token, sorted: what may come at that node only.
        pair_child: int64 [E], the node after it.
        nodes: number of nodes.
        needs: int16 [V], the bit that must be set before a token; -1 for none.
        forbids: int16 [V], the bit that must not be set before a token; -1 for none.
        sets: bool [V, B], the bits that a token sets.
        clears: bool [V, B], the bits that a token clears.
        place: int8 [V], see `Tokenizer.place`.
    """

    vocabulary: Vocabulary
    stays: tuple[Stay, ...]
    base: np.ndarray
    pair_key: np.ndarray
    pair_child: np.ndarray
    nodes: int
    needs: np.ndarray
    forbids: np.ndarray
    sets: np.ndarray
    clears: np.ndarray
    place: np.ndarray

    @staticmethod
    def fit(tokenizer: Tokenizer, rows: Iterable[Ragged]) -> Grammar:
        """Fit on the token rows of whole training patients, some patients at a time; how they are divided is no matter.

        A later part may come after exactly the parts that it came after; a quantile after the codes that came with
        one and have bins.
        """
        tables = _Tables.of(tokenizer)
        seen = _Seen.nothing(tables)
        for block in rows:
            seen = seen.and_also(_Seen.of(tables, block))
        return _build(tokenizer, tables, seen)

    def states(self, rows: Ragged) -> tuple[np.ndarray, np.ndarray]:
        """The state at the end of each of R whole histories: node int64 [R], bits bool [R, B]."""
        held = np.minimum(rows.lengths, LONGEST)
        tails = offsets_of(held)
        at = np.repeat(rows.offsets[1:] - held, held) + within(held)
        after, _ = self._nodes(Ragged(rows.flat[at], tails), np.zeros(len(rows), np.int64))
        node = np.zeros(len(rows), np.int64)
        node[held > 0] = after[tails[1:][held > 0] - 1]

        bits = np.zeros((len(rows), self.sets.shape[1]), bool)
        for bit, _, token, row in self._moves(rows):
            last = np.append(row[1:] != row[:-1], True)[: len(row)]
            bits[row[last], bit] = self.sets[token[last], bit]
        return node, bits

    def faults(self, rows: Ragged, node: np.ndarray, bits: np.ndarray) -> np.ndarray:
        """Which tokens break the grammar, bool [tokens].

        After a fault the state goes on as if the token were alright; a later part without its first leads to node 0.

        Args:
            rows: what comes after R histories; what only the head of a patient may hold is a fault in them.
            node: int64 [R], at the end of the histories (see `states`).
            bits: bool [R, B], likewise.
        """
        _, paired = self._nodes(rows, node)
        wrong = ~(self.base[rows.flat] | paired)
        for bit, at, token, row in self._moves(rows):
            before = bits[row, bit]
            again = np.flatnonzero(row[1:] == row[:-1]) + 1
            before[again] = self.sets[token[again - 1], bit]
            wrong[at] |= ((self.needs[token] == bit) & ~before) | ((self.forbids[token] == bit) & before)
        return wrong

    def invalid_multi_token(self, rows: Ragged, node: np.ndarray) -> tuple[int, int]:
        """How many events of several tokens are ill-formed, and how many there are (reported in arXiv 2508.12104).

        Such an event is a run of later parts and quantiles with the token before it; it is ill-formed where one of
        them may not come there.

        Args:
            rows: what comes after R histories.
            node: int64 [R], at the end of the histories (see `states`).
        """
        later = self.place[rows.flat] > 1
        opens = ~later
        opens[rows.offsets[:-1][rows.lengths > 0]] = True
        event = np.cumsum(opens)
        _, paired = self._nodes(rows, node)
        return len(_distinct(event[later & ~paired])), len(_distinct(event[later]))

    def _nodes(self, rows: Ragged, node: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each token the node after it, and whether it makes a pair with the node before it."""
        token = rows.flat.astype(np.int64)
        place, starts = self.place[token], rows.offsets[:-1][rows.lengths > 0]
        after = np.where((place == 0) | (place == 1), token, 0)
        paired = np.zeros(len(token), bool)
        keys, children = np.append(self.pair_key, -1), np.append(self.pair_child, 0)
        for kind in (2, 3, QUANTILE):  # each goes on from kinds before it
            before = np.append(0, after)[:-1]
            before[starts] = node[rows.lengths > 0]
            own = np.flatnonzero(place == kind)
            key = before[own] * len(self.base) + token[own]
            pair = np.searchsorted(self.pair_key, key)
            paired[own] = keys[pair] == key
            after[own] = np.where(paired[own], children[pair], 0)
        return after, paired

    def _moves(self, rows: Ragged) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
        """For each bit: where the tokens stand that set or clear it, the tokens, and their rows."""
        moves = self.sets | self.clears
        at = np.flatnonzero(moves.any(1)[rows.flat])
        token, row = rows.flat[at], np.searchsorted(rows.offsets, at, side="right") - 1
        for bit in range(moves.shape[1]):
            own = np.flatnonzero(moves[token, bit])
            if len(own):
                yield bit, at[own], token[own], row[own]

    def save(self, folder: Path) -> None:
        """Write `grammar.json`: the codes in parts, the codes with a value, and the kinds of stay."""
        vocabulary, names = len(self.base), self.vocabulary.tokens
        part = self.pair_child > 0
        paths = {
            int(token): [names[token]] for token in np.flatnonzero((self.place == 0) | (self.place == 1))
        }
        order = np.argsort(self.pair_child[part])  # a parent has a smaller number
        parents, tokens = np.divmod(self.pair_key[part][order], vocabulary)
        for child, (parent, token) in enumerate(
            zip(parents.tolist(), tokens.tolist(), strict=True), vocabulary
        ):
            paths[child] = [*paths[parent], names[token]]
        body = {
            "hash": self.vocabulary.hash,
            "stays": {one.kind: {"ends": one.ends, "without_start": one.without_start} for one in self.stays},
            "in_parts": [paths[node] for node in range(vocabulary, self.nodes)],
            "valued": [paths[node] for node in _distinct(self.pair_key[~part] // vocabulary).tolist()],
        }
        # One line a part, as of the vocabulary
        lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in body.items()]
        lines.append(f'"checksum": "{_checksum(body)}"')
        (Path(folder) / FILE).write_text("{\n" + ",\n".join(lines) + "\n}\n")

    @staticmethod
    def load(folder: Path, tokenizer: Tokenizer) -> Grammar:
        """Read what `save` wrote. Raises InputError when it is missing, damaged, edited, or of another vocabulary."""
        path = Path(folder) / FILE
        try:
            body = json.loads(path.read_text())
            checksum = body.pop("checksum")
            in_parts, valued, stays, made_with = (
                body[key] for key in ("in_parts", "valued", "stays", "hash")
            )
        except FileNotFoundError:
            raise InputError(
                f"{path} is missing: name a folder that `sequela tokenize` or `sequela train` made; where a version "
                "without grammars made it, delete it and make it again."
            ) from None
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise InputError(f"{path} is damaged ({error}): make the folder again.") from error
        if _checksum(body) != checksum:
            raise InputError(f"{path} was edited: it no longer matches its checksum; make the folder again.")
        if made_with != tokenizer.vocabulary.hash:
            raise InputError(
                f"{path} was made with vocabulary {made_with}, but vocabulary.json is "
                f"{tokenizer.vocabulary.hash}: copy the right file, or make the folder again."
            )
        tables, index = _Tables.of(tokenizer), tokenizer.vocabulary.index
        codes = [
            tables.keys([[index[name] for name in code] for code in part]) for part in (in_parts, valued)
        ]
        told = [
            np.array([stays[kind][what] for kind in tables.kinds], np.int64)
            for what in ("ends", "without_start")
        ]
        return _build(tokenizer, tables, _Seen(*codes, *told))


def stay_of(code: str) -> tuple[str, bool] | None:
    """The kind of stay that a code opens or closes, and whether it closes it; None for any other code.

    >>> stay_of("ENCOUNTER_START//WELLNESS"), stay_of("ENCOUNTER_END//WELLNESS")
    (('ENCOUNTER_END//WELLNESS', False), ('ENCOUNTER_END//WELLNESS', True))
    >>> stay_of("ICU_ADMISSION//MICU"), stay_of("ICU_DISCHARGE//SICU"), stay_of("ED_REGISTRATION")
    (('ICU_DISCHARGE', False), ('ICU_DISCHARGE', True), ('ED_OUT', False))
    >>> stay_of("LAB//HDL")
    """
    rank = order_rank(code)
    if rank not in (OPENS, CLOSES):
        return None
    head, slashes, rest = code.partition("//")
    head = head.upper()
    closes = rank == CLOSES
    if "ADMISSION" in head or "DISCHARGE" in head:
        return head.replace("ADMISSION", "DISCHARGE"), closes
    if head.endswith(("_REGISTRATION", "_OUT")):
        return head.removesuffix("_REGISTRATION").removesuffix("_OUT") + "_OUT", closes
    if head.endswith(("_START", "_END")):
        what = rest.split("//")[0]  # some sources add why it began, which the end does not repeat
        return f"{head.removesuffix('_START').removesuffix('_END')}_END{slashes}{what}", closes
    return f"{code.removesuffix('//START').removesuffix('//END')}//END", closes


@dataclass(frozen=True)
class _Tables:
    """What the names of V tokens say, before anything is seen.

    `place` int8 [V]; `kinds`: the kinds of stay that can end; `kind` int64 [V], the row of the kind that a token
    opens or closes, -1 for none; `closes` bool [V]; `sought` int8 [V], what `_Seen` looks for.
    """

    place: np.ndarray
    kinds: tuple[str, ...]
    kind: np.ndarray
    closes: np.ndarray
    sought: np.ndarray

    @staticmethod
    def of(tokenizer: Tokenizer) -> _Tables:
        place = tokenizer.place.astype(np.int8)
        place[(place == QUANTILE) & (tokenizer.quantile < 0)] = -1  # a code of a strange name
        found = [
            stay_of(code) if whole == 0 else None for code, whole in zip(tokenizer.codes, place, strict=True)
        ]
        kinds = tuple(sorted({one[0] for one in found if one and one[1]}))
        rows = {kind: row for row, kind in enumerate(kinds)}
        kind = np.array([rows.get(one[0], -1) if one else -1 for one in found], np.int64)
        closes = np.array([one is not None and one[1] for one in found], bool)
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
        """Codes given as tokens -> `key` of each, sorted."""
        padded = np.array([(*path, -1, -1)[:LONGEST] for path in paths], np.int64).reshape(-1, LONGEST)
        return _distinct(self.key(*padded.T))

    def paths(self, keys: np.ndarray) -> np.ndarray:
        """What `key` was made from, int64 [N, 3]."""
        size = len(self.place) + 1
        return np.stack([keys // size**2, keys // size % size - 1, keys % size - 1], 1)


@dataclass(frozen=True)
class _Seen:
    """What some rows showed: codes with a later part and codes with a quantile (`_Tables.key`, sorted), and for each
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

        # Behind the same earlier parts only
        second, third = (where[~opens[where]] for where in (at[kind == _SECOND], at[kind == _THIRD]))
        second = second[tables.place[token[second - 1]] == 1]
        of_second = np.zeros(len(token), bool)
        of_second[second] = True
        third = third[of_second[third - 1]]
        pairs = tables.key(token[second - 1], token[second])
        triples = tables.key(token[third - 2], token[third - 1], token[third])

        value = at[kind == _VALUE]
        told = np.zeros(len(token) + 1, bool)
        told[value[~opens[value]]] = True
        before = token[value[~opens[value]] - 1]
        starts = np.isin(tables.place, (0, 1))
        whole = np.bincount(before[starts[before]])
        valued = [
            tables.key(np.flatnonzero(whole)),
            pairs[told[second + 1]],
            triples[told[third + 1]],
        ]
        return _Seen(
            _distinct(np.concatenate([pairs, triples])),
            _distinct(np.concatenate(valued)),
            *_stays(tables, token, rows.offsets, at[kind == _STAY]),
        )

    def and_also(self, other: _Seen) -> _Seen:
        """What both together show."""
        return _Seen(
            _distinct(np.concatenate([self.in_parts, other.in_parts])),
            _distinct(np.concatenate([self.valued, other.valued])),
            self.ends + other.ends,
            self.without + other.without,
        )


def _stays(
    tables: _Tables, token: np.ndarray, offsets: np.ndarray, at: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The ends of each kind, and those without a start, among the tokens that open or close a stay, which are `at`."""
    kind, closes = tables.kind[token[at]], tables.closes[token[at]]
    row = np.searchsorted(offsets, at, side="right")
    order = np.argsort(kind, kind="stable")
    kind, closes, row = kind[order], closes[order], row[order]
    open_before = np.append(False, (kind[1:] == kind[:-1]) & (row[1:] == row[:-1]) & ~closes[:-1])[: len(at)]
    many = len(tables.kinds)
    return (
        np.bincount(kind[closes], minlength=many),
        np.bincount(kind[closes & ~open_before], minlength=many),
    )


def _build(tokenizer: Tokenizer, tables: _Tables, seen: _Seen) -> Grammar:
    """The grammar that follows from what was seen."""
    many = len(tables.place)
    paths, children = tables.paths(seen.in_parts), many + np.arange(len(seen.in_parts))

    def node_of(paths: np.ndarray) -> np.ndarray:
        """The nodes of codes [N, 3]: they were seen, or are one token."""
        rank = np.searchsorted(seen.in_parts, tables.key(*paths.T))
        return np.where(paths[:, 1] < 0, paths[:, 0], many + rank)

    length = (paths >= 0).sum(1)
    parents, last = paths.copy(), np.arange(len(paths))
    parents[last, length - 1] = -1
    part_key = node_of(parents) * many + paths[last, length - 1]

    valued = tables.paths(seen.valued)
    binned = [_code(tokenizer, path) in tokenizer.bins.rows for path in valued.tolist()]
    nodes = node_of(valued[np.array(binned, bool)])
    quantiles = np.flatnonzero(tables.place == QUANTILE)
    value_key = (nodes[:, None] * many + quantiles).ravel()

    keys = np.concatenate([part_key, value_key])
    order = np.argsort(keys)
    stays = tuple(
        Stay(*one) for one in zip(tables.kinds, seen.ends.tolist(), seen.without.tolist(), strict=True)
    )
    times = tokenizer.vocabulary.matching(TIME_PREFIX)
    base = (tables.place == 0) | (tables.place == 1)
    base[np.concatenate([times, tokenizer.age_tokens, tokenizer.period_tokens])] = True
    return Grammar(
        tokenizer.vocabulary,
        stays,
        base,
        keys[order],
        np.concatenate([children, np.zeros_like(value_key)])[order],
        many + len(children),
        *_bits(tokenizer, tables, stays),
        tables.place,
    )


def _code(tokenizer: Tokenizer, path: list[int]) -> str:
    """The code of tokens, as `decode` reads it."""
    names = tuple(tokenizer.codes[token] for token in path if token >= 0)
    return names[0] if tokenizer.settings.joint else join_parts(names)


def _bits(
    tokenizer: Tokenizer, tables: _Tables, stays: tuple[Stay, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """`needs`, `forbids`, `sets`, `clears` of a grammar: the bits of stays that have a rule, age bands, periods."""
    many, ruled = len(tables.place), [row for row, one in enumerate(stays) if one.ruled]
    reached = (tokenizer.age_tokens, tokenizer.period_tokens)
    width = len(ruled) + sum(len(group) for group in reached)
    needs, forbids = np.full(many, -1, np.int16), np.full(many, -1, np.int16)
    sets, clears = np.zeros((many, width), bool), np.zeros((many, width), bool)
    for bit, row in enumerate(ruled):
        own = tables.kind == row
        needs[own & tables.closes] = bit
        sets[own & ~tables.closes, bit] = True
        clears[own & tables.closes, bit] = True
    first = len(ruled)
    for group in reached:
        forbids[group] = first + np.arange(len(group))
        for token, upto in zip(group, forbids[group], strict=True):
            sets[token, first : upto + 1] = True
        first += len(group)
    return needs, forbids, sets, clears


def _checksum(body: dict) -> str:
    """The SHA-256 of everything that `save` writes but itself."""
    return hashlib.sha256(json.dumps(body).encode()).hexdigest()


def _distinct(numbers: np.ndarray) -> np.ndarray:
    """Each number once, sorted. Asked for indices too, `np.unique` does without masked arrays, which start slowly."""
    return np.unique(numbers, return_index=True)[0]
