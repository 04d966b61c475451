"""vLLM in the place of our own engine, for those who already run it: our checkpoints load there unchanged.

vLLM samples, and nothing else is asked of it: no hook into its steps is stable from version to version. So no token can
be taken away on the way (no grammar, no outcome avoided but for the first token), and what a rollout says is read off
its tokens afterwards, hazards by one pass of our own decoder over them (`sequela.rollout.engine.rescore`).

Of vLLM only `LLM.generate` and `SamplingParams` are used, as they are in 0.32 and 0.33.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sequela.errors import InputError
from sequela.progress import Progress, silent
from sequela.rollout.budget import RolloutBudget
from sequela.rollout.engine.engine import Engine, Rollouts
from sequela.rollout.engine.queue import Ended, Prompts
from sequela.rollout.engine.rescore import Reader, replay
from sequela.rollout.engine.sampling import seeds
from sequela.rollout.settings import NO_AVOIDING, NO_GRAMMAR
from sequela.rollout.tracker import Stop, Watch, Watching
from sequela.tokens.ragged import Ragged

TOGETHER = 256  # prompts that are in work at once
CHUNK = 64  # tokens sampled before it is looked whether a rollout has ended
MEMORY = 0.8  # share of the GPU that vLLM may take; the rest is for our decoder


@dataclass(frozen=True)
class Ask:
    """What vLLM is asked for one rollout: at most so many tokens after `ids`, each out of `allowed` (None: any)."""

    ids: list[int]
    most: int
    seed: int
    allowed: list[int] | None


Generate = Callable[[list[Ask], float, list[int]], list[list[int]]]
"""New tokens for each ask, at a temperature (0 is greedy), up to and with the first of the tokens that stop."""


@dataclass(eq=False)
class _Row:
    """One rollout on its way; `window` is what it goes on from, with its own tokens from number `start` on."""

    prompt: int
    number: int
    seed: int
    window: np.ndarray
    start: int = 0
    tokens: list[int] = field(default_factory=list)


class VllmEngine:
    """An engine of which vLLM samples the tokens: rollouts of the same model, with random numbers of its own.

    Args:
        engine: of the same model; its decoder reads what was sampled.
        generate: see `vllm_sampler`.
    """

    def __init__(self, engine: Engine, generate: Generate):
        self.engine, self.generate = engine, generate
        self.window = engine.window

    def extend(
        self,
        prompts: Prompts,
        plan: RolloutBudget,
        stop: Stop,
        watch: Watch,
        *,
        temperature: float = 1.0,
        greedy: bool = False,
        avoid: bool = False,
        rows: int = 128,
        progress: Progress = silent,
    ) -> Rollouts:
        """As `Engine.extend`; but vLLM decides by itself how many `rows` it computes at once.

        Raises:
            InputError: where outcomes are to be avoided, or futures are to keep to the grammar.
        """
        own = self.engine
        if avoid:
            raise InputError(f"{NO_AVOIDING}.")
        if own.well_formed and own.automaton is not None:
            raise InputError(f"{NO_GRAMMAR}.")
        watching = own.watching(stop, watch, temperature=temperature, greedy=greedy)
        reader = Reader(
            own.model, own.precision, lambda ids: own.window(ids, stop.limit), own.model.config.context
        )
        sampling = _Sampling(
            self.generate, reader, watching, prompts, 0.0 if greedy else temperature, stop.limit,
            np.flatnonzero(stop.tokens).tolist(),
        )  # fmt: skip
        ended: list[list[Ended]] = [[] for _ in range(len(prompts.ids))]
        tokens = 0
        for begin in range(0, len(ended), TOGETHER):
            none = np.zeros(0, np.int64), np.zeros((0, len(watch.horizon)))
            group = range(begin, min(begin + TOGETHER, len(ended)))
            asked = {prompt: plan.more(prompt, *none) for prompt in group}
            while asked := {prompt: numbers for prompt, numbers in asked.items() if len(numbers)}:
                for prompt, some in sampling.sampled(asked).items():
                    ended[prompt] = sorted([*ended[prompt], *some], key=lambda one: one.number)
                    done = np.array([one.number for one in ended[prompt]], np.int64)
                    scores = np.stack([one.score(avoided=False) for one in ended[prompt]])
                    asked[prompt] = plan.more(prompt, done, scores)
                    tokens += sum(len(one.tokens) for one in some)
            progress(group.stop, len(ended), tokens=tokens)
        return Rollouts.of(ended, len(watch.horizon))


@dataclass(frozen=True)
class _Sampling:
    """Samples rollouts in rounds of a few tokens, each up to the token that ends it, and has them read."""

    generate: Generate
    reader: Reader
    watching: Watching
    prompts: Prompts
    temperature: float
    limit: int
    stops: list[int]

    def sampled(self, asked: dict[int, np.ndarray]) -> dict[int, list[Ended]]:
        """The rollouts of these numbers, by prompt."""
        rows = [self._begin(prompt, numbers) for prompt, numbers in asked.items()]
        live = [row for some in rows for row in some]
        while live:
            new = self.generate([self._ask(row) for row in live], self.temperature, self.stops)
            for row, tokens in zip(live, new, strict=True):
                row.tokens.extend(tokens)
            prompt = np.array([row.prompt for row in live])
            state, reason = replay(
                self.watching, self.prompts, prompt, Ragged.of([row.tokens for row in live])
            )
            for row, length in zip(live, state.step.tolist(), strict=True):
                del row.tokens[length:]
            live = [row for row, why in zip(live, reason, strict=True) if why < 0]
        return {
            prompt: self.reader.ended(
                self.watching, self.prompts, prompt, [row.number for row in some],
                Ragged.of([row.tokens for row in some]),
            )
            for prompt, some in zip(asked, rows, strict=True)
        }  # fmt: skip

    def _begin(self, prompt: int, numbers: np.ndarray) -> list[_Row]:
        key = torch.full((len(numbers),), int(self.prompts.key[prompt]))
        window = self.reader.cut(self.prompts.ids[prompt])
        return [
            _Row(prompt, int(number), seed, window)
            for number, seed in zip(numbers, seeds(key, torch.from_numpy(numbers)).tolist(), strict=True)
        ]

    def _ask(self, row: _Row) -> Ask:
        """The next tokens of a row, in a new window where the old one is full."""
        count = len(row.tokens)
        if len(row.window) + count - row.start >= self.reader.reach:
            row.window = self.reader.cut(np.append(self.prompts.ids[row.prompt], row.tokens))
            row.start = count
        ids = [*row.window.tolist(), *row.tokens[row.start :]]
        most = min(CHUNK, self.limit - count, self.reader.reach - len(ids))
        seed = int(seeds(torch.tensor([row.seed]), torch.tensor([count]))) & (1 << 63) - 1
        first = self.prompts.first[row.prompt]
        if count or first.all():
            return Ask(ids, most, seed, None)
        return Ask(ids, 1, seed, np.flatnonzero(first).tolist())


def vllm_sampler(folder: Path, precision: str, context: int) -> Generate:
    """Start vLLM with the checkpoint of `folder`.

    Raises:
        InputError: where vLLM is not installed.
    """
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # it warns that there is no text here
    try:
        vllm: Any = import_module("vllm")
    except ImportError as error:
        raise InputError(
            f"--backend vllm needs the package vllm ({error}): pip install sequela vllm, or take --backend own."
        ) from error
    llm = vllm.LLM(
        str(folder),
        skip_tokenizer_init=True,  # tokens go in and come out
        generation_config="vllm",
        dtype={"fp32": "float32", "bf16": "bfloat16"}[precision],  # its "auto" would make fp16 of fp32
        max_model_len=context,
        gpu_memory_utilization=MEMORY,
        # A prompt read in pieces sets its seed back, which generators of CPUs cannot do: vLLM 0.32 fails there
        **({} if torch.cuda.is_available() else {"enable_chunked_prefill": False}),
    )

    def generate(asks: list[Ask], temperature: float, stops: list[int]) -> list[list[int]]:
        try:
            each = [
                vllm.SamplingParams(
                    temperature=temperature, seed=one.seed, max_tokens=one.most, allowed_token_ids=one.allowed,
                    stop_token_ids=stops, ignore_eos=True, detokenize=False,
                )
                for one in asks
            ]  # fmt: skip
        except ValueError as error:
            raise InputError(
                f"vLLM refuses these settings ({error}): change them, or take --backend own."
            ) from error
        given = [{"prompt_token_ids": one.ids} for one in asks]
        return [list(one.outputs[0].token_ids) for one in llm.generate(given, each, use_tqdm=False)]

    return generate
