"""Randomness as an argument: uniform numbers from (seed, step), tokens from (logits, uniform)."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)


def mixed(x: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """The output function of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014) on int64, which wraps as uint64 does."""
    x = (x ^ _shifted(x, 30)) * _MIX_1
    x = (x ^ _shifted(x, 27)) * _MIX_2
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Logical shift to the right; torch's own keeps the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def seeds(seed: int, patients: np.ndarray, times: np.ndarray, n: int) -> Int[Tensor, "P n"]:
    """One seed per rollout, from the run's seed, the patient [P], the prediction time [P] and the rollout's number."""
    state = torch.full((len(patients), n), seed, dtype=torch.int64)
    for part in (torch.tensor(patients)[:, None], torch.tensor(times)[:, None], torch.arange(n)):
        state = mixed(state * _GAMMA + part)
    return state


def uniform(seeds: Int[Tensor, "R"], step: int) -> Float[Tensor, "R"]:
    """Number `step` of each seed's stream, in [0, 1), a multiple of 2**-23."""
    offset = ((step + 1) * _GAMMA + (1 << 63)) % (1 << 64) - (1 << 63)  # wrapped to int64
    return _shifted(mixed(seeds + offset), 41).float() * 2.0**-23


def sample(probability: Float[Tensor, "R V"], uniform: Float[Tensor, "R"]) -> Int[Tensor, "R"]:
    """The token in whose stretch of the cumulative distribution each uniform number falls."""
    cumulative = probability.cumsum(-1)
    # A multiple of 2**-23 below 1, times the total, stays below the total in float32: no token without
    # probability is drawn.
    return (cumulative <= uniform[:, None] * cumulative[:, -1:]).sum(-1)
