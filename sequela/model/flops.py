"""FLOPs of a decoder, counted exactly: every matrix product including attention, two per multiply-add.

As is usual for model FLOPs utilization (PaLM, arXiv 2204.02311, appendix B), norms, biases, activations, rotations, and
the embedding lookup do not count, nor does what a kernel recomputes or masks out.
"""

from __future__ import annotations

import numpy as np

from sequela.model.config import ModelConfig


def forward(config: ModelConfig, lengths: np.ndarray) -> int:
    """FLOPs of one forward pass over windows of these lengths [W], predicting all but the first token of each."""
    lengths = np.asarray(lengths, np.int64)
    tokens = int(lengths.sum())
    pairs = int((lengths * (lengths + 1) // 2).sum())
    return products(config, tokens, pairs, predicted=tokens - len(lengths))


def train(config: ModelConfig, lengths: np.ndarray) -> int:
    """FLOPs of one forward and one backward pass, which is twice a forward pass: the gradients of both factors."""
    return 3 * forward(config, lengths)


def generate(config: ModelConfig, prompt: int, new: int, rollouts: int = 1) -> int:
    """FLOPs of `rollouts` continuations of `new` tokens each from a prompt of `prompt` tokens, read once and cached."""
    read = products(config, prompt, prompt * (prompt + 1) // 2, predicted=1)
    fed = new - 1  # the last token is sampled, not read
    pairs = fed * prompt + fed * (fed + 1) // 2
    return read + rollouts * products(config, fed, pairs, predicted=fed)


def products(config: ModelConfig, tokens: int, pairs: int, predicted: int) -> int:
    """FLOPs of the products of one forward pass.

    Args:
        tokens: tokens that pass through the blocks.
        pairs: pairs of a token and one it sees, itself included: l (l + 1) / 2 in a window of l tokens.
        predicted: hidden states projected to the vocabulary.
    """
    width, inner = config.hidden_size, config.heads * config.head_dim
    projections = 2 * width * (inner + config.kv_heads * config.head_dim)
    weights = projections + 3 * width * config.intermediate_size
    scores_and_sums = 2 * inner
    blocks = config.layers * (tokens * weights + pairs * scores_and_sums)
    return 2 * (blocks + predicted * width * config.vocab_size)
