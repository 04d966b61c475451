"""The decoder: token ids to hidden states to logits.

Shape letters: B rows, T positions, C hidden width, V vocabulary.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sequela.errors import InputError
from sequela.model.attention import Attention, Causal
from sequela.model.config import ModelConfig
from sequela.model.layers import Block, RMSNorm, computed_in, rotary


class Decoder(nn.Module):
    """Qwen2, Qwen3 or Llama, by configuration (arXiv 2407.10671, 2505.09388, 2302.13971)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        # Not nn.Embedding itself, whose random weights nobody needs: on the meta device they cost seconds of imports
        nothing = torch.zeros(config.vocab_size, config.hidden_size)
        self.embedding = nn.Embedding.from_pretrained(nothing, freeze=False)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_epsilon)
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tied_embeddings:
            self.head.weight = self.embedding.weight

    def initialize(self, seed: int) -> "Decoder":
        """Normal weights of deviation 0.02, as Qwen2; what writes to the stream is scaled down by sqrt(2 * layers)."""
        random = torch.Generator().manual_seed(seed)
        for name, weight in self.named_parameters():
            if weight.dim() > 1:
                into_stream = name.endswith(("out.weight", "down.weight"))
                scale = (2 * self.config.layers) ** -0.5 if into_stream else 1.0
                nn.init.normal_(weight, std=0.02 * scale, generator=random)
            elif name.endswith("bias"):
                nn.init.zeros_(weight)
        return self

    def hidden(
        self,
        ids_BT: Int[Tensor, "B T"],
        positions_BT: Int[Tensor, "B T"] | None = None,
        attention: Attention | None = None,
    ) -> Float[Tensor, "B T C"]:
        """Final hidden states. Positions count from 0 in each row and attention is causal unless given.

        Raises InputError without positions for a model that reads time from them.
        """
        if positions_BT is None:
            if self.config.time == "rotary":
                raise InputError(
                    "This model reads the time that passed from the positions: give them, for each token its place in "
                    "the row plus the hours since the patient's first event."
                )
            positions_BT = torch.arange(ids_BT.shape[1], device=ids_BT.device).expand_as(ids_BT)
        cos, sin = rotary(positions_BT, self.config.head_dim, self.config.rope_theta)
        x_BTC = self.embedding(ids_BT)
        cos, sin = (angles.to(computed_in(x_BTC)) for angles in (cos, sin))
        for block in self.blocks:
            x_BTC = block(x_BTC, cos, sin, attention or Causal())
        return self.norm(x_BTC)

    def logits(
        self,
        ids_BT: Int[Tensor, "B T"],
        positions_BT: Int[Tensor, "B T"] | None = None,
        attention: Attention | None = None,
    ) -> Float[Tensor, "B T V"]:
        """Scores of the next token after each position."""
        return self.head(self.hidden(ids_BT, positions_BT, attention))
