"""How well a model predicts the patients of a split, by patient and by what is predicted."""

from dataclasses import dataclass

import numpy as np
import torch

from sequela.model.decoder import Decoder
from sequela.tokens.corpus import Corpus
from sequela.tokens.pack import Windows, collate
from sequela.tokens.ragged import within
from sequela.train.batches import Batches
from sequela.train.objective import scored

ROW_TOKENS = 4096


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
    """The patients of a split in windows of at most `context` tokens."""
    tokenizer = data.tokenizer
    return Windows.of(data.tokens, tokenizer.head_tokens, tokenizer.carried_tokens, context, data.clock)


def score(model: Decoder, data: Corpus, kinds: Kinds | None = None, *, context: int | None = None) -> Score:
    """Score every token of every patient once, but each patient's first, from what stands before it in its window.

    What a later window repeats of its patient (demographics, age) is shown and not scored. With `kinds.group` a token's
    -ln p is told in two parts: that of its group, and the rest. `context`: that of the model unless given.
    """
    context = context or model.config.context
    cut = windows(data, context)
    kinds = kinds or Kinds(np.zeros(len(data.tokenizer.vocabulary), np.int64), ("all",))
    nats, tokens = np.zeros((len(data.patients), len(kinds.names))), np.zeros(len(data.patients), np.int64)
    if len(cut) == 0:
        return Score(nats, tokens)
    group = None if kinds.group is None else torch.from_numpy(kinds.group).to(model.embedding.weight.device)
    with torch.no_grad():
        for step in Batches(cut.lengths, max(ROW_TOKENS, context), 1, int(cut.lengths.sum())):
            (row,) = step.rows
            found = scored(model, collate(cut, row))
            lengths = cut.lengths[row]
            window, place = np.repeat(row, lengths)[found.places], within(lengths)[found.places]
            own = place + 1 >= cut.fronts.lengths[window]
            patient, token = cut.patient[window][own], found.targets.numpy(force=True)[own]
            whole = found.nats().numpy(force=True)[own].astype(np.float64)
            if group is None:
                np.add.at(nats, (patient, kinds.token[token]), whole)
            else:
                first = found.group_nats(group).numpy(force=True)[own].astype(np.float64)
                np.add.at(nats, (patient, kinds.token[token]), first)
                np.add.at(nats, (patient, kinds.beyond[token]), whole - first)
            np.add.at(tokens, patient, 1)
    return Score(nats, tokens)
