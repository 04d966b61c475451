"""Interventions, such as medications and procedures: what is done to a patient within a window of time.

A predictor may be given them. Which ones they are is told by kinds of events or by how codes begin.

Shape letters: V vocabulary, Q windows of time, C hidden width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from sequela.errors import InputError, nearest
from sequela.model.decoder import Decoder
from sequela.tokens.ragged import Ragged
from sequela.tokens.tokenizer import Tokenizer
from sequela.tokens.vocabulary import SPECIAL
from sequela.training.objectives.target import normalized


def action_tokens(tokenizer: Tokenizer, names: tuple[str, ...]) -> np.ndarray:
    """Tokens of these kinds of events, every part of their codes among them; or that begin with these words, bool [V].

    Raises:
        InputError: for a name that fits no token.
    """
    types, tokens = tokenizer.types, np.array(tokenizer.vocabulary.tokens)
    kinds = {} if types is None else {name: types.token == kind for kind, name in enumerate(types.names)}
    chosen, event = np.zeros(len(tokens), bool), tokenizer.minutes_V == 0
    event[: len(SPECIAL)] = False
    for name in names:
        fitting = event & (kinds[name] if name in kinds else np.char.startswith(tokens, name))
        if not name or not fitting.any():
            known = [kind for kind, those in kinds.items() if (those & event).any()]
            raise InputError(
                f"`actions` names {name!r}, which is no kind of event in these records, nor does a code begin with "
                f"it{nearest(name, known)}: choose among {', '.join(known)}, or give the beginning of codes."
            )
        chosen |= fitting
    return chosen


@dataclass(frozen=True)
class ActionsBatch:
    """What was done within Q windows.

    Attributes:
        tokens: int64, the tokens of interventions; window: int64, in which window each is.
        given: bool [Q], in training, which windows are foreseen with knowledge of it.
    """

    tokens: Tensor
    window: Tensor
    given: Tensor

    @staticmethod
    def of(done: Ragged, given: np.ndarray, device: torch.device) -> ActionsBatch:
        """Of ragged tokens [Q]; `given` as above."""
        window = np.repeat(np.arange(len(done)), done.lengths)
        arrays = done.flat.astype(np.int64), window, given
        return ActionsBatch(*(torch.from_numpy(x).to(device) for x in arrays))


class Actions(nn.Module):
    """From what is done to vectors that enter a predictor.

    Where it is known that nothing is done, a bias alone; where nothing is known, 0: a predictor without knowledge of
    actions is what it would be without this.
    """

    def __init__(self, width: int):
        super().__init__()
        self.projection = nn.Linear(width, width)

    def forward(self, batch: ActionsBatch, decoder: Decoder, given: Tensor) -> Tensor:
        """Of windows, [Q, C]; `given` bool [Q]. Embeddings of the decoder are read and not trained."""
        embedded = decoder.embedding.weight.detach()[batch.tokens].float()
        sums = embedded.new_zeros(len(given), embedded.shape[1]).index_add_(0, batch.window, embedded)
        counts = torch.bincount(batch.window, minlength=len(given)).clamp_min(1)
        mean = normalized(sums / counts[:, None])
        return torch.where(given[:, None], self.projection(mean), 0.0)
