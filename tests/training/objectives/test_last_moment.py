"""That time passes behind a token that often ends a record is learned, and nothing else changes."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from sequela.tokens.corpus import Corpus
from sequela.tokens.packing import Windows
from sequela.tokens.ragged import Ragged, StackedRows
from sequela.tokens.vocabulary import Vocabulary
from sequela.training.data import closing_tokens, windows_of
from sequela.training.objectives.last_moment import last_moments, time_passes
from sequela.training.objectives.next_token import NextToken
from sequela.training.objectives.objective import Setup
from tests.tokens.byte_text import ByteTokenizer
from tests.training.objectives.test_next_token import PATIENTS, loss, model

BOS, HOUR, DAY, LAB, HOME, DIED, DEATH = range(1, 8)
SIZE = 12  # of the vocabulary of `model`
VOCABULARY = Vocabulary(tuple(f"T{number}" for number in range(SIZE)))


@dataclass(frozen=True)
class Stays:
    """A tokenizer of which only the meaning of its tokens is asked."""

    minutes_V: np.ndarray = field(default_factory=lambda: np.array([0, 0, 60, 1440, *[0] * 8]))
    final: np.ndarray = field(default_factory=lambda: np.array([DEATH]))
    head: np.ndarray = field(default_factory=lambda: np.array([BOS]))
    carried: tuple = ()
    vocabulary: Vocabulary = VOCABULARY


def corpus(*rows, tokenizer=None):
    """Each row in a shard of its own."""
    stacked = StackedRows(tuple(Ragged.of([row]) for row in rows))
    return Corpus(tokenizer or Stays(), np.arange(len(rows)), stacked, None, 0)


STAYS = corpus(
    [BOS, LAB, DAY, LAB, HOUR, HOME], [BOS, LAB, DAY, HOME], [BOS, HOUR, DIED, DEATH], [BOS, LAB, HOUR, HOME, DAY],
    *[[BOS, *[LAB, HOUR] * 10]] * 3, [BOS, HOUR, LAB],
)  # fmt: skip


def test_tokens_that_often_end_a_record_are_told_from_its_rows():
    """Not death, after which nothing comes, nor time, nor a token that seldom stands last."""
    assert np.flatnonzero(closing_tokens(STAYS)).tolist() == [HOME]
    seldom = corpus(*[[BOS, *[HOME, DAY] * 10]] * 2, [BOS, HOME], [BOS, HOUR, LAB, HOUR, LAB])
    assert np.flatnonzero(closing_tokens(seldom)).tolist() == [LAB]  # HOME ends 1 of 21


def test_texts_that_tell_no_time_have_none():
    rows = corpus([1, 5, 6], tokenizer=ByteTokenizer())
    assert not closing_tokens(rows).any()


@pytest.mark.parametrize(("context", "expected"), [(8, [5, 9]), (4, [8])])
def test_only_the_last_window_of_a_patient_ends_a_record(context, expected):
    closing = closing_tokens(STAYS)
    windows = windows_of(STAYS, context)
    row = np.flatnonzero(np.isin(windows.patient, [0, 1, 2] if context == 8 else [0]))
    if context == 4:  # BOS LAB DAY LAB | BOS HOUR HOME, and two tokens of another row before
        row = np.append(np.flatnonzero(windows.patient == 3)[-1:], row)
        assert windows.lengths[row].tolist() == [2, 4, 3]
    assert last_moments(windows, row, closing).tolist() == expected


def test_the_loss_is_that_of_any_time_token():
    random = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 8, generator=random, requires_grad=True) for n in (4, SIZE))
    moving = torch.tensor([HOUR, DAY])
    expected = -(hidden @ weight.t()).softmax(-1)[:, moving].sum(-1).log().sum()
    ours, plain = time_passes(hidden, weight, moving)
    assert torch.allclose(ours, expected) and torch.equal(plain, ours) and not plain.requires_grad
    assert torch.autograd.grad(ours, weight)[0].abs().sum() > 0


def test_the_loss_of_any_time_token_is_weighted_as_every_other():
    random = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 8, generator=random, requires_grad=True) for n in (4, SIZE))
    classes = torch.ones(SIZE) / 2
    classes[DEATH] = 5
    weighted, plain = time_passes(hidden, weight, torch.tensor([HOUR, DAY]), classes.log())
    share = (hidden @ weight.t() + classes.log()).softmax(-1)[:, [HOUR, DAY]].sum(-1)
    assert torch.allclose(weighted, -share.log().sum() / 2) and weighted.requires_grad
    assert torch.allclose(plain, time_passes(hidden, weight, torch.tensor([HOUR, DAY]))[0])


def test_a_record_that_ends_so_adds_its_last_moment_to_the_loss():
    decoder = model()
    windows = Windows.of(Ragged.of([[BOS, LAB, HOME], [BOS, LAB, LAB]]), np.array([BOS]), (), 9)
    plain = loss(decoder, windows, [0, 1])
    closing = np.zeros(SIZE, bool)
    closing[HOME] = True
    objective = NextToken(decoder, Setup(tokenizer=Stays(), closing=closing))
    batch = objective.collate(windows, np.array([1, 0]))
    assert batch.ended.tolist() == [5] and batch.weight == 5
    share = decoder.logits(torch.tensor([[BOS, LAB, HOME]]))[0, -1].softmax(-1)[[HOUR, DAY]].sum()
    assert torch.allclose(objective(batch).total, plain - share.log(), atol=1e-4)
    # Nothing to learn there: the same to the bit
    none = NextToken(decoder, Setup(tokenizer=Stays(), closing=np.zeros(SIZE, bool)))
    assert none(none.collate(PATIENTS, np.array([0, 2, 1]))).total == loss(decoder, PATIENTS, [0, 2, 1])
