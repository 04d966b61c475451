"""How well a model predicts the patients of a split, by patient and by kind of token."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sequela.model.decoder import Decoder
from sequela.tokens.corpus import Corpus
from sequela.tokens.packing import Batch, collate
from sequela.tokens.ragged import within
from sequela.tokens.token_types import TokenTypes
from sequela.training.data import Sampler, inputs, padded_to, windows_of
from sequela.training.derive import ROW_TOKENS


@dataclass(frozen=True)
class Score:
    """-ln p of every predicted token of P patients, summed.

    Attributes:
        nats: float64 [P, K], by patient and kind; a row adds up to -ln p of the patient's tokens after the first.
        things: int64 [P, K], how many things of each kind (see `TokenTypes.counts`).
        tokens: int64 [P], predicted tokens: all but the first.
        outcome_nats: float64 [P], the same sum where all tokens that are no outcome are one: how well it is told where
            which outcome comes, and where none does. -ln p of the outcomes alone falls when all hazards are too high.
        outcomes: int64 [P], how many there are.
    """

    nats: np.ndarray
    things: np.ndarray
    tokens: np.ndarray
    outcome_nats: np.ndarray
    outcomes: np.ndarray


@dataclass(frozen=True)
class Predictions:
    """What a model says about the N tokens of a batch that have to be predicted: all but padding and first tokens.

    Attributes:
        logits: float32 [N, V].
        targets: int64 [N], the tokens.
        positions: int64 [N], ascending: where in the flattened batch each is predicted.
    """

    logits: Tensor
    targets: Tensor
    positions: np.ndarray

    def nats(self) -> Tensor:
        """-ln p(token) of each, float32 [N]."""
        return F.cross_entropy(self.logits, self.targets, reduction="none")

    def outcome_nats(self, outcome: Tensor) -> Tensor:
        """-ln p(token) where it is an outcome, -ln p(no outcome) elsewhere, float32 [N]; `outcome` bool [V]."""
        none = self.logits.logsumexp(-1) - self.logits[:, ~outcome].logsumexp(-1)
        return torch.where(outcome[self.targets], self.nats(), none)

    def group_nats(self, groups: Tensor) -> Tensor:
        """-ln p(any token of the target's group) of each, float32 [N]; `groups` int64 [V] numbers the groups from 0."""
        probability = self.logits.softmax(-1)
        summed = torch.zeros(len(probability), int(groups.max()) + 1, device=probability.device)
        summed.index_add_(1, groups, probability)
        return -summed.gather(1, groups[self.targets][:, None])[:, 0].log()


def predictions(model: Decoder, batch: Batch) -> Predictions:
    """Predict the batch. Only positions with a target are projected to the vocabulary."""
    row = inputs(batch, model.embedding.weight.device)
    hidden = model.hidden(row.ids, row.positions, row.attention)
    logits = model.head(hidden.flatten(0, 1)[row.places]).float()
    return Predictions(logits, row.targets, row.places.numpy(force=True))


def score(
    model: Decoder,
    data: Corpus,
    kinds: TokenTypes | None = None,
    *,
    outcome: np.ndarray | None = None,
    context: int | None = None,
    patients: np.ndarray | None = None,
) -> Score:
    """Score each token of a patient exactly once, except the first, given what precedes it in its window.

    What a later window repeats of its patient (demographics, age) is read but not scored.

    Args:
        kinds: what the tokens are about; without it all are of one kind. With `kinds.group` a token's -ln p is split in
            two: that of its group, and the rest.
        outcome: bool [V], tokens that are outcomes; none unless given.
        context: the model's unless given.
        patients: rows of the patients to score, all unless given; the others get zeros.
    """
    context = context or model.config.context
    windows = windows_of(data, context)
    chosen = (
        np.arange(len(windows)) if patients is None else np.flatnonzero(np.isin(windows.patient, patients))
    )
    kinds = kinds or TokenTypes.single(len(data.tokenizer.vocabulary))
    tally = _Tally(len(data.patients), kinds, model.embedding.weight.device, outcome)
    if len(chosen) == 0:
        return tally.score
    lengths, row_tokens = windows.lengths[chosen], max(ROW_TOKENS, context)
    multiple = padded_to(row_tokens, model.embedding.weight.device)
    with torch.no_grad():
        for step in Sampler(lengths, row_tokens, 1, int(lengths.sum())):
            row = chosen[step.rows[0]]
            predicted = predictions(model, collate(windows, row, multiple))
            window = np.repeat(row, windows.lengths[row])[predicted.positions]
            position = within(windows.lengths[row])[predicted.positions]
            new = position + 1 >= windows.fronts.lengths[window]
            tally.add(windows.patient[window], predicted, new)
    return tally.score


class _Tally:
    """Sums by patient and kind."""

    def __init__(self, patients: int, kinds: TokenTypes, device: torch.device, outcome: np.ndarray | None):
        shape, none = (patients, len(kinds.names)), np.zeros(patients, np.int64)
        self.score = Score(np.zeros(shape), np.zeros(shape, np.int64), none, np.zeros(patients), none.copy())
        self.kinds = kinds
        self.outcome = None if outcome is None or not outcome.any() else torch.from_numpy(outcome).to(device)
        self.group = None if kinds.group is None else torch.from_numpy(kinds.group).to(device)

    def add(self, patient: np.ndarray, predicted: Predictions, new: np.ndarray) -> None:
        """Add the tokens of `patient` [N] where `new` [N]: those that no earlier window has scored."""
        patient, token = patient[new], predicted.targets.numpy(force=True)[new]
        first = whole = predicted.nats().numpy(force=True)[new].astype(np.float64)
        if self.group is not None:
            split = self.kinds.beyond[token] >= 0
            grouped = predicted.group_nats(self.group).numpy(force=True)[new].astype(np.float64)
            first = np.where(split, grouped, whole)
            at = patient[split], self.kinds.beyond[token[split]]
            np.add.at(self.score.nats, at, (whole - first)[split])
            np.add.at(self.score.things, at, 1)
        at = patient, self.kinds.token[token]
        np.add.at(self.score.nats, at, first)
        np.add.at(self.score.things, at, self._counted(token))
        np.add.at(self.score.tokens, patient, 1)
        if self.outcome is not None:
            nats = predicted.outcome_nats(self.outcome).numpy(force=True)[new].astype(np.float64)
            np.add.at(self.score.outcome_nats, patient, nats)
            is_outcome = self.outcome.numpy(force=True)[token]
            np.add.at(self.score.outcomes, patient[is_outcome], self._counted(token[is_outcome]))

    def _counted(self, token: np.ndarray) -> np.ndarray:
        """Whether each is a thing of its own, int64."""
        counts = self.kinds.counts
        return np.ones(len(token), np.int64) if counts is None else counts[token].astype(np.int64)


def losses(
    model: Decoder, data: Corpus, patients: np.ndarray | None = None, outcome: np.ndarray | None = None
) -> dict | None:
    """The losses on the patients of a split (all, or those in the given rows); None where there are none.

    "bits_per_token" over predicted tokens; "bits_per_event" over the patients' events; "outcomes", how many tokens of
    `outcome` there are, and "bits_per_outcome" (`Score.outcome_nats`), unless there are none; and under "kinds", for
    each kind that occurs, "events" (how many things of that kind), their "bits_per_event", and their "share" of all
    bits.
    """
    kinds = data.tokenizer.types or TokenTypes.single(len(data.tokenizer.vocabulary))
    result = score(model, data, kinds, outcome=outcome, patients=patients)
    bits, things = result.nats.sum(0) / math.log(2), result.things.sum(0)
    if not result.tokens.any():
        return None
    count, outcome_bits = int(result.outcomes.sum()), float(result.outcome_nats.sum() / math.log(2))
    return {
        "bits_per_token": float(bits.sum() / result.tokens.sum()),
        "bits_per_event": float(bits.sum() / things[slice(None) if kinds.events is None else kinds.events].sum()),
        **({"outcomes": count, "bits_per_outcome": outcome_bits / count} if count else {}),
        "kinds": {
            name: {
                "events": int(count),
                "bits_per_event": float(of_kind / count),
                "share": float(of_kind / bits.sum()),
            }
            for name, of_kind, count in zip(kinds.names, bits, things, strict=True)
            if count
        },
    }
