"""How well a model predicts the patients of a split, by patient and by what is predicted."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from sequela.model.decoder import Decoder
from sequela.tokens.corpus import Corpus
from sequela.tokens.packing import Windows, collate
from sequela.tokens.ragged import within
from sequela.tokens.token_types import TokenTypes
from sequela.training.data import Sampler, padded_to
from sequela.training.derive import ROW_TOKENS
from sequela.training.objectives.next_token import Scored, scored


@dataclass(frozen=True)
class Score:
    """-ln p of everything that is predicted of P patients.

    Attributes:
        nats: float64 [P, K], by patient and kind; they add up to -ln p of the patient's tokens after the first.
        things: int64 [P, K], how many things of each kind (see `TokenTypes.counts`).
        tokens: int64 [P], tokens predicted: all but each patient's first.
    """

    nats: np.ndarray
    things: np.ndarray
    tokens: np.ndarray


def windows(data: Corpus, context: int) -> Windows:
    """The patients of a split in windows of at most `context` tokens."""
    tokenizer = data.tokenizer
    return Windows.of(data.tokens, tokenizer.head, tokenizer.carried, context, data.clock)


def score(
    model: Decoder,
    data: Corpus,
    kinds: TokenTypes | None = None,
    *,
    context: int | None = None,
    patients: np.ndarray | None = None,
) -> Score:
    """Score every token of every patient once, but each patient's first, from what stands before it in its window.

    What a later window repeats of its patient (demographics, age) is shown and not scored.

    Args:
        kinds: what the tokens are about; none: all are of one kind. With `kinds.group` a token's -ln p is told in two
            parts: that of its group, and the rest.
        context: that of the model unless given.
        patients: the rows of the patients to score; the others have zeros. All unless given.
    """
    context = context or model.config.context
    cut = windows(data, context)
    chosen = np.arange(len(cut)) if patients is None else np.flatnonzero(np.isin(cut.patient, patients))
    kinds = kinds or TokenTypes.single(len(data.tokenizer.vocabulary))
    tally = _Tally(len(data.patients), kinds, model.embedding.weight.device)
    if len(chosen) == 0:
        return tally.score
    lengths, row_tokens = cut.lengths[chosen], max(ROW_TOKENS, context)
    multiple = padded_to(row_tokens, model.embedding.weight.device)
    with torch.no_grad():
        for step in Sampler(lengths, row_tokens, 1, int(lengths.sum())):
            row = chosen[step.rows[0]]
            found = scored(model, collate(cut, row, multiple))
            window = np.repeat(row, cut.lengths[row])[found.places]
            place = within(cut.lengths[row])[found.places]
            own = place + 1 >= cut.fronts.lengths[window]
            tally.add(cut.patient[window], found, own)
    return tally.score


class _Tally:
    """Adds up what is scored."""

    def __init__(self, patients: int, kinds: TokenTypes, device: torch.device):
        shape = (patients, len(kinds.names))
        self.score = Score(np.zeros(shape), np.zeros(shape, np.int64), np.zeros(patients, np.int64))
        self.kinds = kinds
        self.group = None if kinds.group is None else torch.from_numpy(kinds.group).to(device)

    def add(self, patient: np.ndarray, found: Scored, own: np.ndarray) -> None:
        """Add the tokens of a batch that are `own` [N], of `patient` [N]."""
        patient, token = patient[own], found.targets.numpy(force=True)[own]
        first = whole = found.nats().numpy(force=True)[own].astype(np.float64)
        if self.group is not None:
            more = self.kinds.beyond[token] >= 0
            grouped = found.group_nats(self.group).numpy(force=True)[own].astype(np.float64)
            first = np.where(more, grouped, whole)
            at = patient[more], self.kinds.beyond[token[more]]
            np.add.at(self.score.nats, at, (whole - first)[more])
            np.add.at(self.score.things, at, 1)
        at = patient, self.kinds.token[token]
        np.add.at(self.score.nats, at, first)
        np.add.at(self.score.things, at, 1 if self.kinds.counts is None else self.kinds.counts[token])
        np.add.at(self.score.tokens, patient, 1)


def losses(model: Decoder, data: Corpus, patients: np.ndarray | None = None) -> dict | None:
    """The losses on the patients of a split (all, or those in the given rows); None where there are none.

    "bits_per_token" of what is predicted; "bits_per_event" of the patients' events; and in "kinds" for each kind that
    occurs "events" (how many things of that kind), "bits_per_event" of them, and "share" of all bits.
    """
    kinds = data.tokenizer.types or TokenTypes.single(len(data.tokenizer.vocabulary))
    found = score(model, data, kinds, patients=patients)
    bits, things = found.nats.sum(0) / math.log(2), found.things.sum(0)
    if not found.tokens.any():
        return None
    return {
        "bits_per_token": float(bits.sum() / found.tokens.sum()),
        "bits_per_event": float(bits.sum() / things[slice(None) if kinds.events is None else kinds.events].sum()),
        "kinds": {
            name: {"events": int(many), "bits_per_event": float(own / many), "share": float(own / bits.sum())}
            for name, own, many in zip(kinds.names, bits, things, strict=True)
            if many
        },
    }
