"""State tokens: what a model knows of a patient at a time, read without a trace.

A state token stands behind the last event before a time. It sees every token before it, and no token sees it: all else
that the model computes stays the same. Its hidden state is the state. It is no token of the vocabulary: its embedding
tells how long ago that event was.

A decoder that was trained without them, and stays as it is, has to know what such a token asks. Tokens of time that
passes ask it what comes then, so there state tokens are like those.

Shape letters: S states, C hidden width.
"""

# No `from __future__ import annotations`: the shape checks of the tests read the annotations.
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sequela.errors import InputError
from sequela.model.decoder import Soft

FILE = "states.safetensors"
HOUR, YEAR = 60, 525_960  # minutes
EDGES = np.geomspace(HOUR, 10 * YEAR, 15)
"""Minutes since the last event from which on the next class begins."""


def idle_class(minutes_S: np.ndarray) -> np.ndarray:
    """The class of a time since the last event, int64 [S]: 0 below an hour, 15 from ten years on.

    >>> idle_class(np.array([0, 60, 24 * 60, 10**8])).tolist()
    [0, 1, 4, 15]
    """
    return np.searchsorted(EDGES, minutes_S, side="right")


class StateTokens(nn.Module):
    """The embeddings of state tokens, by class of the time since the last event."""

    def __init__(self, width: int):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(len(EDGES) + 1, width))

    def initialize(self, generator: torch.Generator) -> "StateTokens":
        """Small normal weights, as embeddings have."""
        nn.init.normal_(self.table, std=0.02, generator=generator)
        return self

    def like_time(self, embedding: Float[Tensor, "V C"], minutes: np.ndarray, counts: np.ndarray) -> "StateTokens":
        """Each like the tokens of the times that may pass in all where so much did: their mean embedding.

        Args:
            minutes: int64 [V], for how long a token lets time pass; where none does, each is like all tokens.
            counts: int64 [V], how often a token occurs.
        """
        passing = minutes > 0 if (counts * minutes).any() else np.ones(len(minutes), bool)
        longest = minutes[passing & (counts > 0)].max(initial=0)
        least = np.minimum([0, *EDGES], longest)
        weight = torch.from_numpy(counts * (passing & (minutes >= least[:, None]))).to(embedding)
        with torch.no_grad():
            self.table.copy_(weight / weight.sum(1, keepdim=True) @ embedding)
        return self

    def soft(self, index: Int[Tensor, " S"], idle: Int[Tensor, " S"]) -> Soft:
        """State tokens at these places of the flattened ids, by class of idle time."""
        return Soft(index, self.table[idle])

    def read(self, hidden: Float[Tensor, "B T C"], index: Int[Tensor, " S"]) -> Float[Tensor, "S C"]:
        """The states: hidden states at their places, fp32."""
        return hidden.flatten(0, 1)[index].float()

    def save(self, folder: Path) -> None:
        """Write the table beside the model's checkpoint."""
        save_file({"table": self.table.detach().cpu().contiguous()}, folder / FILE)

    @staticmethod
    def kept_in(folder: Path) -> bool:
        """Whether a checkpoint has state tokens."""
        return (folder / FILE).exists()

    @staticmethod
    def load(folder: Path) -> "StateTokens":
        """The state tokens of a checkpoint.

        Raises:
            InputError: if the model has none, or the file is damaged.
        """
        path = folder / FILE
        if not path.exists():
            raise InputError(
                f"{folder} has no state tokens: train it with the objective `state_jepa`, or take the last or the mean "
                "hidden state of each history."
            )
        try:
            table = load_file(path)["table"]
        except (SafetensorError, OSError, KeyError) as error:
            raise InputError(f"{path} is damaged ({error}): copy or train the checkpoint again.") from error
        tokens = StateTokens(table.shape[1])
        tokens.table.data = table.float()
        return tokens.eval()
