"""Precision of a computation: fp32, or bf16 for matrix products."""

import os
from contextlib import AbstractContextManager, nullcontext

import torch

from sequela.errors import InputError

LEAST_WIDTH = 256
"""Smaller models take minutes anyway, and in fp32 their results hardly depend on the processor."""
ISA_LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""Variables that keep oneDNN, which multiplies, from instructions that the processor has."""
NO_LIMIT = ("", "DEFAULT", "ALL")
LIMITS_WITH_BF16 = ("AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX512_CORE_AMX", "AVX10_1", "AVX10_2")
"""How the values begin that leave it bf16."""


def choose(setting: str, device: torch.device | str, width: int) -> str:
    """bf16 or fp32. "auto" is bf16 if the processor multiplies it natively and, on a CPU, the model is not small.

    A rule rather than a measurement, so that a resumed run chooses as before.

    Raises:
        InputError: see `check`.
    """
    if setting == "auto":
        small = _on_cpu(device) and width < LEAST_WIDTH
        return "bf16" if not small and has_bf16(device) else "fp32"
    check(setting, device)
    return setting


def check(precision: str, device: torch.device | str) -> None:
    """Raises InputError for bf16 on a processor without bf16 products, where it would fail or take many times as
    long."""
    if precision == "bf16" and not has_bf16(device):
        raise InputError("This processor has no bf16 matrix products: set `precision` to fp32 or auto.")


def has_bf16(device: torch.device | str) -> bool:
    """Whether the processor multiplies matrices of bf16 natively, and oneDNN is allowed to."""
    if not _on_cpu(device):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities()
    native = able.get("avx512_bf16") or able.get("amx_bf16") or able.get("bf16")
    limits = [os.environ.get(name, "").upper() for name in ISA_LIMITS]
    allowed = all(limit in NO_LIMIT or limit.startswith(LIMITS_WITH_BF16) for limit in limits)
    return bool(native) and allowed


def computed_in(precision: str, device: torch.device | str) -> AbstractContextManager:
    """For a forward pass: products and attention in bf16; norms, sums, and the residual stream in fp32."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, torch.bfloat16)


def _on_cpu(device: torch.device | str) -> bool:
    return torch.device(device).type == "cpu"
