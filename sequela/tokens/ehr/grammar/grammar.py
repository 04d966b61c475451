"""Which token may follow a timeline, as fitted on the token rows of training patients.

A simulated future that obeys it is well-formed by construction: codes in parts are codes that some patient had, a
quantile stands only where `decode` reads it, no stay ends that has not begun, nobody grows younger, and what a patient
has once does not come again. The grammar says nothing about what is likely; that is up to the model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sequela.tokens.ehr.grammar.stays import StayKind
from sequela.tokens.ehr.scheme import QUANTILE
from sequela.tokens.ragged import Ragged, offsets_of, within
from sequela.tokens.vocabulary import Vocabulary

FILE = "grammar.json"
LONGEST = 3  # parts of a code


@dataclass(frozen=True)
class Grammar:
    """What may follow what, for V tokens.

    The state of a timeline is a `node`, the current event so far, and B `bits`. Node 0 is between events; a node below
    V is the token that began the event; every other node is a code with a later part. A bit says that a stay of one
    kind is open, that an age band or calendar period, or a later one, was reached, or that a code came that comes once.

    Attributes:
        vocabulary: of the tokens.
        stays: the kinds of stay that can end, by name.
        once: the codes, or first parts of codes, that a patient has once (see `grammar.once`), sorted.
        base: bool [V], tokens that may come at any node: a code or its first part, time, age band, calendar period.
        pair_key: int64 [E], node * V + token, sorted: tokens that may come at that node only.
        pair_child: int64 [E], the node after it.
        nodes: number of nodes.
        needs: int16 [V], the bit that must be set before a token; -1 for none.
        forbids: int16 [V], the bit that must not be set before a token; -1 for none.
        sets: bool [V, B], the bits that a token sets.
        clears: bool [V, B], the bits that a token clears.
        place: int8 [V], see `EhrScheme.place`.
    """

    vocabulary: Vocabulary
    stays: tuple[StayKind, ...]
    once: tuple[str, ...]
    base: np.ndarray
    pair_key: np.ndarray
    pair_child: np.ndarray
    nodes: int
    needs: np.ndarray
    forbids: np.ndarray
    sets: np.ndarray
    clears: np.ndarray
    place: np.ndarray

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

        After a fault the state continues as if the token were allowed; a later part without its first leads to node 0.

        Args:
            rows: what follows R histories; tokens that only the head of a patient may hold are faults here.
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
        """How many events of several tokens are ill-formed, and how many there are (as reported in arXiv 2508.12104).

        Such an event is a run of later parts and quantiles, with the token before it; it is ill-formed if one of them
        may not come there.

        Args:
            rows: what follows R histories.
            node: int64 [R], at the end of the histories (see `states`).
        """
        later = self.place[rows.flat] > 1
        opens = ~later
        opens[rows.offsets[:-1][rows.lengths > 0]] = True
        event = np.cumsum(opens)
        _, paired = self._nodes(rows, node)
        return len(distinct(event[later & ~paired])), len(distinct(event[later]))

    def _nodes(self, rows: Ragged, node: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each token the node after it, and whether it makes a pair with the node before it."""
        token = rows.flat.astype(np.int64)
        place, starts = self.place[token], rows.offsets[:-1][rows.lengths > 0]
        after = np.where((place == 0) | (place == 1), token, 0)
        paired = np.zeros(len(token), bool)
        keys, children = np.append(self.pair_key, -1), np.append(self.pair_child, 0)
        for wanted in (2, 3, QUANTILE):  # each continues places before it
            before = np.append(0, after)[:-1]
            before[starts] = node[rows.lengths > 0]
            at = np.flatnonzero(place == wanted)
            key = before[at] * len(self.base) + token[at]
            pair = np.searchsorted(self.pair_key, key)
            paired[at] = keys[pair] == key
            after[at] = np.where(paired[at], children[pair], 0)
        return after, paired

    def _moves(self, rows: Ragged) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
        """For each bit: positions of the tokens that set or clear it, the tokens, and their rows."""
        moves = self.sets | self.clears
        at = np.flatnonzero(moves.any(1)[rows.flat])
        token, row = rows.flat[at], np.searchsorted(rows.offsets, at, side="right") - 1
        for bit in range(moves.shape[1]):
            moving = np.flatnonzero(moves[token, bit])
            if len(moving):
                yield bit, at[moving], token[moving], row[moving]

    def save(self, folder: Path) -> None:
        """Write `grammar.json`: the codes in parts, with a value, and that come once; and the kinds of stay."""
        size, names = len(self.base), self.vocabulary.tokens
        part = self.pair_child > 0
        paths = {
            int(token): [names[token]] for token in np.flatnonzero((self.place == 0) | (self.place == 1))
        }
        order = np.argsort(self.pair_child[part])  # a parent has a smaller number
        parents, tokens = np.divmod(self.pair_key[part][order], size)
        for child, (parent, token) in enumerate(zip(parents.tolist(), tokens.tolist(), strict=True), size):
            paths[child] = [*paths[parent], names[token]]
        body = {
            "hash": self.vocabulary.hash,
            "stays": {
                stay.kind: {"ends": stay.ends, "without_start": stay.without_start} for stay in self.stays
            },
            "in_parts": [paths[node] for node in range(size, self.nodes)],
            "valued": [paths[node] for node in distinct(self.pair_key[~part] // size).tolist()],
        }
        if self.once:
            body["once"] = self.once
        # One line per entry, as in the vocabulary.
        lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in body.items()]
        lines.append(f'"checksum": "{checksum(body)}"')
        (Path(folder) / FILE).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def checksum(body: dict) -> str:
    """The SHA-256 of everything in `grammar.json` but the checksum itself."""
    return hashlib.sha256(json.dumps(body).encode()).hexdigest()


def distinct(numbers: np.ndarray) -> np.ndarray:
    """Each number once, sorted. Asking `np.unique` for indices too avoids masked arrays, which are slow to import."""
    return np.unique(numbers, return_index=True)[0]
