"""What is known at the end of a record is learned, exactly, and nothing else changes."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from sequela.tokens.corpus import Corpus
from sequela.tokens.ehr.clock import Intervals
from sequela.tokens.packing import Windows
from sequela.tokens.ragged import Ragged, StackedRows
from sequela.tokens.vocabulary import Vocabulary
from sequela.training.data import NO_ENDS, windows_of
from sequela.training.objectives.last_moment import ends_of, time_passes
from sequela.training.objectives.next_token import NextToken
from sequela.training.objectives.objective import Setup
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

    def breaks(self, ids):
        return None

    def survival(self, rest):
        return Intervals.guess((60, 1440)).survival(rest)


ROWS = [[BOS, LAB, DAY, LAB, HOUR, HOME], [BOS, LAB, DAY, HOME], [BOS, HOUR, DIED, DEATH], [BOS, LAB, HOUR, HOME, DAY]]
REST = np.array([0, 750, -1, 20], np.int32)
STAYS = Corpus(Stays(), np.arange(4), StackedRows(tuple(Ragged.of([row]) for row in ROWS)), None, 0, REST)


@pytest.mark.parametrize(("context", "places", "shorter"), [(8, [5, 9], [1, 0.5]), (4, [1, 7], [1, 1])])
def test_only_the_last_window_of_a_patient_who_may_go_on_ends_a_record(context, places, shorter):
    windows = windows_of(STAYS, context)
    row = np.flatnonzero(np.isin(windows.patient, [0, 1, 2] if context == 8 else [0]))
    if context == 4:  # BOS LAB DAY LAB | BOS HOUR HOME, and two tokens of another row before
        row = np.append(np.flatnonzero(windows.patient == 3)[-1:], row)
        assert windows.lengths[row].tolist() == [2, 4, 3]
        places = [1, 8]
    ends = ends_of(windows, row, REST, Stays())
    assert ends.places.tolist() == places
    assert ends.survival[:, 0].tolist() == pytest.approx(shorter, abs=0.01)
    assert (ends.survival[:, 1] == 1).all(), "a day is longer than what is left"


def test_nothing_is_learned_where_tokens_tell_no_time():
    assert ends_of(windows_of(STAYS, 8), np.array([0, 1]), None, Stays()) is NO_ENDS


def test_the_loss_is_that_of_a_time_that_is_long_enough():
    random = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 8, generator=random, requires_grad=True) for n in (4, SIZE))
    moving, survival = torch.tensor([HOUR, DAY]), torch.tensor([[1.0, 1], [0.5, 1], [0, 1], [0.2, 0.7]])
    classes = torch.ones(SIZE) / 2
    classes[DEATH] = 5
    scores = hidden @ weight.t()
    for offset, count in ((None, 1), (classes.log(), 1 / 2)):
        shares = scores.softmax(-1) if offset is None else (scores + offset).softmax(-1)
        expected = -count * (shares[:, moving] * survival).sum(-1).log().sum()
        bare = -(scores.softmax(-1)[:, moving] * survival).sum(-1).log().sum()
        want = torch.autograd.grad(expected, (hidden, weight), retain_graph=True)
        for chunk in (10**6, 2 * SIZE, 1):
            found, plain = time_passes(hidden, weight, moving, survival, offset, chunk)
            assert torch.allclose(found, expected) and torch.allclose(plain, bare) and not plain.requires_grad
            for mine, his in zip(torch.autograd.grad(found, (hidden, weight)), want, strict=True):
                assert torch.allclose(mine, his, atol=1e-6)


def test_a_record_that_ends_so_adds_what_is_known_to_the_loss():
    decoder = model()
    windows = Windows.of(Ragged.of([[BOS, LAB, HOME], [BOS, LAB, LAB]]), np.array([BOS]), (), 9)
    plain = loss(decoder, windows, [0, 1])
    objective = NextToken(decoder, Setup(tokenizer=Stays(), rest=np.array([750, -1])))
    batch = objective.collate(windows, np.array([1, 0]))
    assert batch.ended.tolist() == [5] and batch.weight == 5
    hour, day = decoder.logits(torch.tensor([[BOS, LAB, HOME]]))[0, -1].softmax(-1)[[HOUR, DAY]]
    known = hour * batch.survival[0, 0] + day
    assert torch.allclose(objective(batch).total, plain - known.log(), atol=1e-4)
    # Nothing to learn there: the same to the bit
    none = NextToken(decoder, Setup(tokenizer=Stays(), rest=np.full(3, -1)))
    assert none(none.collate(PATIENTS, np.array([0, 2, 1]))).total == loss(decoder, PATIENTS, [0, 2, 1])


def test_censored_time_keeps_the_hazard_and_without_it_the_hazard_is_inflated():
    """One hazard in every minute, uniform censoring: at the true shares of the tokens the loss has no slope."""
    random = np.random.default_rng(0)
    edges, alive, people = np.array([1, 10, 40, 100]), 1 - 1 / 150, 100_000
    minutes, upper = np.arange(101), np.append(edges[1:], 101)
    middles = (np.arange(256) + 0.5) / 256
    shares = alive**edges - np.append(alive ** edges[1:], 0)  # of the time tokens; otherwise it happens now
    tables = [np.searchsorted(1 - alive ** (minutes[low : high + 1] - low), middles * (1 - alive ** (high - low)))
              for low, high in zip(edges, upper, strict=True)]  # fmt: skip
    intervals = Intervals(edges, edges, edges[:, None] + np.stack(tables) - 1)
    intervals.quantiles[-1] = 100
    event, censored = random.geometric(1 - alive, people) - 1, random.integers(0, 400, people)
    happened, time = event <= censored, np.minimum(event, censored)
    interval = intervals.encode(time[happened])[1]
    seen = np.append(np.bincount(interval[interval >= 0], minlength=4), (interval < 0).sum()).astype(np.float32)
    seen[3] = (time // 100).sum()
    survival = torch.from_numpy(intervals.survival(time[~happened] % 100)).float()
    true = torch.from_numpy(np.append(shares, 1 - alive)).float()

    def slope(tails: bool) -> float:
        """Of the loss by the logit of the longest interval, per person."""
        weight = true.log()[:, None].requires_grad_()
        total = -(torch.from_numpy(seen) * weight[:, 0].log_softmax(0)).sum()
        if tails:
            one = torch.ones(len(survival), 1)
            total = total + time_passes(one, weight, torch.arange(4), survival, None, 10**6)[0]
        return float(torch.autograd.grad(total, weight)[0][3]) / people

    assert abs(slope(tails=True)) < 0.01
    assert slope(tails=False) > 0.05, "negative control: the share of long silences would be too small"
