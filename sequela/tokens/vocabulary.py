"""The finite list of tokens, and what kind of thing each one is."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

import numpy as np

PAD, BOS = 0, 1
SPECIAL = ("PAD", "BOS")


@dataclass(frozen=True)
class Vocabulary:
    """Token names in order of their integers; the hash is the vocabulary's identity in corpora and checkpoints."""

    tokens: tuple[str, ...]

    @cached_property
    def index(self) -> dict[str, int]:
        """Name -> integer."""
        return {token: i for i, token in enumerate(self.tokens)}

    @cached_property
    def hash(self) -> str:
        """First 16 hex digits of the SHA-256 of the token list."""
        return hashlib.sha256(json.dumps(self.tokens).encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.tokens)

    def matching(self, prefix: str) -> np.ndarray:
        """Integers of all tokens whose name starts with `prefix`."""
        return np.array([i for i, token in enumerate(self.tokens) if token.startswith(prefix)], np.int64)
