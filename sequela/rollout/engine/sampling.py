"""Randomness as an argument: uniform numbers from (seed, step), tokens from (mass, uniform)."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    Attributes:
        temperature: 1 samples from the model as it is.
        greedy: always the likeliest token.
        rows: about how many rollouts are computed at once, in each process.
        stratified: the first tokens of a prompt's rollouts are spread evenly (see `openings`). Each rollout alone is a
            fair sample, so means over rollouts stay unbiased and vary less; but the rollouts of one prompt are no
            longer independent, on which some uses of samples rely.
    """

    temperature: float = 1.0
    greedy: bool = False
    rows: int = 128
    stratified: bool = False


def mixed(x: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """The output function of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014) on int64, which wraps as uint64 does."""
    x = (x ^ _shifted(x, 30)) * _MIX_1
    x = (x ^ _shifted(x, 27)) * _MIX_2
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Logical shift to the right; torch's own keeps the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def keys(seed: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """One number per prompt, int64 [P], from the run's seed and two integers, int64 [P], that identify the prompt."""
    state = torch.full((len(first),), seed, dtype=torch.int64)
    for part in (torch.tensor(first), torch.tensor(second)):
        state = mixed(state * _GAMMA + part)
    return state.numpy()


def seeds(key: Int[Tensor, "R"], number: Int[Tensor, "R"]) -> Int[Tensor, "R"]:
    """One seed per rollout, from the key of its prompt (see `keys`) and its own number."""
    return mixed(key * _GAMMA + number)


def uniform(seeds: Int[Tensor, "R"], step: Int[Tensor, "R"]) -> Float[Tensor, "R"]:
    """Number `step` of each seed's stream, in [0, 1), a multiple of 2**-23."""
    return _unit(mixed(seeds + (step + 1) * _GAMMA))


def openings(key: Int[Tensor, "R"], number: Int[Tensor, "R"]) -> Float[Tensor, "R"]:
    """Uniform numbers in [0, 1) for the first tokens of rollouts, spread evenly over those of one prompt.

    frac(shift + (number // 2 + 1) x 0.618...): the golden-ratio sequence (Kronecker's), whose beginnings of any length
    are even, with a random shift for the even numbers of a key and another for the odd ones. So a rollout still depends
    on the key and its own number alone, is uniform over the keys, and the two halves by parity are independent.

    >>> one = torch.zeros(4, dtype=torch.int64)
    >>> (openings(one, 2 * torch.arange(4)).double().diff() % 1).round(decimals=3).tolist()
    [0.618, 0.618, 0.618]
    """
    shift = mixed(mixed(key * _GAMMA) + (number & 1) + _MIX_1)
    return _unit(shift + (number // 2 + 1) * _GAMMA)


def _unit(x: Tensor) -> Tensor:
    """int64 as a fraction of 2**64, in [0, 1), a multiple of 2**-23."""
    return _shifted(x, 41).float() * 2.0**-23


def sample(mass: Float[Tensor, "R V"], uniform: Float[Tensor, "R"]) -> Int[Tensor, "R"]:
    """The token in whose stretch of the cumulative mass each uniform number falls; the mass need not sum to 1.

    A multiple of 2**-23 below 1, times the total, stays below the total in float32: no token without mass is drawn.
    """
    cumulative = mass.cumsum(-1)
    return torch.searchsorted(cumulative, uniform[:, None] * cumulative[:, -1:], right=True)[:, 0]
