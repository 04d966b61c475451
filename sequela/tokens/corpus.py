"""A corpus: one tokenizer and, per split, the token rows of its patients, memory-mapped."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sequela.record.errors import InputError
from sequela.record.progress import Progress, silent
from sequela.record.store import SPLITS, read_events, splits
from sequela.tokens.ragged import Ragged
from sequela.tokens.settings import TokenSettings
from sequela.tokens.tokenizer import Tokenizer

FILE = "corpus.json"


@dataclass(frozen=True)
class Corpus:
    """Token rows of one split: `patients` int64 [P], `tokens` ragged [P, length]; `events`: how many they hold."""

    tokenizer: Tokenizer
    patients: np.ndarray
    tokens: Ragged
    events: int

    @staticmethod
    def load(folder: Path, split: str) -> Corpus:
        """Open one split, memory-mapped.

        Raises InputError when the folder is no corpus, is damaged, or was made with another vocabulary.
        """
        folder = Path(folder)
        tokenizer = Tokenizer.load(folder)
        try:
            about = json.loads((folder / FILE).read_text())
            facts = about["splits"][split]
            patients = np.load(folder / split / "patients.npy", mmap_mode="r")
            offsets = np.load(folder / split / "offsets.npy", mmap_mode="r")
            flat = np.load(folder / split / "tokens.npy", mmap_mode="r")
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{folder} holds no whole {split!r} corpus ({error}): run `sequela tokenize` again."
            ) from error
        if about["vocabulary"] != tokenizer.vocabulary.hash:
            raise InputError(
                f"{folder / FILE} was made with vocabulary {about['vocabulary']}, but vocabulary.json is "
                f"{tokenizer.vocabulary.hash}: run `sequela tokenize` again."
            )
        if hashlib.sha256(np.ascontiguousarray(flat)).hexdigest() != facts["sha256"]:
            raise InputError(f"{folder / split / 'tokens.npy'} is damaged: run `sequela tokenize` again.")
        return Corpus(tokenizer, patients, Ragged(flat, offsets), facts["events"])


def tokenize(
    meds: Path, out: Path, settings: TokenSettings | None = None, *, progress: Progress = silent
) -> dict:
    """Fit a tokenizer on the training patients of a MEDS dataset and write the corpus of every split into `out`.

    Returns what `corpus.json` says: per split the patients, events, tokens and dropped events.
    """
    settings = settings or TokenSettings()
    train, present = read_events(meds, "train"), splits(meds)
    tokenizer = Tokenizer.fit(train, settings)
    about: dict = {
        "vocabulary": tokenizer.vocabulary.hash,
        "tokens_in_vocabulary": len(tokenizer.vocabulary),
        "splits": {},
    }
    width = np.uint16 if len(tokenizer.vocabulary) < 1 << 16 else np.uint32
    for done, split in enumerate(SPLITS):
        progress(done, len(SPLITS), split=split)
        events = read_events(meds, split) if split in present else train.clear()
        encoded = tokenizer.encode(events)
        flat = encoded.tokens.flat.astype(width)
        (out / split).mkdir()
        np.save(out / split / "patients.npy", encoded.patients)
        np.save(out / split / "offsets.npy", encoded.tokens.offsets)
        np.save(out / split / "tokens.npy", flat)
        about["splits"][split] = {
            "patients": len(encoded.patients),
            "events": encoded.events,
            "tokens": len(flat),
            "dropped_events": encoded.dropped,
            "sha256": hashlib.sha256(flat).hexdigest(),
        }
    progress(len(SPLITS), len(SPLITS))
    tokenizer.save(out)
    (out / FILE).write_text(json.dumps(about, indent=1))
    return about
