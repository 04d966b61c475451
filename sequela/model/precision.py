"""Precision of a computation: fp32, or bf16 for matrix products."""

from contextlib import AbstractContextManager, nullcontext

import torch

from sequela.errors import InputError

LEAST_WIDTH = 256
"""Smaller models take minutes anyway, and in fp32 their results hardly depend on the processor."""


def choose(setting: str, device: torch.device | str, width: int) -> str:
    """bf16 or fp32. "auto" is bf16 if the processor multiplies it natively and, on a CPU, the model is not small.

    A rule rather than a measurement, so that a resumed run chooses as before.

    Raises:
        InputError: for bf16 on a processor without bf16 products, where it would take many times as long.
    """
    if setting == "fp32" or (setting == "auto" and _on_cpu(device) and width < LEAST_WIDTH):
        return "fp32"
    if has_bf16(device):
        return "bf16"
    if setting == "bf16":
        raise InputError("This processor has no bf16 matrix products: set `precision` to fp32 or auto.")
    return "fp32"


def has_bf16(device: torch.device | str) -> bool:
    """Whether the processor multiplies matrices of bf16 natively."""
    if _on_cpu(device):
        able = torch.cpu.get_capabilities()
        return bool(able.get("avx512_bf16") or able.get("amx_bf16") or able.get("bf16"))
    return torch.cuda.is_bf16_supported(including_emulation=False)


def computed_in(precision: str, device: torch.device | str) -> AbstractContextManager:
    """For a forward pass: products and attention in bf16; norms, sums, and the residual stream in fp32."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, torch.bfloat16)


def _on_cpu(device: torch.device | str) -> bool:
    return torch.device(device).type == "cpu"
