"""What objectives share that learn something beside next tokens: all that next-token prediction knows already."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sequela.model.decoder import Decoder
from sequela.tokens.corpus import Corpus
from sequela.training.objectives.next_token import NextToken
from sequela.training.objectives.objective import Group, Setup, Validation


class Grounded(nn.Module):
    """An objective around next-token prediction; it adds a `name`, `collate`, `forward` and `after_step`."""

    unit = NextToken.unit
    pure = True

    def __init__(self, decoder: Decoder, setup: Setup | None = None):
        super().__init__()
        self.setup = setup or Setup()
        self.next_token = NextToken(decoder, self.setup)

    @property
    def decoder(self) -> Decoder:
        """The model that the run is for."""
        return self.next_token.decoder

    @property
    def device(self) -> torch.device:
        """Of the weights."""
        return self.decoder.embedding.weight.device

    def random(self, row: np.ndarray) -> np.random.Generator:
        """For the windows `row`: it does not matter when, where and how often they are collated."""
        digest = hashlib.sha256(np.asarray(row, np.int64).tobytes()).digest()
        return np.random.default_rng([self.setup.settings.seed, *digest[:8]])

    def groups_with(self, name: str, modules: list[nn.Module], rate: float) -> list[Group]:
        """The decoder's weights; and those of `modules`, at `rate` times the rate of the run."""
        rest = [weight for module in modules for weight in module.parameters()]
        return [*self.next_token.groups(), Group(name, rest, rate=rate)]

    def flops(self, lengths: np.ndarray) -> int:
        """Of next tokens."""
        return self.next_token.flops(lengths)

    def shown(self, loss: float) -> float:
        """Bits for nats."""
        return self.next_token.shown(loss)

    def figures(self, mean: float) -> dict[str, float]:
        """Those of next tokens."""
        return self.next_token.figures(mean)

    def validate(self, corpus: Corpus, patients: np.ndarray | None = None) -> Validation | None:
        """As next tokens do."""
        return self.next_token.validate(corpus, patients)

    def compared(self, corpus: Corpus, patients: np.ndarray) -> dict | None:
        """As next tokens do."""
        return self.next_token.compared(corpus, patients)

    def take_over(self, folder: Path) -> None:
        """There is nothing beside the decoder."""

    def save(self, folder: Path) -> None:
        """Write the decoder's checkpoint."""
        self.next_token.save(folder)
