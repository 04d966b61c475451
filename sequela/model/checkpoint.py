"""Checkpoint folders, in a format shared with `transformers`: each loads those of the other.

A folder holds `config.json`, `model.safetensors`, and for medical-event models `vocabulary.json`. Pickles are never
read.
"""

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sequela.errors import InputError
from sequela.files import check_readable
from sequela.model.config import ModelConfig
from sequela.model.decoder import Decoder

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
EMBEDDING = "model.embed_tokens.weight"
PARTS = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
}
NAMES = {
    "norm_1": "input_layernorm",
    "norm_q": "self_attn.q_norm",
    "norm_k": "self_attn.k_norm",
    "out": "self_attn.o_proj",
    "norm_2": "post_attention_layernorm",
    "down": "mlp.down_proj",
}


def save(model: Decoder, folder: Path) -> None:
    """Write `config.json` and `model.safetensors`, with tensors named as in `transformers`."""
    model.config.save(folder)
    save_file(_to_transformers(model), folder / WEIGHTS, metadata={"format": "pt"})


def load(folder: str | Path, device: str = "cpu") -> Decoder:
    """A decoder with the weights of `folder`, in evaluation mode.

    Raises InputError if a file is missing, truncated, or does not fit the configuration.
    """
    folder = Path(folder)
    config = ModelConfig.load(folder)
    stored = _read(folder)
    with torch.device("meta"):
        model = Decoder(config)
    try:
        weights = _from_transformers(stored, model)
    except KeyError as error:
        raise InputError(
            f"{folder / WEIGHTS} lacks the tensor {error}: it does not belong to the config.json beside it."
        ) from error
    wrong = [name for name, w in model.named_parameters() if weights[name].shape != w.shape]
    if wrong:
        raise InputError(
            f"{folder / WEIGHTS}: {wrong[0]} has shape {tuple(weights[wrong[0]].shape)}, which does not fit "
            f"{folder / 'config.json'}: the two files are of different models."
        )
    model.load_state_dict({name: w.float() for name, w in weights.items()}, assign=True, strict=False)
    model.tie()
    return model.to(device).eval()


def weights_hash(folder: str | Path) -> str:
    """A hash of the weights in `folder`: the same for copies of a model, another for any other model."""
    digest = hashlib.sha256()
    for path in sorted(Path(folder).glob("*.safetensors")):
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _read(folder: Path) -> dict[str, Tensor]:
    index = folder / INDEX
    files = [WEIGHTS]
    if index.exists():
        files = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    stored: dict[str, Tensor] = {}
    for name in files:
        path = folder / name
        if not path.exists():
            raise InputError(
                f"{path} is missing: only safetensors weights are read, never pickles (.bin, .pt)."
            )
        check_readable(path)
        try:
            stored.update(load_file(path))
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"{path} is not a whole safetensors file ({error}): copy or train it again."
            ) from error
    wrapper = next((name.removesuffix(EMBEDDING) for name in stored if name.endswith(f".{EMBEDDING}")), "")
    return {name.removeprefix(wrapper): weight for name, weight in stored.items()}


def _theirs(name: str) -> list[str]:
    """The names that `transformers` gives to a tensor of ours; several if ours is a concatenation along rows.

    >>> _theirs("blocks.0.qkv.bias")[0], _theirs("norm.weight")
    ('model.layers.0.self_attn.q_proj.bias', ['model.norm.weight'])
    """
    if not name.startswith("blocks."):
        whole = {"embedding.weight": EMBEDDING, "head.weight": "lm_head.weight"}
        return [whole.get(name, f"model.{name}")]
    _, layer, part, kind = name.split(".")
    return [f"model.layers.{layer}.{their}.{kind}" for their in PARTS.get(part, (NAMES.get(part),))]


def _from_transformers(stored: dict[str, Tensor], model: Decoder) -> dict[str, Tensor]:
    return {
        name: torch.cat([stored[their] for their in _theirs(name)]) for name, _ in model.named_parameters()
    }


def _to_transformers(model: Decoder) -> dict[str, Tensor]:
    config = model.config
    heads = [n * config.head_dim for n in (config.heads, config.kv_heads, config.kv_heads)]
    out: dict[str, Tensor] = {}
    for name, weight in model.named_parameters():
        theirs = _theirs(name)
        sizes = {1: [len(weight)], 2: [config.intermediate_size] * 2, 3: heads}[len(theirs)]
        for their, part in zip(theirs, weight.detach().cpu().split(sizes), strict=True):
            out[their] = part.contiguous().clone()
    return out
