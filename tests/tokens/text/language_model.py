"""A small language model as Hugging Face folders hold it, with a tokenizer trained here."""

from __future__ import annotations

import json
from pathlib import Path

import tokenizers
import torch
from tokenizers import decoders, pre_tokenizers, trainers

from sequela.model import checkpoint
from sequela.model.config import ModelConfig
from sequela.model.decoder import Decoder
from sequela.tokens.text.bpe import QWEN_WORDS

TEXTS = ["Birth: 1985-03-15\n\n\n[2024-01-05]\nICD10CM//C3490\n\n[age 38, day 5]\nLAB//HB: 1.1, 1.23\nMEDS_DEATH"] * 3
END = "<|endoftext|>"


def words(begin: str = "") -> tokenizers.Tokenizer:
    """A byte-level BPE cut like Qwen's; with `begin`, that token begins every text, as in Llama."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.normalizer = tokenizers.normalizers.NFC()
    split = pre_tokenizers.Split(tokenizers.Regex(QWEN_WORDS), behavior="isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    made.train_from_iterator(TEXTS, trainer)
    made.add_special_tokens([END, *[begin] * bool(begin)])
    if begin:
        number = made.token_to_id(begin)
        made.post_processor = tokenizers.processors.TemplateProcessing(
            single=f"{begin} $A", special_tokens=[(begin, number)]
        )
    return made


def language_model(folder: Path, family: str = "qwen3", *, context: int = 512, longest: int | None = None) -> Path:
    """Random weights, larger than a start has them, so that what is read shows."""
    folder.mkdir()
    made = words("<|begin_of_text|>" if family == "llama" else "")
    made.save(str(folder / "tokenizer.json"))
    about = {"tokenizer_class": "Qwen2Tokenizer" if family == "qwen3" else "PreTrainedTokenizerFast", "eos_token": END}
    about |= {"pad_token": END} | ({} if longest is None else {"model_max_length": longest})
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    rows = made.get_vocab_size() + 5  # padded, as those of Qwen are
    config = ModelConfig(
        rows, family=family, hidden_size=32, layers=2, heads=4, kv_heads=2, head_dim=8, intermediate_size=48,
        context=context, tied_embeddings=family == "qwen3", rope_theta=1e4, special=(None, None, None),
    )  # fmt: skip
    decoder, random = Decoder(config), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, weight in decoder.named_parameters():
            around = 1.0 if "norm" in name else 0.0
            weight.copy_(around + 0.3 * torch.randn(weight.shape, generator=random))
    checkpoint.save(decoder, folder)
    body = json.loads((folder / "config.json").read_text())
    ours = {name for name in body if name.startswith("sequela_")}
    (folder / "config.json").write_text(json.dumps({name: body[name] for name in body.keys() - ours}))
    return folder


def as_published(folder: Path, source: Path) -> Path:
    """The same model as SMB-Structure's checkpoints are stored: wrapped, and with the files of a slow tokenizer."""
    from safetensors.torch import load_file, save_file

    folder.mkdir()
    model = json.loads((source / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, model["merges"])]), encoding="utf-8")
    (folder / "added_tokens.json").write_text(json.dumps({END: len(model["vocab"])}))
    about = {"tokenizer_class": "Qwen2Tokenizer", "model_max_length": 3300, "eos_token": END}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    body = json.loads((source / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"model_type": "smb_unstructured", "text_config": body}))
    stored = load_file(source / "model.safetensors")
    save_file({f"language_model.{name}": weight for name, weight in stored.items()}, folder / "model.safetensors")
    return folder
