"""The decoder: token ids to hidden states to logits.

Shape letters: B rows, T positions, C hidden width, V vocabulary, N soft tokens.
"""

# No `from __future__ import annotations`: the shape checks of the tests read the annotations.
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sequela.errors import InputError
from sequela.model.attention import Attention, Causal
from sequela.model.config import ModelConfig
from sequela.model.layers import Block, RMSNorm, computed_in, rotary


@dataclass(frozen=True, eq=False)
class Soft:
    """Vectors that enter the decoder in place of token embeddings, such as an encoder's.

    Attributes:
        index: int64 [N], where in the flattened ids; the ids there are ignored. No place occurs twice.
        vectors: [N, C].
    """

    index: Int[Tensor, " N"]
    vectors: Float[Tensor, "N C"]


class Decoder(nn.Module):
    """Qwen2, Qwen3, or Llama, by configuration (arXiv 2407.10671, 2505.09388, 2302.13971)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        # Not nn.Embedding itself, whose random weights nobody needs: on the meta device they cost seconds of imports
        zeros = torch.zeros(config.vocab_size, config.hidden_size)
        self.embedding = nn.Embedding.from_pretrained(zeros, freeze=False)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_epsilon)
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.tie()

    def tie(self) -> None:
        """Make embedding and head one matrix if the configuration says so; needed again after weights are replaced."""
        if self.config.tied_embeddings:
            self.head.weight = self.embedding.weight

    def initialize(self, seed: int) -> "Decoder":
        """Normal weights of deviation 0.02, as in Qwen2; weights that write to the stream over sqrt(2 * layers)."""
        random = torch.Generator().manual_seed(seed)
        for name, weight in self.named_parameters():
            if weight.dim() > 1:
                into_stream = name.endswith(("out.weight", "down.weight"))
                scale = (2 * self.config.layers) ** -0.5 if into_stream else 1.0
                nn.init.normal_(weight, std=0.02 * scale, generator=random)
            elif name.endswith("bias"):
                nn.init.zeros_(weight)
        return self

    def compile_blocks(self, backend: str = "inductor") -> None:
        """Fuse what lies between the products of a block. Pays on a GPU, not on a CPU (docs/records/training.md)."""
        for block in self.blocks:
            block.compile(backend=backend, dynamic=False)

    def hidden(
        self,
        ids_BT: Int[Tensor, "B T"],
        positions_BT: Int[Tensor, "B T"] | None = None,
        attention: Attention | None = None,
        soft: Soft | None = None,
    ) -> Float[Tensor, "B T C"]:
        """Final hidden states. Unless given, positions count from 0 in each row and attention is causal.

        Args:
            soft: vectors in place of some embeddings; everything else, such as FLOPs and caches, stays the same.

        Raises:
            InputError: without positions for a model that reads time from them.
        """
        if positions_BT is None:
            if self.config.time == "rotary":
                raise InputError(
                    "This model reads elapsed time from the positions: give them, for each token its place in the row "
                    "plus the hours since the patient's first event."
                )
            positions_BT = torch.arange(ids_BT.shape[1], device=ids_BT.device).expand_as(ids_BT)
        cos, sin = rotary(positions_BT, self.config.head_dim, self.config.rope_theta, self.config.rope_scaling)
        x_BTC = self._embedded(ids_BT, soft)
        cos, sin = (angles.to(computed_in(x_BTC)) for angles in (cos, sin))
        for block in self.blocks:
            x_BTC = block(x_BTC, cos, sin, attention or Causal())
        return self.norm(x_BTC)

    def _embedded(self, ids_BT: Tensor, soft: Soft | None) -> Tensor:
        x_BTC = self.embedding(ids_BT)
        if soft is None:
            return x_BTC
        flat = x_BTC.flatten(0, 1).index_copy(0, soft.index, soft.vectors.to(x_BTC.dtype))
        return flat.view_as(x_BTC)

    def logits(
        self,
        ids_BT: Int[Tensor, "B T"],
        positions_BT: Int[Tensor, "B T"] | None = None,
        attention: Attention | None = None,
        soft: Soft | None = None,
    ) -> Float[Tensor, "B T V"]:
        """Scores of the next token after each position."""
        return self.head(self.hidden(ids_BT, positions_BT, attention, soft))
