"""Starting from the weights of a checkpoint rather than from random ones: fine-tuning, and objectives one after the
other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from sequela.errors import InputError
from sequela.model import checkpoint
from sequela.model.config import ModelConfig
from sequela.model.decoder import Decoder
from sequela.tokens.tokenizer import Tokenizer, load
from sequela.training.settings import SIZES, TrainSettings

SHAPED = ("preset", *SIZES)  # settings that a checkpoint leaves no choice about
FAMILY = {"family": "family", "rope_theta": "rope_theta", "tied": "tied_embeddings"}  # settings with a default


@dataclass(frozen=True)
class Start:
    """The checkpoint that a run starts from.

    Attributes:
        config: its shape.
    """

    folder: Path
    config: ModelConfig

    @staticmethod
    def of(folder: Path, tokenizer: Tokenizer) -> Start:
        """The checkpoint in `folder`, for a corpus of this tokenizer.

        Raises:
            InputError: if it is no checkpoint, or reads other tokens than the corpus has.
        """
        folder = Path(folder)
        config = ModelConfig.load(folder)
        known = load(folder).vocabulary
        if known.hash != tokenizer.vocabulary.hash or len(known) > config.vocab_size:
            raise InputError(
                f"{folder} was trained on a vocabulary of {len(known):,} tokens, and the corpus has another one of "
                f"{len(tokenizer.vocabulary):,}: start from a model of this corpus, or tokenize with the vocabulary of "
                "that model."
            )
        if (config.time == "rotary") != tokenizer.positions_from_clock:
            raise InputError(
                f"{folder} tells time in another way than the corpus does: start from a model that was trained on a "
                "corpus of the same scheme."
            )
        return Start(folder, config)

    def checked(self, settings: TrainSettings) -> TrainSettings:
        """The settings with the family of the checkpoint.

        Raises:
            InputError: for a setting that asks for another shape.
        """
        asked = [name for name in SHAPED if getattr(settings, name) is not None]
        family = {setting: getattr(self.config, name) for setting, name in FAMILY.items()}
        asked += [
            name for name, value in family.items()
            if getattr(settings, name) not in (value, getattr(TrainSettings, name))
        ]  # fmt: skip
        if asked:
            raise InputError(
                f"`{asked[0]}` cannot be chosen, because the model has the shape of {self.folder}, which it starts "
                f"from: leave `{asked[0]}` out, or start without a checkpoint."
            )
        return replace(settings, **family)

    @cached_property
    def weights(self) -> str:
        """A hash of the weights."""
        return checkpoint.weights_hash(self.folder)

    def decoder(self, config: ModelConfig) -> Decoder:
        """The decoder with the weights of the checkpoint, to be trained as `config` says."""
        decoder = checkpoint.load(self.folder).train()
        decoder.config = config
        return decoder
