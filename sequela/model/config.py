"""The shape of a decoder: three published families, sized by depth."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from sequela.errors import InputError
from sequela.files import plain_errors

ARCHITECTURES = {"qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM", "llama": "LlamaForCausalLM"}
WRAPPERS = ("smb_unstructured",)  # pass everything on to a model of one of these families, their `text_config`
FILE = "config.json"


@dataclass(frozen=True)
class Shape:
    """Layers, width and context of a named model; the rest follows from the width (`ModelConfig.of_shape`)."""

    layers: int
    width: int
    context: int = 1024

    @staticmethod
    def of_depth(depth: int, context: int = 1024) -> Shape:
        """A shape whose width is 64 times its depth."""
        return Shape(depth, 64 * depth, context)


# Names in `config.json`
SPECIAL = ("pad_token_id", "bos_token_id", "eos_token_id")
SCALING = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")

# CoMET's three sizes are 62 M, 119 M and 1.09 B parameters at its 7,105 tokens (arXiv 2508.12104): feed-forward four
# times the width, heads of 64, as many key-value heads as heads, tied embeddings.
SHAPES = {
    "nano": Shape.of_depth(1),
    "demo": Shape.of_depth(2),
    "comet-s": Shape(6, 768, 8192),
    "comet-m": Shape(12, 768, 8192),
    "comet-l": Shape(16, 2048, 8192),
}


@dataclass(frozen=True)
class RopeScaling:
    """How Llama 3.1 and later stretch rotary positions beyond the context they were first trained on: slow rotations by
    `factor`, fast ones not at all (arXiv 2407.21783).

    Attributes:
        low, high: rotations within the first context below which one is slow, and above which it is fast.
        context: the first context.
    """

    factor: float
    low: float
    high: float
    context: int


@dataclass(frozen=True)
class ModelConfig:
    """A pre-norm decoder with RMSNorm, SwiGLU and rotary positions.

    The families differ in two ways: Qwen2 has a bias on queries, keys, and values; Qwen3 normalizes queries and keys
    per head; Llama does neither.
    """

    vocab_size: int
    family: str = "qwen2"
    hidden_size: int = 128
    layers: int = 2
    heads: int = 4
    kv_heads: int = 4
    head_dim: int = 32
    intermediate_size: int = 512
    rope_theta: float = 10000.0
    norm_epsilon: float = 1e-6
    tied_embeddings: bool = True
    context: int = 1024
    vocabulary: str = ""  # hash of the tokens it was trained on; empty for models from elsewhere
    time: str = "intervals"  # "rotary": positions carry elapsed time, so they must be given
    last_moments: bool = True  # whether it has learned when the last moment of a record is over; not in version 0.1
    rope_scaling: RopeScaling | None = None
    special: tuple[int | None, int | None, int | None] = (0, 1, None)  # tokens that pad, begin and end

    def __post_init__(self) -> None:
        if self.family not in ARCHITECTURES:
            raise InputError(
                f"Unknown model family {self.family!r}: choose one of {', '.join(ARCHITECTURES)}."
            )
        if self.heads % self.kv_heads or self.head_dim % 2:
            raise InputError(
                f"{self.heads} heads cannot share {self.kv_heads} key-value heads of {self.head_dim} dimensions: "
                "heads must be a multiple of kv_heads, and head_dim even."
            )

    @staticmethod
    def of_depth(depth: int, vocab_size: int, context: int) -> ModelConfig:
        """`depth` layers, 64 * depth wide, the rest as in `of_shape`."""
        return ModelConfig.of_shape(Shape.of_depth(depth, context), vocab_size)

    @staticmethod
    def named(name: str, vocab_size: int) -> ModelConfig:
        """A model of `SHAPES`: nano, demo, comet-s, comet-m, or comet-l."""
        return ModelConfig.of_shape(SHAPES[name], vocab_size)

    @staticmethod
    def of_shape(shape: Shape, vocab_size: int) -> ModelConfig:
        """Feed-forward layers four times as wide (CoMET's ratio), and as many heads as fit, each with its own keys.

        Heads have 64 dimensions, or 32 below a width of 512, so that small models still have several.
        """
        head_dim = 32 if shape.width < 512 else 64
        heads = max(1, shape.width // head_dim)
        return ModelConfig(
            vocab_size, hidden_size=shape.width, layers=shape.layers, heads=heads, kv_heads=heads, head_dim=head_dim,
            intermediate_size=4 * shape.width, context=shape.context,
        )  # fmt: skip

    @property
    def parameters(self) -> int:
        """Number of weights, counting tied embeddings once."""
        width, inner, narrow = self.hidden_size, self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = 2 * width * inner + 2 * width * narrow
        attention += (inner + 2 * narrow) * (self.family == "qwen2") + 2 * self.head_dim * (
            self.family == "qwen3"
        )
        block = attention + 3 * width * self.intermediate_size + 2 * width
        return self.layers * block + width + self.vocab_size * width * (1 if self.tied_embeddings else 2)

    def save(self, folder: Path) -> None:
        """Write `config.json` as `transformers` reads it."""
        body = {
            "architectures": [ARCHITECTURES[self.family]],
            "model_type": self.family,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "intermediate_size": self.intermediate_size,
            "hidden_act": "silu",
            "rms_norm_eps": self.norm_epsilon,
            "rope_theta": self.rope_theta,
            "tie_word_embeddings": self.tied_embeddings,
            "max_position_embeddings": self.context,
            "attention_bias": False,  # for Qwen3 and Llama; the bias of Qwen2 is built in
            "use_sliding_window": False,
            "dtype": "float32",
            **dict(zip(SPECIAL, self.special, strict=True)),
            "sequela_vocabulary": self.vocabulary,  # kept but not used by transformers; so are the next
            "sequela_time": self.time,
            "sequela_last_moments": self.last_moments,
        }
        if self.rope_scaling is not None:
            scaling = zip(SCALING, asdict(self.rope_scaling).values(), strict=True)
            body["rope_scaling"] = {"rope_type": "llama3", **dict(scaling)}
        (folder / FILE).write_text(json.dumps(body, indent=1), encoding="utf-8")

    @staticmethod
    @plain_errors()
    def load(folder: Path) -> ModelConfig:
        """Read a `config.json` of ours or of `transformers`.

        Raises InputError if the file is missing or damaged, or if this decoder cannot compute the model.
        """
        path = Path(folder) / FILE
        try:
            body = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(
                f"{path} is missing: name a checkpoint folder (config.json, model.safetensors)."
            ) from None
        except ValueError as error:
            raise InputError(f"{path} is damaged ({error}): copy or train the checkpoint again.") from error
        if body.get("model_type") in WRAPPERS:
            body = body.get("text_config") or {}
        family = body.get("model_type")
        if family not in ARCHITECTURES:
            what = f"a {family!r} model" if family else "of no model type"
            raise InputError(f"{path} is {what}: Sequela reads {', '.join(ARCHITECTURES)}.")
        rope = body.get("rope_parameters") or {
            **(body.get("rope_scaling") or {}),
            "rope_theta": body.get("rope_theta"),
        }
        kind = rope.get("rope_type", rope.get("type")) or "default"
        unsupported = {
            f"rope scaling {kind!r}": kind not in ("default", "llama3"),
            "sliding-window attention": bool(body.get("use_sliding_window")),
            "attention or MLP bias": bool(body.get("attention_bias") or body.get("mlp_bias")),
            f"activation {body.get('hidden_act')!r}": body.get("hidden_act", "silu") != "silu",
        }
        if any(unsupported.values()):
            listed = ", ".join(name for name, present in unsupported.items() if present)
            raise InputError(
                f"{path} asks for {listed}, which Sequela does not support: choose another checkpoint."
            )
        try:
            heads = body["num_attention_heads"]
            return ModelConfig(
                vocab_size=body["vocab_size"], family=family, hidden_size=body["hidden_size"],
                layers=body["num_hidden_layers"], heads=heads, kv_heads=body.get("num_key_value_heads") or heads,
                head_dim=body.get("head_dim") or body["hidden_size"] // heads,
                intermediate_size=body["intermediate_size"], rope_theta=float(rope.get("rope_theta") or 10000.0),
                norm_epsilon=body["rms_norm_eps"], tied_embeddings=bool(body.get("tie_word_embeddings", False)),
                context=body["max_position_embeddings"], vocabulary=body.get("sequela_vocabulary", ""),
                time=body.get("sequela_time", "intervals"),
                last_moments=body.get("sequela_last_moments", False),
                rope_scaling=RopeScaling(*(rope[name] for name in SCALING)) if kind == "llama3" else None,
                special=tuple(token if isinstance(token := body.get(name), int) else None for name in SPECIAL),
            )  # fmt: skip
        except (KeyError, TypeError) as error:
            raise InputError(f"{path} lacks {error}: copy or train the checkpoint again.") from error

    def as_dict(self) -> dict[str, object]:
        """Plain values, for manifests, as JSON gives them back."""
        return asdict(self) | {"special": list(self.special)}
