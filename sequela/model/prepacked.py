"""Inference-only decoders, their matrices laid out as the processor multiplies them fastest.

On CPUs oneDNN reorders a matrix for each product, which for few rows takes as long as the product itself. Here that is
done once. The layout also makes the result for a row independent of the rows beside it (see
`sequela.rollout.engine.engine`), where PyTorch's own product would choose another kernel for few rows.
"""

import copy

import torch
from torch import Tensor, nn

from sequela.model.decoder import Decoder
from sequela.model.layers import Halves
from sequela.model.precision import check

EXAMPLE_ROWS = 64  # the layout is chosen for these; any number of rows works


class PackedLinear(nn.Module):
    """`nn.Linear` with its matrix laid out once. Input and output have the matrix's type."""

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), EXAMPLE_ROWS)
        self.bias = None if bias is None else bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")


class PackedHalves(nn.Module):
    """`Halves` with both matrices laid out once."""

    def __init__(self, weight: Tensor):
        super().__init__()
        self.first, self.second = (PackedLinear(half, None) for half in weight.chunk(2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.first(x), self.second(x)


def packed(model: Decoder, precision: str = "fp32") -> Decoder:
    """A copy of `model` for forward passes only, whose blocks multiply in `precision` ("fp32" or "bf16").

    Embedding and norms are shared with `model`, and the head is fp32. Where PyTorch has no such layout, the copy
    multiplies as usual.

    Raises:
        InputError: for bf16 on a processor without bf16 products.
    """
    check(precision, model.embedding.weight.device)
    low = copy.copy(model)
    low._modules = {**model._modules, "blocks": copy.deepcopy(model.blocks)}
    pack = model.embedding.weight.device.type == "cpu" and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    for block in low.blocks:
        for name, layer in list(block.named_children()):
            if isinstance(layer, nn.Linear):
                setattr(block, name, _ready(layer.to(kind), pack))
    low.head = _ready(model.head, pack)
    return low


def _ready(layer: nn.Linear, pack: bool) -> nn.Module:
    if not pack:
        return layer
    return PackedHalves(layer.weight) if isinstance(layer, Halves) else PackedLinear(layer.weight, layer.bias)
