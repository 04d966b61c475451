"""The parts of a decoder block.

Shape letters: B rows, T positions, C hidden width, H query heads, G key-value heads, D head dimension.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from sequela.model.attention import Attention
from sequela.model.config import ModelConfig, RopeScaling


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last dimension (Zhang & Sennrich, arXiv 1910.07467)."""

    def __init__(self, width: int, epsilon: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Float[Tensor, "... C"]) -> Float[Tensor, "... C"]:
        normed = F.rms_norm(x.to(self.weight.dtype), self.weight.shape, self.weight, self.epsilon)
        return normed.to(computed_in(x))


def computed_in(x: Tensor) -> torch.dtype:
    """The type of the next matrix product's input: under autocast lower than that of the residual stream."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def rotary(
    positions_BT: Int[Tensor, "B T"], head_dim: int, theta: float, scaling: RopeScaling | None = None
) -> tuple[Float[Tensor, "B 1 T D"], Float[Tensor, "B 1 T D"]]:
    """Cosine and sine of each position's rotation angles (RoPE, arXiv 2104.09864), the two halves concatenated."""
    pair = torch.arange(0, head_dim, 2, device=positions_BT.device, dtype=torch.float32)
    speed = theta ** (-pair / head_dim)
    if scaling is not None:
        speed = _stretched(speed, scaling)
    angle = positions_BT[:, None, :, None].float() * speed
    angle = torch.cat([angle, angle], -1)
    return angle.cos(), angle.sin()


def _stretched(speed: Tensor, scaling: RopeScaling) -> Tensor:
    """Speeds in radians a position, slow ones divided by the factor, and those in between partly."""
    turns = scaling.context * speed / (2 * math.pi)
    fast = ((turns - scaling.low) / (scaling.high - scaling.low)).clamp(0, 1)
    return fast * speed + (1 - fast) * speed / scaling.factor


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate each pair (i, i + D/2) of [B, H, T, D] by its position's angle."""
    return _Rotate.apply(x, cos, sin) if x.requires_grad else _turned(x, cos, sin)


class _Rotate(torch.autograd.Function):
    """The backward pass rotates the gradient back by the same angles, so only the angles are kept."""

    @staticmethod
    def forward(ctx, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turned(gradient, cos, -sin), None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    low, high = x.chunk(2, -1)
    half = sin.chunk(2, -1)[0]
    turned = x * cos
    new_low, new_high = turned.chunk(2, -1)
    new_low.addcmul_(high, half, value=-1)
    new_high.addcmul_(low, half)
    return turned


class Halves(nn.Linear):
    """Two products with the halves of one matrix, so that results and gradients are contiguous."""

    def forward(self, x: Float[Tensor, "... C"]) -> tuple[Float[Tensor, "... F"], Float[Tensor, "... F"]]:
        first, second = (F.linear(x, half) for half in self.weight.chunk(2))
        return first, second


class Block(nn.Module):
    """Pre-norm attention and SwiGLU, each added to the residual stream.

    Queries, keys, and values share one matrix, gate and up another: fewer, wider products. `checkpoint` splits them
    into the tensors of `transformers`.
    """

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        width, inner = config.hidden_size, config.heads * config.head_dim
        self.layer = layer
        self.split = [config.heads, config.kv_heads, config.kv_heads]
        self.head_dim = config.head_dim
        self.norm_1 = RMSNorm(width, config.norm_epsilon)
        self.qkv = nn.Linear(width, sum(self.split) * config.head_dim, bias=config.family == "qwen2")
        per_head = config.family == "qwen3"
        self.norm_q = RMSNorm(config.head_dim, config.norm_epsilon) if per_head else nn.Identity()
        self.norm_k = RMSNorm(config.head_dim, config.norm_epsilon) if per_head else nn.Identity()
        self.out = nn.Linear(inner, width, bias=False)
        self.norm_2 = RMSNorm(width, config.norm_epsilon)
        self.gate_up = Halves(width, 2 * config.intermediate_size, bias=False)
        self.down = nn.Linear(config.intermediate_size, width, bias=False)

    def forward(
        self, x_BTC: Float[Tensor, "B T C"], cos: Tensor, sin: Tensor, attention: Attention
    ) -> Float[Tensor, "B T C"]:
        rows, length, _ = x_BTC.shape
        heads = self.qkv(self.norm_1(x_BTC)).view(rows, length, -1, self.head_dim).transpose(1, 2)
        q, k, v = heads.split(self.split, 1)
        q, k = rotate(self.norm_q(q), cos, sin), rotate(self.norm_k(k), cos, sin)
        seen = attention(self.layer, q, k, v).transpose(1, 2).reshape(rows, length, -1)
        x_BTC = x_BTC + self.out(seen)
        gate, up = self.gate_up(self.norm_2(x_BTC))
        return x_BTC + self.down(F.silu(gate) * up)
