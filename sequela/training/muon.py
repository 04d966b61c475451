"""Muon for processors: PyTorch's, except that matrices are made orthogonal in fp32.

PyTorch does it in bf16, which most processors only imitate, at a tenth of the speed of fp32 or less: on such a
processor the optimizer took more than half of the time of a small model's step (bench/muon.py).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


class Muon(torch.optim.Muon):
    """`torch.optim.Muon` (arXiv 2502.16982) with the same settings and the same state.

    Weights on a processor that are whole are updated here, in fp32 and all matrices of one shape at once; any others by
    PyTorch.
    """

    @torch.no_grad()
    def step(self, closure: Callable | None = None) -> float | None:
        """One step."""
        if not all(_is_whole_on_cpu(weight) for group in self.param_groups for weight in group["params"]):
            return super().step(closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights, gradients, momenta = [], [], []
            self._init_group(group, weights, gradients, momenta)
            by_shape = defaultdict(list)
            for weight, gradient, momentum in zip(weights, gradients, momenta, strict=True):
                momentum.lerp_(gradient, 1 - group["momentum"])
                towards = gradient.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum
                by_shape[weight.shape].append((weight, towards))
            for shape, members in by_shape.items():
                rate = 0.2 * max(shape) ** 0.5 * float(group["lr"])  # the step size of AdamW
                updates = orthogonal(
                    torch.stack([towards for _, towards in members]),
                    group["ns_coefficients"], group["ns_steps"], group["eps"],
                )  # fmt: skip
                for (weight, _), update in zip(members, updates, strict=True):
                    weight.mul_(1 - float(group["lr"]) * group["weight_decay"]).add_(update, alpha=-rate)
        return loss


def _is_whole_on_cpu(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and not isinstance(weight, DTensor)


def orthogonal(matrices: Tensor, coefficients: Sequence[float], steps: int, eps: float) -> Tensor:
    """Near-orthogonal matrices [N, rows, columns] with the singular vectors of `matrices`, in their type.

    Newton and Schulz's iteration with Muon's coefficients, which bring the singular values near 1 but not to it.
    """
    a, b, c = coefficients
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = x / x.flatten(1).norm(dim=1).clamp(min=eps)[:, None, None]
    for _ in range(steps):
        gram = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.transpose(1, 2) if tall else x
