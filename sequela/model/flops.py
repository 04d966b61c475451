"""FLOPs of a decoder, counted exactly: every matrix product, attention included, two a multiply-add.

Norms, biases, activations, rotations and the embedding lookup are left out, as is usual for model FLOPs utilisation
(PaLM, arXiv 2204.02311, appendix B), and so is what a kernel computes twice or masks out afterwards.
"""

from __future__ import annotations

import numpy as np

from sequela.model.config import ModelConfig


def forward(config: ModelConfig, lengths: np.ndarray) -> int:
    """FLOPs of one forward pass over windows of the given lengths [W], all tokens but each window's first predicted."""
    lengths = np.asarray(lengths, np.int64)
    tokens = int(lengths.sum())
    pairs = int((lengths * (lengths + 1) // 2).sum())
    return products(config, tokens, pairs, predicted=tokens - len(lengths))


def train(config: ModelConfig, lengths: np.ndarray) -> int:
    """FLOPs of one forward and one backward pass; backward is twice forward: the gradients of both factors."""
    return 3 * forward(config, lengths)


def generate(config: ModelConfig, prompt: int, new: int, rollouts: int = 1) -> int:
    """FLOPs of `rollouts` continuations by `new` tokens each of a history of `prompt` tokens, read once and cached."""
    read = products(config, prompt, prompt * (prompt + 1) // 2, predicted=1)
    fed = new - 1  # the last token is drawn, not read
    pairs = fed * prompt + fed * (fed + 1) // 2
    return read + rollouts * products(config, fed, pairs, predicted=fed)


def products(config: ModelConfig, tokens: int, pairs: int, predicted: int) -> int:
    """FLOPs of the products of one forward pass.

    Args:
        tokens: how many pass the blocks.
        pairs: of a token and one that it sees, itself included: l (l + 1) / 2 in a window of l tokens.
        predicted: how many hidden states are projected to the vocabulary.
    """
    width, inner = config.hidden_size, config.heads * config.head_dim
    projections = 2 * width * (inner + config.kv_heads * config.head_dim)
    weights = projections + 3 * width * config.intermediate_size
    scores_and_sums = 2 * inner
    blocks = config.layers * (tokens * weights + pairs * scores_and_sums)
    return 2 * (blocks + predicted * width * config.vocab_size)
