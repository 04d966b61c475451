"""The tokenizer of a language model, from the files in its folder: those of `transformers`, read without it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from sequela.errors import InputError
from sequela.files import plain_errors

WHOLE, ABOUT, WORDS, MERGES, ADDED = (
    "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "added_tokens.json",
)  # fmt: skip
QWEN = ("Qwen2Tokenizer", "Qwen2TokenizerFast")
# How Qwen2 and Qwen3 cut text into words (arXiv 2407.10671): contractions, words, single digits, signs, line ends
QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
ENDLESS = 10**9  # a longest text of so many tokens or more is how `transformers` says that there is none


@dataclass(frozen=True)
class TokenizerFiles:
    """What makes a tokenizer.

    Attributes:
        whole: its `tokenizer.json`.
        about: its `tokenizer_config.json`; None if there is none.
    """

    whole: str
    about: str | None

    @staticmethod
    def kept_in(folder: Path) -> bool:
        """Whether a folder has files of a tokenizer."""
        return any((Path(folder) / name).exists() for name in (WHOLE, ABOUT, WORDS, "tokenizer.model"))

    @staticmethod
    @plain_errors()
    def load(folder: Path) -> TokenizerFiles:
        """From `tokenizer.json`, or of a Qwen model from `vocab.json` and `merges.txt`.

        Raises:
            InputError: if neither is there, one is damaged, or the package `tokenizers` is missing.
        """
        folder = Path(folder)
        about = (folder / ABOUT).read_text(encoding="utf-8") if (folder / ABOUT).exists() else None
        try:
            if (folder / WHOLE).exists():
                whole = (folder / WHOLE).read_text(encoding="utf-8")
                made = library().Tokenizer.from_str(whole)
            else:
                made = _of_qwen(folder, json.loads(about or "{}"))
            made.no_padding()
            made.no_truncation()
            return TokenizerFiles(made.to_str(), about)
        except (InputError, OSError):
            raise
        except Exception as error:  # the library raises nothing more special
            raise InputError(f"the tokenizer in {folder} is damaged ({error}): copy its files again.") from error

    def save(self, folder: Path) -> None:
        """Write the files."""
        (folder / WHOLE).write_text(self.whole, encoding="utf-8")
        if self.about is not None:
            (folder / ABOUT).write_text(self.about, encoding="utf-8")

    @property
    def longest(self) -> int | None:
        """Tokens of the longest text that the model was trained on; None where the files do not tell."""
        known = json.loads(self.about or "{}").get("model_max_length")
        return int(known) if isinstance(known, int | float) and 0 < known < ENDLESS else None


def library() -> Any:
    """The package `tokenizers`.

    Raises:
        InputError: if it is not installed.
    """
    try:
        return import_module("tokenizers")
    except ImportError:
        raise InputError("text needs the package tokenizers: `pip install 'sequela[text]'`.") from None


def _of_qwen(folder: Path, about: dict) -> Any:
    """The byte-level BPE of Qwen2 and Qwen3, with the tokens that were added to it."""
    there = (folder / WORDS).exists() and (folder / MERGES).exists()
    if not there or about.get("tokenizer_class") not in QWEN:
        raise InputError(
            f"{folder} has no {WHOLE}, so text cannot be read as its model does: copy that file there too; of an older "
            "model, `transformers` writes it (AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER))."
        )
    parts = library()
    pieces = parts.pre_tokenizers
    made = parts.Tokenizer(parts.models.BPE.from_file(str(folder / WORDS), str(folder / MERGES)))
    made.normalizer = parts.normalizers.NFC()
    words = pieces.Split(parts.Regex(QWEN_WORDS), behavior="isolated")
    made.pre_tokenizer = pieces.Sequence([words, pieces.ByteLevel(add_prefix_space=False, use_regex=False)])
    made.decoder = parts.decoders.ByteLevel()
    for number, (content, traits) in sorted(_added(folder, about).items()):
        if made.token_to_id(content) is None:
            made.add_tokens([parts.AddedToken(content, **traits)])
        if made.token_to_id(content) != number:
            raise InputError(
                f"{folder}: the added token {content!r} has the number {number}, which does not follow on {WORDS}: "
                f"copy the files of one model, or its {WHOLE}."
            )
    return made


def _added(folder: Path, about: dict) -> dict[int, tuple[str, dict[str, bool]]]:
    """The tokens added to a vocabulary, by number, and how each is matched."""
    kinds = ("lstrip", "rstrip", "single_word", "normalized", "special")
    path = folder / ADDED
    plain = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    found = {int(number): (content, {"special": True, "normalized": False}) for content, number in plain.items()}
    for number, token in about.get("added_tokens_decoder", {}).items():
        found[int(number)] = (token["content"], {kind: bool(token[kind]) for kind in kinds if kind in token})
    return found
