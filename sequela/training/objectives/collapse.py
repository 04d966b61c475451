"""Has a joint-embedding objective collapsed? Where target and predictor agree because nothing tells patients apart, the
loss is perfect and the states are worthless.

Two eyes: a `Watch` over the steps of a run, which stops one whose scale falls; and a `Panel` of figures on tuning
patients. Rank and skill against persistence do not see every collapse, so they are reported and decide nothing; scale
and skill against the mean do (docs/records/world_model.md).

Shape letters: Q pairs of a state and a future, N candidates, C hidden width.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from sequela.errors import InputError
from sequela.training.objectives.target import normalized

LEAST_SPREAD = 0.02
LEAST_LEFT = 0.2  # of the spread at the beginning
FEWEST = 50  # pairs, to judge
CANDIDATES = 256
MEMORY = 20  # steps over which a run is watched
MEND = "Give next tokens more weight, or the moving average a longer memory (`decay` nearer to 1)."
WORSE = 2.0  # times
SEEN = "states", "futures"
WATCHED = *(f"{name} {figure}" for name in SEEN for figure in ("vary", "measure")), "error", "variance"


@dataclass(frozen=True)
class Panel:
    """Figures of a check.

    Attributes:
        pairs: Q.
        state_spread, future_spread: mean standard deviation of a feature over pairs, of states and of futures, as a
            share of the root mean square of the features.
        skill: 1 - squared error of what is foreseen over the variance of futures: 0 for who foresees their mean.
        persistence_skill: the same over the error of the state itself. A collapsed model may have much of it.
        rank: effective rank of the states, exp of the entropy of their principal variances. A collapsed model may have
            a high one.
        found: share of pairs whose future is nearer to what was foreseen than those of others, `candidates` in all.
        candidates: as many as there are, up to 256; by chance 1 in `candidates` is found.
        told_apart: how often the own future is nearer than another one of the same patient; 0.5 by chance, None where
            no patient has two.
    """

    pairs: int
    state_spread: float
    future_spread: float
    skill: float
    persistence_skill: float
    rank: float
    found: float
    candidates: int
    told_apart: float | None

    def as_dict(self) -> dict[str, float | None]:
        """By name."""
        return asdict(self)

    def check(self) -> None:
        """Raises InputError if patients can no longer be told apart."""
        if self.pairs < FEWEST:
            return
        for name, value in zip(SEEN, (self.state_spread, self.future_spread), strict=True):
            if not value >= LEAST_SPREAD:
                raise InputError(
                    f"the model has collapsed: the {name} of different patients differ by {value:.1%} of their size. "
                    f"{MEND}"
                )


def panel(state: Tensor, foreseen: Tensor, future: Tensor, patient: Tensor | None = None) -> Panel:
    """Of states, what was foreseen from each, and what came, all float32 [Q, C]; futures before normalization.

    Args:
        patient: int64 [Q], whose each is; all of different ones unless given.
    """
    target = normalized(future)
    error = ((foreseen - target) ** 2).mean()
    variance = ((target - target.mean(0)) ** 2).mean().clamp_min(1e-12)
    stays = ((normalized(state) - target) ** 2).mean().clamp_min(1e-12)
    values = torch.linalg.svdvals(state - state.mean(0)) ** 2
    share = (values / values.sum().clamp_min(1e-12)).clamp_min(1e-12)
    found, candidates = _found(foreseen, target)
    return Panel(
        len(state), _spread(state), _spread(future), float(1 - error / variance), float(1 - error / stays),
        float(torch.exp(-(share * share.log()).sum())), found, candidates, _told_apart(foreseen, target, patient),
    )  # fmt: skip


def _spread(x: Tensor) -> float:
    return float(x.std(0, correction=0).mean() / (x**2).mean().sqrt().clamp_min(1e-12))


def _found(foreseen: Tensor, target: Tensor) -> tuple[float, int]:
    """How often the own future is the nearest of those of CANDIDATES pairs; one that ties with another is half found.

    Pairs are taken in groups of so many, in a fixed random order.
    """
    count = min(len(target), CANDIDATES)
    order = torch.randperm(len(target), generator=torch.Generator().manual_seed(0)).to(target.device)
    hits, asked = 0.0, 0
    for begin in range(0, len(target) - count + 1, count):
        rows = order[begin : begin + count]
        far = torch.cdist(foreseen[rows], target[rows])
        own = far.diagonal()[:, None]
        nearer, tied = (far < own).sum(1), (far == own).sum(1)
        hits, asked = hits + float(((nearer == 0) / tied).sum()), asked + count
    return hits / max(asked, 1), count


def _told_apart(foreseen: Tensor, target: Tensor, patient: Tensor | None) -> float | None:
    """The hard negatives: other futures of the same patient, before or after."""
    if patient is None:
        return None
    won, asked = 0.0, 0
    order = patient.argsort(stable=True)
    for rows in order.split(torch.unique(patient, return_counts=True)[1].tolist()):
        far = torch.cdist(foreseen[rows], target[rows])
        own = far.diagonal()[:, None]
        ahead = (own < far).float() + 0.5 * (own == far)
        won, asked = won + float(ahead.sum() - ahead.diagonal().sum()), asked + len(rows) * (len(rows) - 1)
    return won / asked if asked else None


class Watch(nn.Module):
    """Keeps an eye on states and futures over the steps of a run, and stops one that collapses.

    How much both vary between the pairs of a row, and how far off they are foreseen, is averaged over steps and
    compared with the first steps in which futures counted. Raised is the alarm where

    - futures vary by less than a fifth of what they did then, or by less than 2 % of their size;
    - so do states; by less than a fifth only where no next tokens hold them, since a part that all states have in
      common may grow beside what tells them apart, and harms nobody until bf16 loses the rest;
    - the error of what is foreseen, over the variance of futures, is more than twice what it was, and above 2. A
      predictor that has learned nothing yet is no better than the mean, but does not get worse.

    A checkpoint of the run keeps it. On several processes each heeds the means over all of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.tensor(0))
        self.register_buffer("began", torch.zeros(len(WATCHED)))
        self.register_buffer("now", torch.zeros(len(WATCHED)))

    @staticmethod
    def seen(state: Tensor, foreseen: Tensor, future: Tensor) -> dict[str, Tensor]:
        """Figures of a row: of states, what was foreseen from each, and what came, [Q, C]."""
        if len(state) < 2:
            return dict.fromkeys(WATCHED, state.new_zeros(()))
        state, foreseen, future = state.detach(), foreseen.detach(), future.detach()
        target = normalized(future)
        parts = [part for x in (state, future) for part in (x.var(0).mean(), (x**2).mean())]
        figures = *parts, ((foreseen - target) ** 2).mean(), target.var(0).mean()
        return dict(zip(WATCHED, figures, strict=True))

    def heed(self, figures: dict[str, float], *, grounded: bool) -> None:
        """Take the means of what was seen in a step; `grounded`: whether next tokens count beside futures.

        Raises:
            InputError: if the model is collapsing.
        """
        latest = self.now.new_tensor([figures[name] for name in WATCHED])
        if not latest[1] > 0:
            return  # no row had two futures
        self.steps += 1
        steps = int(self.steps)
        if steps <= MEMORY:
            self.began += (latest - self.began) / steps
        self.now += (latest - self.now) / min(steps, MEMORY)
        if steps >= MEMORY:
            self._judge(grounded=grounded)

    def _judge(self, *, grounded: bool) -> None:
        (*now, off), (*began, first) = _spreads(self.now), _spreads(self.began)
        for name, spread, at_first in zip(SEEN, now, began, strict=True):
            least = LEAST_SPREAD if grounded and name == SEEN[0] else max(LEAST_SPREAD, LEAST_LEFT * at_first)
            if not spread >= least:
                raise InputError(
                    f"the model is collapsing: the {name} of different patients differ by {spread:.1%} of their size, "
                    f"and by {at_first:.1%} when futures began to count. {MEND}"
                )
        if not off <= max(WORSE * first, WORSE):
            raise InputError(
                f"the model is collapsing: futures are foreseen {off:.1f} times as badly as by their mean, and "
                f"{first:.1f} times when they began to count. {MEND}"
            )


def _spreads(figures: Tensor) -> tuple[float, float, float]:
    """Of states and of futures; and the error over the variance."""
    states, state_size, futures, future_size, error, variance = figures.tolist()
    return (states / state_size) ** 0.5, (futures / future_size) ** 0.5, error / max(variance, 1e-12)
