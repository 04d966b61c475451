"""A second kind of tokenizer, as small as can be: the UTF-8 bytes of each event's text, and a token that ends it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from sequela.record.events import Events
from sequela.tokens.ragged import Ragged
from sequela.tokens.tokenizer import Encoded, register
from sequela.tokens.vocabulary import BOS, SPECIAL, Vocabulary, read_vocabulary, write_vocabulary

KIND = "bytes"
CODE = "TEXT"
END = len(SPECIAL)
FIRST = END + 1  # of the bytes

register(KIND, "tests.tokens.byte_text:ByteTokenizer")


@dataclass(frozen=True)
class ByteTokenizer:
    """A patient is `BOS`, then the bytes of each event's text and `END`; all events happen at the start."""

    kind = KIND
    vocabulary = Vocabulary((*SPECIAL, "END", *(f"BYTE//{byte}" for byte in range(256))))
    minutes_V = np.zeros(FIRST + 256, np.int64)
    head = np.zeros(0, np.int64)
    final = np.zeros(0, np.int64)
    carried = ()
    types = None
    traits = None
    positions_from_clock = False
    maps = ()
    longest = None

    def survival(self, rest: np.ndarray) -> np.ndarray:
        """No token tells time."""
        return np.zeros((len(rest), 0))

    def breaks(self, ids: np.ndarray) -> None:
        """Anywhere."""

    def encode(self, events: Events) -> Encoded:
        """Events without a text are dropped and counted."""
        texts = [None] * len(events) if events.text is None else events.text.to_list()
        kept = events.take(np.array([text is not None for text in texts], bool))
        texts = [text for text in texts if text is not None]
        starts = kept.starts
        stops = np.append(starts[1:], len(kept))[: len(starts)]
        rows = [
            np.array([BOS, *(token for text in texts[start:stop] for token in ids(text))], np.uint16)
            for start, stop in zip(starts, stops, strict=True)
        ]
        every, known = (Counter(np.array(each.names)[each.code].tolist()) for each in (events, kept))
        return Encoded(
            kept.patient[starts], Ragged.of(rows), None, kept.time[stops - 1], len(kept), dict(every - known), None
        )

    def decode(self, rows: Ragged, start: np.ndarray) -> Events:
        """A text that is cut short, or that is no UTF-8, is no event."""
        texts = [(row, text) for row in range(len(rows)) for text in texts_of(rows[row])]
        patient = np.array([row for row, _ in texts], np.int64)
        return Events(
            patient,
            start[patient],
            np.zeros(len(texts), np.int32),
            np.full(len(texts), np.nan, np.float32),
            (CODE,),
            pl.Series([text for _, text in texts], dtype=pl.String),
        )

    def save(self, folder: Path) -> None:
        """Nothing but the vocabulary."""
        write_vocabulary(folder, self.kind, self.vocabulary, {})

    @staticmethod
    def load(folder: Path) -> ByteTokenizer:
        """What `save` wrote."""
        assert read_vocabulary(folder)["kind"] == KIND
        return ByteTokenizer()

    def hand_over(self, corpus: Path, rows: Iterable[Ragged], folder: Path) -> None:
        """Nothing is fitted."""
        self.save(folder)


def ids(text: str) -> list[int]:
    """The tokens of a text."""
    return [*(FIRST + byte for byte in text.encode()), END]


def texts_of(row: np.ndarray) -> list[str]:
    """The whole texts of one row."""
    texts, held = [], bytearray()
    for token in row.tolist():
        if token >= FIRST:
            held.append(token - FIRST)
        elif token == END:
            texts.append(bytes(held).decode(errors="replace"))
            held.clear()
    return texts


def events_of(patients: dict[int, list[str]]) -> Events:
    """The texts of each patient as events, a minute apart."""
    rows = [
        (patient, minute * 60_000_000, CODE, None, text)
        for patient, texts in sorted(patients.items())
        for minute, text in enumerate(texts)
    ]
    return Events.of(
        pl.DataFrame(
            rows,
            schema={
                "subject_id": pl.Int64,
                "time": pl.Int64,
                "code": pl.String,
                "numeric_value": pl.Float32,
                "text_value": pl.String,
            },
            orient="row",
        ).with_columns(pl.col("time").cast(pl.Datetime("us")))
    )
