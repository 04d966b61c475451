"""In which numbers a run computes: fp32, or bf16 for the matrix products."""

from contextlib import AbstractContextManager, nullcontext

import torch

from sequela.errors import InputError

LEAST_WIDTH = 256
"""Below it a run takes minutes, and in fp32 what comes out hardly depends on the processor."""


def choose(asked: str, device: torch.device | str, width: int) -> str:
    """bf16 or fp32. "auto" is bf16 where the processor multiplies it natively and, on a CPU, the model is not small.

    It is a rule and no measurement, so that a run that is taken up again chooses as before.

    Raises:
        InputError: bf16 is asked for where the processor has no bf16 products: they would take many times as long.
    """
    if asked == "fp32" or (asked == "auto" and _on_cpu(device) and width < LEAST_WIDTH):
        return "fp32"
    if has_bf16(device):
        return "bf16"
    if asked == "bf16":
        raise InputError("This processor has no bf16 matrix products: set `precision` to fp32 or auto.")
    return "fp32"


def has_bf16(device: torch.device | str) -> bool:
    """Whether the processor multiplies matrices of bf16 natively."""
    if _on_cpu(device):
        able = torch.cpu.get_capabilities()
        return bool(able.get("avx512_bf16") or able.get("amx_bf16") or able.get("bf16"))
    return torch.cuda.is_bf16_supported(including_emulation=False)


def computed_in(precision: str, device: torch.device | str) -> AbstractContextManager:
    """Around a forward pass: products and attention in bf16, norms, sums and the stream of the blocks in fp32."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, torch.bfloat16)


def _on_cpu(device: torch.device | str) -> bool:
    return torch.device(device).type == "cpu"
