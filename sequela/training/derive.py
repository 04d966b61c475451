"""Derives every size, rate, and length of a run from a depth or a preset, and says where each comes from.

Settings that are given are kept; the others follow. Model sizes follow from the width. The length is what CoMET found
optimal, 1,000 tokens per parameter, but at most four passes over the corpus. Batch and learning rates follow from the
compute, C FLOPs: B = 0.292 C^0.3271 tokens and 0.3118 C^-0.125 (DeepSeek LLM, arXiv 2401.02954, figure 3); for another
batch, the rates times sqrt(batch / B). Muon's updates are scaled to AdamW's, so both use the same rate. How near the
optimum this is: docs/records/optimizer.md.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace

from sequela.errors import InputError
from sequela.model import flops
from sequela.model.config import SHAPES, ModelConfig, Shape
from sequela.training.settings import TrainSettings

DEPTH = 2
ROW_TOKENS = 4096  # of one pass: longer rows gain nothing on a CPU
TOKENS_PER_PARAMETER = 1000  # CoMET's optimum (arXiv 2508.12104)
EPOCHS = 4  # up to here repeated data are worth nearly as much as new data (Muennighoff et al., arXiv 2305.16264)


@dataclass(frozen=True)
class Resolved:
    """Settings with nothing left open.

    Attributes:
        settings: context, row_tokens, batch_tokens (whole rows), tokens (a whole number), learning_rate, and
            matrix_rate are filled in; epochs and tokens_per_parameter are None, because tokens replace them.
        model: the shape.
        origins: where each value that can be derived comes from: "given", "preset comet-s", "from 3.1e13 FLOPs".
    """

    settings: TrainSettings
    model: ModelConfig
    origins: dict[str, str]

    @property
    def values(self) -> dict[str, float]:
        """Each value that can be derived, by the name of its setting."""
        shape = asdict(self.model) | {
            "width": self.model.hidden_size,
            "intermediate": self.model.intermediate_size,
        }
        return {name: shape.get(name, getattr(self.settings, name)) for name in self.origins}

    def as_dict(self) -> dict[str, dict[str, object]]:
        """Each value and its origin, for `train.json`."""
        return {name: {"value": value, "from": self.origins[name]} for name, value in self.values.items()}

    def lines(self) -> list[str]:
        """One readable line per value.

        >>> print(resolve(TrainSettings(preset="comet-s", tokens=62e9), 7105, 10**11).lines()[0])
        layers          6               preset comet-s
        """
        return [
            f"{name.replace('_', ' '):<16}{_written(value):<16}{self.origins[name]}"
            for name, value in self.values.items()
            if name != "matrix_rate" or self.settings.optimizer == "muon"
        ]


def resolve(
    settings: TrainSettings, vocabulary: int, corpus_tokens: int, start: ModelConfig | None = None
) -> Resolved:
    """Fill in what `settings` leaves open.

    Args:
        vocabulary: number of tokens in the vocabulary.
        corpus_tokens: tokens of the training patients, cut into windows of `context_of(settings, start)`.
        start: the shape of the checkpoint that the run starts from, which is kept but for the context.

    Raises:
        InputError: if the given sizes do not fit each other.
    """
    choices = _Choices(settings)
    model = _shape(choices, vocabulary) if start is None else _same_shape(choices, start)
    tokens, why = _tokens(settings, model.parameters, corpus_tokens)
    choices.origins["tokens"] = why
    compute = 3 * flops.products(model, tokens, pairs=0, predicted=tokens)
    best = 0.292 * compute**0.3271
    from_compute = f"from {compute:.1e} FLOPs (without attention)"
    wanted = choices.of("batch_tokens", max(model.context, 2 ** round(math.log2(best))), from_compute)
    passes = math.ceil(wanted / max(ROW_TOKENS, model.context))
    row = choices.of("row_tokens", max(model.context, wanted // passes), "from context and batch")
    if row < model.context:
        raise InputError(
            f"`row_tokens` is {row}, but a window of {model.context} tokens has to fit into a row: set it to "
            f"{model.context} or more, or `context` to {row} or less."
        )
    batch = row * max(1, round(wanted / row))
    if settings.batch_tokens not in (None, batch):
        choices.origins["batch_tokens"] = f"{wanted:,} given, in whole rows"
    rate = 0.3118 * compute**-0.125 * math.sqrt(batch / best)
    from_batch = f"{from_compute} and the batch"
    filled = replace(
        settings, context=model.context, batch_tokens=batch, row_tokens=row, tokens=tokens, epochs=None,
        tokens_per_parameter=None, learning_rate=choices.of("learning_rate", rate, from_batch),
        matrix_rate=choices.of("matrix_rate", rate, from_batch),
    )  # fmt: skip
    return Resolved(filled, model, choices.origins)


def context_of(settings: TrainSettings, start: ModelConfig | None = None) -> int:
    """The context of a run, which does not depend on the corpus; `start` as in `resolve`."""
    usual = _named(settings)[0].context if start is None else min(start.context, ROW_TOKENS)
    return settings.context or usual


def evenly(resolved: Resolved, processes: int) -> str:
    """Which settings let so many processes take equally many rows of a step, in words."""
    settings, context = resolved.settings, resolved.model.context
    given = resolved.origins["row_tokens"] == "given"
    unit = processes * (settings.row_tokens if given else max(ROW_TOKENS, context))
    words = f"set `batch_tokens` to {unit} or a multiple of it"
    passes = math.ceil(settings.batch_tokens / settings.row_tokens / processes) * processes
    row = settings.batch_tokens // passes // 8 * 8
    if row >= max(context, 16):
        words += f", or `row_tokens` to {row} and `batch_tokens` to {row * passes}"
    return words


class _Choices:
    """Takes the given value of a setting, else the derived one, and records its origin."""

    def __init__(self, settings: TrainSettings):
        self.settings = settings
        self.origins: dict[str, str] = {}

    def of(self, name: str, derived: float, origin: str) -> float:
        given = getattr(self.settings, name)
        self.origins[name] = origin if given is None else "given"
        return derived if given is None else given


def _named(settings: TrainSettings) -> tuple[Shape, str]:
    """The shape that a preset or a depth asks for, and which of them it was."""
    if settings.preset is not None:
        return SHAPES[settings.preset], f"preset {settings.preset}"
    if settings.depth is not None:
        return Shape.of_depth(settings.depth), f"depth {settings.depth}"
    return Shape.of_depth(DEPTH), f"depth {DEPTH}, the default"


def _shape(choices: _Choices, vocabulary: int) -> ModelConfig:
    settings = choices.settings
    shape, origin = _named(settings)
    shape = Shape(**{name: choices.of(name, value, origin) for name, value in asdict(shape).items()})
    plain = ModelConfig.of_shape(shape, vocabulary)
    if settings.heads is None:
        head_dim = choices.of("head_dim", plain.head_dim, "from the width")
    else:
        head_dim = choices.of("head_dim", max(1, shape.width // settings.heads), "width over heads")
    heads = choices.of("heads", max(1, shape.width // head_dim), "width over head dim")
    return replace(
        plain, heads=heads, head_dim=head_dim, kv_heads=choices.of("kv_heads", heads, "as many as heads"),
        intermediate_size=choices.of("intermediate", plain.intermediate_size, "four times the width"),
        family=settings.family, rope_theta=settings.rope_theta, tied_embeddings=settings.tied,
    )  # fmt: skip


def _same_shape(choices: _Choices, start: ModelConfig) -> ModelConfig:
    origin = "as in the checkpoint"
    context = choices.of("context", context_of(choices.settings, start), origin)
    shape = ("layers", "width", "head_dim", "heads", "kv_heads", "intermediate")
    choices.origins |= dict.fromkeys(shape, origin)
    return replace(start, context=context, last_moments=True)


def _tokens(settings: TrainSettings, parameters: int, corpus: int) -> tuple[int, str]:
    """How many tokens the run takes, and why."""
    if settings.tokens is not None:
        return max(1, round(settings.tokens)), "given"
    if settings.epochs is not None:
        return max(1, math.ceil(settings.epochs * corpus)), f"{settings.epochs:g} epochs, given"
    if settings.tokens_per_parameter is not None:
        wanted = settings.tokens_per_parameter
        return max(1, round(wanted * parameters)), f"{wanted:g} for each of {parameters:,} parameters, given"
    enough = TOKENS_PER_PARAMETER * parameters
    if enough <= EPOCHS * corpus:
        return enough, f"{TOKENS_PER_PARAMETER:,} for each of {parameters:,} parameters"
    return (
        EPOCHS * corpus,
        f"{EPOCHS} epochs, as the corpus has no {TOKENS_PER_PARAMETER:,} for each of {parameters:,} parameters",
    )


def _written(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
