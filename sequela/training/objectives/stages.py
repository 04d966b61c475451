"""Stages of a run that learns several things: how much each of them counts, and when."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch
from torch import nn

from sequela.errors import nearest

TOKENS = "tokens"
TERMS, PARTS = "*", "+"
PRESETS = {
    "curriculum": (
        {"share": 0.6, TOKENS: 1},
        {"share": 0.05, TOKENS: 1, TERMS: 1, "only_heads": True, "synced": True},
        {"share": 0.35, TOKENS: 0.2, TERMS: 1},
    ),
    "settled": (
        {"share": 0.6, TOKENS: 1},
        {"share": 0.05, TOKENS: 1, TERMS: 1, "only_heads": True, "synced": True},
        {"share": 0.3, TOKENS: 0.2, TERMS: 1},
        {"share": 0.05, TERMS: 1, PARTS: 1, "only_heads": True, "synced": True},
    ),
    "at_once": ({"share": 1, TOKENS: 1, TERMS: 1},),
    "futures_only": ({"share": 1, TERMS: 1},),
}
"""By name; `*` stands for every term, `+` for further parts of terms. SMB-Structure found a curriculum better than both
at once; its weights are not known."""


@dataclass(frozen=True)
class TrainingStage:
    """A part of a run.

    Attributes:
        share: of the tokens.
        weights: of the losses, by name, `tokens` among them; 0 for those that are not there.
        only_heads: whether the losses beside next tokens train only what belongs to them, and not the decoder.
        synced: whether the targets become copies of the decoder at the beginning.
    """

    share: float
    weights: Mapping[str, float] = field(default_factory=dict)
    only_heads: bool = False
    synced: bool = False

    def weight(self, name: str) -> float:
        """Of a loss."""
        return self.weights.get(name, 0.0)

    @property
    def tokens(self) -> float:
        """Weight of next tokens."""
        return self.weight(TOKENS)

    @property
    def frozen(self) -> bool:
        """Whether nothing trains the decoder."""
        return self.only_heads and not self.tokens


def stages_of(given: object, terms: Sequence[str], parts: Sequence[str] = ()) -> tuple[TrainingStage, ...]:
    """The stages of that name; or from tables such as `{share=0.4, tokens=1, futures=0.5}`, in which what is not named
    has weight 0.

    Args:
        terms: names of what can be learned beside next tokens.
        parts: names of further losses of theirs.

    Raises:
        ValueError: for what are no stages.
    """
    tables = PRESETS.get(given, given) if isinstance(given, str) else given
    if not isinstance(tables, Sequence) or isinstance(tables, str) or not tables:
        raise ValueError(
            f"`stages` must be one of {', '.join(PRESETS)}, or tables such as "
            f"[{{share=1.0, tokens=1, {terms[0]}=1}}], not {given!r}"
        )
    stages = tuple(_stage(number, table, terms, parts) for number, table in enumerate(tables, 1))
    whole = sum(stage.share for stage in stages)
    if abs(whole - 1) > 1e-6:
        raise ValueError(f"the shares of `stages` add up to {whole:.6g}: make them add up to 1")
    return stages


def _stage(number: int, table: object, terms: Sequence[str], parts: Sequence[str]) -> TrainingStage:
    where = f"stage {number} of `stages`"
    if not isinstance(table, Mapping):
        raise ValueError(f"{where} is {table!r}: write a table such as {{share=1.0, tokens=1, {terms[0]}=1}}")
    each: dict[str, object] = {}
    for name, value in table.items():
        each |= dict.fromkeys({TERMS: terms, PARTS: parts}.get(name, [name]), value)
    switches = {name: each.pop(name, False) for name in ("only_heads", "synced")}
    for name, value in switches.items():
        if not isinstance(value, bool):
            raise ValueError(f"{where} has {name} = {value!r}: give true or false")
    known = (TOKENS, *terms, *parts)
    for name, value in each.items():
        if name not in ("share", *known):
            listed = ", ".join(("share", *known, *switches))
            raise ValueError(f"{where} has no '{name}'{nearest(name, (*known, *switches))}: there are {listed}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ValueError(f"{where} has {name} = {value!r}: give a number of 0 or more")
    share = each.pop("share", 0)
    if not share:
        raise ValueError(f"{where} has no share: give the share of the run's tokens that it takes, such as share=0.5")
    weights = {name: float(value) for name, value in each.items() if value}
    if not weights:
        raise ValueError(f"{where} has nothing to learn: give one of {', '.join(known)} a weight above 0")
    if switches["only_heads"] and weights.keys() == {TOKENS}:
        heads = ", ".join(known[1:])
        raise ValueError(f"{where} trains only heads, but none counts: give one of {heads} a weight above 0")
    return TrainingStage(float(share), weights, **switches)


class Schedule(nn.Module):
    """In which stage a run is; a checkpoint of the run keeps it."""

    def __init__(self, stages: tuple[TrainingStage, ...]):
        super().__init__()
        self.stages = stages
        self.register_buffer("number", torch.tensor(0))

    @property
    def stage(self) -> TrainingStage:
        """The stage of the next step."""
        return self.stages[int(self.number)]

    @property
    def learned(self) -> frozenset[str]:
        """Names of the losses that count in any stage."""
        return frozenset(name for stage in self.stages for name in stage.weights)

    def advance(self, done: float) -> bool:
        """Go to the stage at this share of the run's tokens; whether one that begins, or was left out, is synced."""
        ends = list(accumulate(stage.share for stage in self.stages))
        number = min(sum(done >= end - 1e-9 for end in ends), len(self.stages) - 1)
        entered = self.stages[int(self.number) + 1 : number + 1]
        self.number.fill_(max(number, int(self.number)))
        return any(stage.synced for stage in entered)

    def late(self, names: Sequence[str], done: float) -> float:
        """How much is over of what follows once one of these losses counts, in [0, 1]."""
        begun = 0.0
        for stage in self.stages:
            if any(stage.weight(name) for name in names):
                break
            begun += stage.share
        return min(1.0, max(0.0, done - begun) / max(1 - begun, 1e-9))
