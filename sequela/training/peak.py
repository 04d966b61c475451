"""How fast this machine multiplies matrices: the denominator of model FLOPs utilization."""

import math
import time
from collections.abc import Callable

import torch

from sequela.model.config import ModelConfig
from sequela.training.derive import ROW_TOKENS

KINDS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def measured_peak(
    config: ModelConfig,
    precision: str,
    device: torch.device | str = "cpu",
    *,
    seconds: float = 0.3,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """FLOP/s of the faster of the two products in this model's feed-forward layers, its largest.

    Each is repeated for half of `seconds`, and its best time counts. `precision` is fp32 or bf16.
    """
    width, inner = config.hidden_size, config.intermediate_size
    return max(
        _speed(columns_in, columns_out, KINDS[precision], torch.device(device), seconds / 2, clock)
        for columns_in, columns_out in ((width, 2 * inner), (inner, width))
    )


def _speed(
    columns_in: int,
    columns_out: int,
    kind: torch.dtype,
    device: torch.device,
    seconds: float,
    clock: Callable[[], float],
) -> float:
    """FLOP/s of [ROW_TOKENS, columns_in] x [columns_in, columns_out]."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(ROW_TOKENS, columns_in, generator=random).to(device, kind)
    weight = torch.randn(columns_out, columns_in, generator=random).to(device, kind)
    out = torch.empty(ROW_TOKENS, columns_out, device=device, dtype=kind)
    on_gpu = device.type == "cuda"
    times = 50 if on_gpu else 1  # a single product takes no longer than its launch
    best, until = math.inf, clock() + seconds
    while clock() < until or best == math.inf:
        started = clock()
        for _ in range(times):
            torch.mm(x, weight.t(), out=out)
        if on_gpu:
            torch.cuda.synchronize(device)
        best = min(best, (clock() - started) / times)
    return 2 * ROW_TOKENS * columns_in * columns_out / best
