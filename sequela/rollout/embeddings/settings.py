"""How records are read, and hidden states become vectors."""

from __future__ import annotations

from dataclasses import dataclass

from sequela.tokens.text.settings import TextSettings

POOLINGS = ("state", "last", "moment", "mean")
ROW_TOKENS = 4096


@dataclass(frozen=True)
class EmbedSettings(TextSettings):
    """How hidden states become vectors, and how a language model from elsewhere reads records."""

    pooling: str = "auto"
    """state (a state token behind the history), last (the last token), moment (the mean of the last moment), mean (of
    all tokens), or auto: state where the model has state tokens, else last."""
    precision: str = "auto"
    """bf16, fp32, or auto: the faster one on this hardware at this width."""
    row_tokens: int = ROW_TOKENS
    """Tokens per forward pass."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pooling not in ("auto", *POOLINGS):
            raise ValueError(f"pooling must be auto, {', '.join(POOLINGS)}, not {self.pooling!r}")
        if self.row_tokens < 16:
            raise ValueError(f"row_tokens must be 16 or more, not {self.row_tokens}")
