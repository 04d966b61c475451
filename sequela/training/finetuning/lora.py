"""Low-rank adapters (LoRA, arXiv 2106.09685) by the package `peft`: few weights that change what a large model does.

Each linear map W of the blocks becomes W + (alpha / rank) B A, and only A and B are trained. Queries, keys and values
have adapters of their own, as in `transformers`, so the decoder's wide products are taken apart first; `merge` puts
the adapters into the weights and the products together again.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from sequela.errors import InputError
from sequela.model.decoder import Decoder
from sequela.model.layers import Halves

WIDE = {"qkv": ("q", "k", "v"), "gate_up": ("gate", "up")}
ADAPTED = r"blocks\.\d+\.(qkv\.(q|k|v)|out|gate_up\.(gate|up)|down)"
NAME = "default"  # of the adapters, in peft


class SideBySide(nn.Module):
    """Several linear maps of one input in place of one wide product."""

    def __init__(self, wide: nn.Linear, names: tuple[str, ...], sizes: list[int]):
        """`sizes`: rows of the wide matrix that each of them takes."""
        super().__init__()
        self.joined, self.names = not isinstance(wide, Halves), names
        biases = [None] * len(sizes) if wide.bias is None else wide.bias.detach().split(sizes)
        for name, weight, bias in zip(names, wide.weight.detach().split(sizes), biases, strict=True):
            self.add_module(name, _linear(weight.clone(), None if bias is None else bias.clone()))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The results one after the other along the last dimension, or as a pair, as the wide product has them."""
        parts = tuple(getattr(self, name)(x) for name in self.names)
        return torch.cat(parts, -1) if self.joined else parts

    def wide(self) -> nn.Linear:
        """One wide product again."""
        parts = [getattr(self, name) for name in self.names]
        weight = torch.cat([part.weight.detach() for part in parts])
        bias = None if parts[0].bias is None else torch.cat([part.bias.detach() for part in parts])
        return _linear(weight, bias, nn.Linear if self.joined else Halves)


def adapt(decoder: Decoder, rank: int, alpha: float, seed: int) -> Decoder:
    """Freeze the decoder and add adapters to all linear maps of its blocks, in place; at first they change nothing.

    Args:
        seed: of the random weights A; B is zero.

    Raises:
        InputError: if the package `peft` is missing.
    """
    peft = _library()
    config = decoder.config
    heads = [n * config.head_dim for n in (config.heads, config.kv_heads, config.kv_heads)]
    sizes = {"qkv": heads, "gate_up": [config.intermediate_size] * 2}
    for block in decoder.blocks:
        for name, parts in WIDE.items():
            block.add_module(name, SideBySide(getattr(block, name), parts, sizes[name]))
    decoder.requires_grad_(False)
    chosen = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=ADAPTED, lora_dropout=0.0, bias="none")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(chosen, decoder, adapter_name=NAME)
    return decoder


def merge(decoder: Decoder) -> Decoder:
    """Put the adapters into the weights, in place, so that a plain decoder remains; one without is left as it is."""
    for block in decoder.blocks:
        for module in list(block.modules()):
            for name, child in list(module.named_children()):
                if hasattr(child, "lora_A"):
                    child.merge()
                    setattr(module, name, child.get_base_layer())
        for name in WIDE:
            if isinstance(apart := getattr(block, name), SideBySide):
                setattr(block, name, apart.wide())
    return decoder


def _linear(weight: Tensor, bias: Tensor | None, kind: type[nn.Linear] = nn.Linear) -> nn.Linear:
    """A linear map with these weights."""
    rows, columns = weight.shape
    made = kind(columns, rows, bias=bias is not None, device="meta")
    made.weight = nn.Parameter(weight)
    if bias is not None:
        made.bias = nn.Parameter(bias)
    return made


def _library() -> Any:
    try:
        return import_module("peft")
    except ImportError:
        raise InputError("`lora_rank` needs the package peft: `pip install 'sequela[lora]'`.") from None
