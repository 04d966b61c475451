"""The finite list of tokens, and the file that keeps it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from sequela.errors import InputError
from sequela.files import plain_errors

PAD, BOS = 0, 1
SPECIAL = ("PAD", "BOS")
FILE = "vocabulary.json"


@dataclass(frozen=True)
class Vocabulary:
    """Token names in the order of their ids; the hash identifies the vocabulary in corpora and checkpoints."""

    tokens: tuple[str, ...]

    @cached_property
    def index(self) -> dict[str, int]:
        """Name -> id."""
        return {token: i for i, token in enumerate(self.tokens)}

    @cached_property
    def hash(self) -> str:
        """First 16 hex digits of the SHA-256 of the token list."""
        return hashlib.sha256(json.dumps(self.tokens).encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.tokens)

    def matching(self, prefix: str) -> np.ndarray:
        """Ids of all tokens whose name starts with `prefix`."""
        return np.array([i for i, token in enumerate(self.tokens) if token.startswith(prefix)], np.int64)


def write_vocabulary(folder: Path, kind: str, vocabulary: Vocabulary, body: Mapping[str, object]) -> None:
    """Write `vocabulary.json`: the kind of tokenizer, whatever it keeps in `body`, the tokens, and a checksum."""
    whole = {"kind": kind, "hash": vocabulary.hash, **body, "tokens": vocabulary.tokens}
    # One line per entry: json's own indentation is many times slower.
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in whole.items()]
    lines.append(f'"checksum": "{_checksum(lines)}"')
    (Path(folder) / FILE).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


@plain_errors()
def read_vocabulary(folder: Path) -> dict:
    """Read what `write_vocabulary` wrote, without the checksum. Files of version 0.1 have no "kind".

    Raises:
        InputError: if the file is missing, damaged or edited.
    """
    path = Path(folder) / FILE
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        checksum = body.pop("checksum", None)
        lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in body.items()]
        intact = Vocabulary(tuple(body["tokens"])).hash == body["hash"] and _checksum(lines) == checksum
    except FileNotFoundError:
        raise InputError(
            f"{path} is missing: name a folder made by `sequela tokenize` or `sequela train`, or a language model's "
            "with its tokenizer.json."
        ) from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}): make the folder again.") from error
    if not intact:
        raise InputError(f"{path} was edited: it no longer matches its checksum; make the folder again.")
    return body


def _checksum(lines: list[str]) -> str:
    """The SHA-256 of everything in the file but the checksum itself, as `json.dumps` would write it."""
    return hashlib.sha256(("{" + ", ".join(lines) + "}").encode()).hexdigest()
