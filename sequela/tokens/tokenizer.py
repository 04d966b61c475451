"""What a tokenizer is, and which one a folder was made with.

A tokenizer turns events into rows of token ids and back. Its kind is written into `vocabulary.json`; `load` reads the
kind and hands the folder to the class registered for it. Nothing else in the package depends on the kind, so a new
kind is a new class and one line in the registry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol

import numpy as np

from sequela.errors import InputError, nearest
from sequela.record.events import Events
from sequela.tokens.maps.code_map import CodeMap
from sequela.tokens.ragged import Ragged
from sequela.tokens.text.bpe import TokenizerFiles
from sequela.tokens.token_types import TokenTypes, Traits
from sequela.tokens.vocabulary import FILE, Vocabulary, read_vocabulary

VERSION_0_1 = "ehr"  # the kind of folders that name none
_CLASSES = {
    "ehr": "sequela.tokens.ehr.tokenizer:EhrTokenizer",
    "text": "sequela.tokens.text.tokenizer:TextTokenizer",
}
LANGUAGE_MODEL = "text"  # the kind of folders from elsewhere, which have files of a tokenizer and no `vocabulary.json`


@dataclass(frozen=True)
class Encoded:
    """Token rows of P patients, in the order of their ids.

    Attributes:
        patients: int64 [P], those who have an event with a token.
        tokens: ragged [P, length], in the narrowest type that holds the vocabulary.
        clock: ragged [P, length], minutes since the patient's first event at each token; None unless positions come
            from the clock (`Tokenizer.positions_from_clock`).
        last: int64 [P], microsecond of each patient's last event with a token.
        events: number of events with tokens.
        dropped: number of events without a token, by code.
        rest: int32 [P], how many minutes beyond its last token each record is known to go on without an event; 0 where
            it simply stops, and -1 where nothing can follow, as after death. None where tokens tell no time.
    """

    patients: np.ndarray
    tokens: Ragged
    clock: Ragged | None
    last: np.ndarray
    events: int
    dropped: Mapping[str, int]
    rest: np.ndarray | None


class Tokenizer(Protocol):
    """Events to rows of token ids and back. V is the size of the vocabulary."""

    @property
    def kind(self) -> str:
        """The name under which the class is registered."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokens."""

    @property
    def minutes_V(self) -> np.ndarray:
        """Minutes by which each token moves the clock, int64 [V]; zeros where tokens tell no time."""

    def survival(self, rest: np.ndarray) -> np.ndarray:
        """How likely each token that moves the clock stands for more than `rest` [N] minutes, float64 [N, I], by id."""

    @property
    def head(self) -> np.ndarray:
        """Ids of the tokens that open a patient and are repeated in front of every window; empty for none."""

    @property
    def final(self) -> np.ndarray:
        """Ids of the tokens after which nothing can come, such as death; empty for none."""

    @property
    def carried(self) -> tuple[np.ndarray, ...]:
        """Groups of ids of which the latest token still holds, so that every window starts with it."""

    @property
    def maps(self) -> tuple[CodeMap, ...]:
        """Code maps that are applied to events first."""

    @property
    def longest(self) -> int | None:
        """Tokens of the longest row that a model in the same folder knows, as its files tell; None: they do not."""

    def breaks(self, ids: np.ndarray) -> np.ndarray | None:
        """Where a row of one patient may be cut, ascending: what is before the first opens the patient and is repeated
        in front of every window. None: anywhere, with `head` and `carried` in front."""

    @property
    def types(self) -> TokenTypes | None:
        """What tokens are about, for losses by type; None if all tokens are of one type."""

    @property
    def traits(self) -> Traits | None:
        """What tokens say of a patient, to compare what came with what a model expected; None: nothing."""

    @property
    def positions_from_clock(self) -> bool:
        """Whether a token's position is its place plus the hours passed, so that a corpus keeps the clock."""

    def encode(self, events: Events) -> Encoded:
        """Token rows of all patients who have an event with a token."""

    def decode(self, rows: Ragged, start: np.ndarray) -> Events:
        """Rows [R] that begin at microseconds `start` [R] -> their events; `patient` is the number of the row."""

    def save(self, folder: Path) -> None:
        """Write `vocabulary.json`, and beside it whatever else `load` reads."""

    def hand_over(self, corpus: Path, rows: Iterable[Ragged], folder: Path) -> None:
        """Write into a model's folder everything that its use needs: what `save` writes, and what was fitted on the
        training rows of the corpus it was trained on."""


def register(kind: str, name: str) -> None:
    """Let `load` find a kind of tokenizer.

    Args:
        kind: as written in `vocabulary.json`.
        name: "module:Class"; the class has a static method `load(folder)`. The module is imported when it is needed.

    Raises:
        ValueError: if another class is registered for this kind.
    """
    if _CLASSES.setdefault(kind, name) != name:
        raise ValueError(f"tokenizers of kind {kind!r} are already {_CLASSES[kind]}")


def load(folder: Path) -> Tokenizer:
    """The tokenizer of a corpus or a model, of whatever kind, language models from elsewhere included.

    Raises:
        InputError: if `vocabulary.json` is missing, damaged or edited, or of a kind that is not registered; a language
            model from elsewhere needs none.
    """
    elsewhere = not (Path(folder) / FILE).exists() and TokenizerFiles.kept_in(folder)
    kind = LANGUAGE_MODEL if elsewhere else read_vocabulary(folder).get("kind", VERSION_0_1)
    if kind not in _CLASSES:
        raise InputError(
            f"{Path(folder) / FILE} is of an unknown kind {kind!r}{nearest(str(kind), tuple(_CLASSES))}: import the "
            "module that registers it, or make the folder again."
        )
    module, _, name = _CLASSES[kind].partition(":")
    return getattr(import_module(module), name).load(Path(folder))
