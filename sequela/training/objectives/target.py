"""The target of a joint-embedding objective: the same decoder, its weights a moving average of those that are trained.

Shape letters: F futures, C hidden width.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sequela.model.decoder import Decoder
from sequela.model.precision import computed_in
from sequela.training.data import Inputs


def rising(start: float, done: float) -> float:
    """The decay of a moving average: `start` at first, 1 at the end, by a cosine (BYOL, arXiv 2006.07733).

    >>> rising(0.99, 0.0), rising(0.99, 1.0)
    (0.99, 1.0)
    """
    return 1 - (1 - start) * (1 + math.cos(math.pi * done)) / 2


@dataclass(frozen=True)
class TrainingStage:
    """A part of a run.

    Attributes:
        share: of the tokens.
        tokens, futures: weights of the two losses.
        detached: whether the loss of futures trains the predictor alone.
        synced: whether the target becomes a copy of the decoder at the beginning.
    """

    share: float
    tokens: float
    futures: float
    detached: bool = False
    synced: bool = False


STAGES = {
    "curriculum": (
        TrainingStage(0.6, 1, 0),
        TrainingStage(0.05, 1, 1, detached=True, synced=True),
        TrainingStage(0.35, 0.2, 1),
    ),
    "at_once": (TrainingStage(1, 1, 1),),
    "futures_only": (TrainingStage(1, 0, 1),),
}
"""SMB-Structure found a curriculum better than both at once; its weights are not known."""


class Schedule(nn.Module):
    """In which stage a run is; a checkpoint of the run keeps it."""

    def __init__(self, stages: str, decay: float, *, rises: bool = True):
        """`rises`: whether the decay of the moving average rises to 1 at the end."""
        super().__init__()
        self.stages, self.decay, self.rises = self.named(stages), decay, rises
        self.register_buffer("number", torch.tensor(0))

    @staticmethod
    def named(name: str) -> tuple[TrainingStage, ...]:
        """The stages of that name.

        Raises:
            ValueError: if there are none.
        """
        if name not in STAGES:
            raise ValueError(f"`stages` must be one of {', '.join(STAGES)}, not {name!r}")
        return STAGES[name]

    @property
    def stage(self) -> TrainingStage:
        """The stage of the next step."""
        return self.stages[int(self.number)]

    def after_step(self, done: float, target: Target, decoder: Decoder) -> None:
        """Go to the stage that begins, and let the target follow; `done` is the share of the run's tokens seen."""
        ends = list(accumulate(stage.share for stage in self.stages))
        number = min(sum(done >= end for end in ends), len(self.stages) - 1)
        stage = self.stages[number]
        if number > int(self.number):
            self.number.fill_(number)
            if stage.synced:
                target.follow(decoder, 0.0)
                return
        if stage.futures:
            first = next(n for n, each in enumerate(self.stages) if each.futures)
            begun = sum(each.share for each in self.stages[:first])
            late = (done - begun) / max(1 - begun, 1e-9)
            target.follow(decoder, rising(self.decay, late) if self.rises else self.decay)


class Target(nn.Module):
    """Encodes futures by themselves. Its weights are fp32, for in bf16 the small steps of an average would vanish; they
    have no gradient, and checkpoints of a run keep them."""

    def __init__(self, decoder: Decoder):
        super().__init__()
        self.decoder = copy.deepcopy(decoder).requires_grad_(False)

    @torch.no_grad()
    def follow(self, decoder: Decoder, decay: float) -> None:
        """Move to `decay` times itself and the rest of `decoder`; 0 makes it a copy."""
        for mine, theirs in zip(self.decoder.parameters(), decoder.parameters(), strict=True):
            mine.lerp_(theirs.detach(), 1 - decay)

    @torch.no_grad()
    def hidden(self, row: Inputs, precision: str) -> Tensor:
        """Hidden states of packed rows, [B, T, C]."""
        with computed_in(precision, row.ids.device):
            return self.decoder.hidden(row.ids, row.positions, row.attention)

    @torch.no_grad()
    def means(self, futures: Inputs, which: Tensor, count: int, precision: str) -> Tensor:
        """The mean hidden state of each future, float32 [F, C].

        Args:
            futures: packed rows, each future a segment of its own.
            which: int64 [T], the future of each token of the flattened rows; `count` for padding.
        """
        flat = self.hidden(futures, precision).flatten(0, 1).float()
        sums = flat.new_zeros(count + 1, flat.shape[1]).index_add_(0, which, flat)
        tokens = torch.bincount(which, minlength=count + 1)
        return sums[:count] / tokens[:count, None]


def normalized(x: Tensor) -> Tensor:
    """Layer normalization without weights, as targets have it."""
    return F.layer_norm(x, x.shape[-1:])
