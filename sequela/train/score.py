"""How well a model predicts the patients of a split, by patient and by what is predicted."""

from dataclasses import dataclass

import numpy as np
import torch

from sequela.model.decoder import Decoder
from sequela.tokens.corpus import Corpus
from sequela.tokens.pack import Windows, collate, epoch
from sequela.train.objective import scored
from sequela.train.settings import TrainSettings


@dataclass(frozen=True)
class Kinds:
    """What the tokens of a vocabulary are about, as numbers from 0.

    Attributes:
        token: int64 [V], the kind of what a token tells.
        group: int64 [V] or None: tokens that tell the same first and differ in what they tell beyond it, such as the
            fused tokens of one code with its quantiles.
        beyond: int64 [V] or None, with `group`: the kind of what a token tells beyond its group.
        names: one for each kind.
    """

    token: np.ndarray
    names: tuple[str, ...]
    group: np.ndarray | None = None
    beyond: np.ndarray | None = None


@dataclass(frozen=True)
class Score:
    """-ln p of everything that is predicted of P patients.

    Attributes:
        nats: float64 [P, K], by patient and kind; they add up to -ln p of the patient's tokens after the first.
        tokens: int64 [P], tokens predicted: all but each patient's first.
    """

    nats: np.ndarray
    tokens: np.ndarray


def windows(data: Corpus, context: int) -> Windows:
    """The patients of a split in rows of at most `context` tokens."""
    tokenizer = data.tokenizer
    return Windows.of(data.tokens, tokenizer.head_tokens, tokenizer.carried_tokens, context, data.clock)


def score(model: Decoder, data: Corpus, settings: TrainSettings, kinds: Kinds | None = None) -> Score:
    """Score every token of every patient once, but each patient's first, from what stands before it in its window.

    What a later window repeats of its patient (demographics, age) is shown and not scored. With `kinds.group` a token's
    -ln p is told in two parts: that of its group, and the rest.
    """
    rows = windows(data, settings.context)
    kinds = kinds or Kinds(np.zeros(len(data.tokenizer.vocabulary), np.int64), ("all",))
    fronts = rows.lengths - (rows.stop - rows.start)
    nats, tokens = np.zeros((len(data.patients), len(kinds.names))), np.zeros(len(data.patients), np.int64)
    group = None if kinds.group is None else torch.from_numpy(kinds.group).to(model.embedding.weight.device)
    batches = epoch(rows, settings.context, rows_per_batch(settings), np.random.default_rng(0))
    with torch.no_grad():
        for batch in batches:
            packed = collate(rows, batch, settings.context)
            found = scored(model, packed)
            window = _window_of(packed.segments, batch)[found.places]
            own = _place_in_window(packed.segments)[found.places] + 1 >= fronts[window]
            patient, token = rows.patient[window][own], found.targets.numpy(force=True)[own]
            whole = found.nats().numpy(force=True)[own].astype(np.float64)
            if group is None:
                np.add.at(nats, (patient, kinds.token[token]), whole)
            else:
                first = found.group_nats(group).numpy(force=True)[own].astype(np.float64)
                np.add.at(nats, (patient, kinds.token[token]), first)
                np.add.at(nats, (patient, kinds.beyond[token]), whole - first)
            np.add.at(tokens, patient, 1)
    return Score(nats, tokens)


def rows_per_batch(settings: TrainSettings) -> int:
    """How many packed rows an optimiser step takes."""
    return max(1, settings.batch_tokens // settings.context)


def _window_of(segments: np.ndarray, batch: list[list[int]]) -> np.ndarray:
    """Which window each place of a flattened batch belongs to; -1: padding."""
    longest = max(len(row) for row in batch)
    table = np.array([[*row, *[-1] * (longest - len(row))] for row in batch])
    window = np.take_along_axis(table, np.maximum(segments, 0), 1)
    return np.where(segments >= 0, window, -1).ravel()


def _place_in_window(segments: np.ndarray) -> np.ndarray:
    """How many tokens of its window stand before each place of a flattened batch."""
    places = np.arange(segments.shape[1])
    new = np.diff(segments, axis=1, prepend=-2) != 0
    return (places - np.maximum.accumulate(np.where(new, places, 0), axis=1)).ravel()
