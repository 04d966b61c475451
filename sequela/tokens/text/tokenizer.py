"""The tokenizer of records as text: the words of a language model."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sequela.errors import InputError
from sequela.record.events import Events
from sequela.record.schema import FOLLOW_UP_END, means
from sequela.tokens.maps.code_map import CodeMap
from sequela.tokens.ragged import Ragged
from sequela.tokens.text.bpe import WHOLE, TokenizerFiles, library
from sequela.tokens.text.serialize import serialize
from sequela.tokens.text.settings import TextSettings
from sequela.tokens.token_types import TokenTypes, Traits
from sequela.tokens.tokenizer import Encoded, Tokenizer, load
from sequela.tokens.vocabulary import FILE, Vocabulary, read_vocabulary, write_vocabulary

HEADING = re.compile(r"\[(\d{4}-\d\d-\d\d|(age \d+, )?day -?\d+)\]")
HEADING_TOKENS = 24  # at most


@dataclass(frozen=True)
class TextTokenizer:
    """A `sequela.tokens.tokenizer.Tokenizer` that writes records as text (see `sequela.tokens.text.serialize`).

    Its tokens are words of the language model that reads them, so none of them tells time or is an outcome.
    """

    settings: TextSettings
    files: TokenizerFiles

    kind = "text"
    head = np.zeros(0, np.int64)
    final = np.zeros(0, np.int64)
    carried = ()
    positions_from_clock = False

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The words, by number; numbers that stand for none have a name of their own."""
        words = {number: word for word, number in self._words.get_vocab(with_added_tokens=True).items()}
        return Vocabulary(tuple(words.get(number, f"<none {number}>") for number in range(max(words) + 1)))

    @cached_property
    def _words(self) -> Any:
        return library().Tokenizer.from_str(self.files.whole)

    @property
    def minutes_V(self) -> np.ndarray:
        """No token tells time."""
        return np.zeros(len(self.vocabulary), np.int64)

    @property
    def maps(self) -> tuple[CodeMap, ...]:
        """Codes are written as they are."""
        return ()

    @property
    def longest(self) -> int | None:
        """See `TokenizerFiles.longest`."""
        return self.files.longest

    @property
    def types(self) -> TokenTypes | None:
        """All tokens are of one type."""

    @property
    def traits(self) -> Traits | None:
        """Tokens say nothing by themselves."""

    def survival(self, rest: np.ndarray) -> np.ndarray:
        """No token moves a clock."""
        return np.zeros((len(rest), 0))

    def encode(self, events: Events) -> Encoded:
        """Token rows of all patients who have a dated event beside their birth, with the tokens that the model's own
        tokenizer adds, such as one that begins every text."""
        told = events.take(~events.called(lambda code: means(code, FOLLOW_UP_END)))
        starts = told.starts
        stops = np.append(starts[1:], len(told))[: len(starts)]
        records = serialize(told, self.settings)
        known = np.array([bool(record.days) for record in records], bool)
        texts = [record.text for record in records if record.days]
        rows = Ragged.of([encoding.ids for encoding in self._words.encode_batch(texts)])
        width = np.uint16 if len(self.vocabulary) <= 1 << 16 else np.uint32
        return Encoded(
            told.patient[starts][known], Ragged(rows.flat.astype(width), rows.offsets), None,
            told.time[stops - 1][known], int((stops - starts)[known].sum()), {}, None,
        )  # fmt: skip

    def breaks(self, ids: np.ndarray) -> np.ndarray:
        """Where the days of a row begin; what is before the first opens the patient."""
        texts = {number: self._words.decode([number], skip_special_tokens=False) for number in np.unique(ids).tolist()}
        opens = np.array([texts[number].lstrip(" ").startswith("[") for number in ids.tolist()], bool)
        opens[1:] &= np.array([texts[number].endswith("\n") for number in ids[:-1].tolist()], bool)
        places = np.flatnonzero(opens)
        headed = [
            bool(HEADING.match(self._words.decode(ids[place : place + HEADING_TOKENS].tolist()).lstrip()))
            for place in places
        ]
        return places[np.array(headed, bool)]

    def decode(self, rows: Ragged, start: np.ndarray) -> Events:
        """Text is not read back.

        Raises:
            InputError: always.
        """
        raise InputError("text is not read back into events: simulate with a model whose tokens are events.")

    def written_as(self, settings: TextSettings) -> TextTokenizer:
        """This tokenizer with other settings."""
        return replace(self, settings=settings)

    def save(self, folder: Path) -> None:
        """Write `vocabulary.json` (settings and words) and the files of the tokenizer."""
        self.files.save(folder)
        body = {"settings": asdict(self.settings), "tokenizer": _hash(self.files.whole)}
        write_vocabulary(folder, self.kind, self.vocabulary, body)

    @staticmethod
    def load(folder: Path) -> TextTokenizer:
        """Read what `save` wrote, or the tokenizer of a language model from elsewhere, with the default settings.

        Raises:
            InputError: if a file is missing, damaged or edited.
        """
        folder = Path(folder)
        files = TokenizerFiles.load(folder)
        if not (folder / FILE).exists():
            return TextTokenizer(TextSettings(), files)
        body = read_vocabulary(folder)
        try:
            settings, known = TextSettings(**body["settings"]), body["tokenizer"]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{folder / FILE} is damaged ({error}): make the folder again.") from error
        if known != _hash(files.whole):
            raise InputError(f"{folder / WHOLE} is not the one that {FILE} was written with: make the folder again.")
        return TextTokenizer(settings, files)

    def hand_over(self, corpus: Path, rows: Iterable[Ragged], folder: Path) -> None:
        """Nothing is fitted: what `save` writes."""
        self.save(folder)


def reader(folder: Path, settings: TextSettings = TextSettings()) -> Tokenizer:
    """The tokenizer of a folder of any kind; `settings` say how a language model from elsewhere reads records.

    Raises:
        InputError: see `sequela.tokens.tokenizer.load`; and for settings of a folder that has its own.
    """
    tokenizer = load(folder)
    if settings == TextSettings():
        return tokenizer
    if (Path(folder) / FILE).exists():
        raise InputError(
            f"{folder} says itself how it reads records: leave `text_days`, `text_numbers` and `text_values` out."
        )
    return TextTokenizer.load(folder).written_as(settings)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
