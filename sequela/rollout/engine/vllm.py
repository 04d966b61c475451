"""vLLM in the place of our own engine, for those who already run it: our checkpoints load there unchanged.

vLLM only samples, because no hook into its steps is stable from version to version. So nothing can be taken away from
what it samples (no constraint, no tracker that steers), and the tracker reads the tokens afterwards, with probabilities
from one pass of our own decoder (`sequela.rollout.engine.rescore`). Where a prompt weighs its first token, that decoder
samples it.

Of vLLM only `LLM.generate` and `SamplingParams` are used, as they are in 0.32 and 0.33.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sequela.errors import InputError
from sequela.progress import Progress, silent
from sequela.rollout.engine.engine import Engine
from sequela.rollout.engine.queue import PromptBudget
from sequela.rollout.engine.rescore import Rescorer, replay
from sequela.rollout.engine.rollouts import Prompts, Rollouts
from sequela.rollout.engine.sampling import Sampling, openings, seeds
from sequela.rollout.engine.step import TokenStep
from sequela.rollout.engine.tracker import Tracker, no_rollouts
from sequela.tokens.ragged import Ragged

TOGETHER = 256  # prompts that are at work at once
CHUNK = 64  # tokens sampled before it is checked whether a rollout has ended
MEMORY = 0.8  # share of the GPU that vLLM may take; the rest is for our decoder


@dataclass(frozen=True)
class SampleRequest:
    """What vLLM is asked for one rollout: at most so many tokens after `ids`."""

    ids: list[int]
    most: int
    seed: int


Generate = Callable[[list[SampleRequest], float, list[int]], list[list[int]]]
"""New tokens for each request, at a temperature (0 is greedy), up to and with the first of the tokens that stop."""


@dataclass(eq=False)
class _Row:
    """A rollout that is being made; `window` is what it goes on from, with its own tokens from number `start` on."""

    prompt: int
    number: int
    seed: int
    window: np.ndarray
    start: int = 0
    tokens: list[int] = field(default_factory=list)


class VllmEngine:
    """An `Extender` whose tokens vLLM samples: rollouts of the same model, with random numbers of vLLM's.

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
        budget: PromptBudget,
        tracker: Tracker,
        sampling: Sampling = Sampling(),
        progress: Progress = silent,
    ) -> Rollouts:
        """See `Extender`; but vLLM itself decides how many rows it computes at once.

        Raises:
            InputError: if the tracker or the constraint changes what is sampled.
        """
        constraint = self.engine.constraint
        if tracker.steers or (constraint is not None and constraint.masks):
            raise InputError(
                "vLLM cannot keep anything from being sampled: choose settings that sample from the model as it is, or "
                "set `engine` to own."
            )
        rounds = self._rounds(prompts, tracker, sampling)
        finished: list[Rollouts] = []
        tokens = 0
        for begin in range(0, len(prompts), TOGETHER):
            group = range(begin, min(begin + TOGETHER, len(prompts)))
            for rollouts in _by_prompt(rounds, budget, tracker, group):
                finished.append(rollouts)
                tokens += len(rollouts.tokens.flat)
            progress(group.stop, len(prompts), tokens=tokens)
        return Rollouts.joined([no_rollouts(tracker, prompts), *finished])

    def _rounds(self, prompts: Prompts, tracker: Tracker, sampling: Sampling) -> _SamplingRounds:
        engine, limit = self.engine, tracker.limit
        rescorer = Rescorer(
            engine.model, engine.precision, lambda ids: engine.window(ids, limit), engine.model.config.context
        )
        return _SamplingRounds(
            self.generate, rescorer, engine.token_step(tracker, sampling), prompts,
            np.flatnonzero(tracker.stop_tokens).tolist(),
        )  # fmt: skip


def _by_prompt(
    rounds: _SamplingRounds, budget: PromptBudget, tracker: Tracker, prompts: range
) -> list[Rollouts]:
    """All rollouts of each of these prompts, in order of their numbers."""
    none = no_rollouts(tracker, rounds.prompts)
    finished = dict.fromkeys(prompts, none)
    wanted = {prompt: budget.more(prompt, none.number, np.zeros((0, 1))) for prompt in prompts}
    while wanted := {prompt: numbers for prompt, numbers in wanted.items() if len(numbers)}:
        for prompt, rollouts in rounds.sampled(wanted).items():
            finished[prompt] = _in_order(Rollouts.joined([finished[prompt], rollouts]))
            wanted[prompt] = budget.more(prompt, finished[prompt].number, tracker.scores(finished[prompt]))
    return list(finished.values())


def _in_order(rollouts: Rollouts) -> Rollouts:
    """By number."""
    order = np.argsort(rollouts.number, kind="stable")
    return Rollouts(
        rollouts.prompt[order], rollouts.number[order], rollouts.tokens.take(order), rollouts.reason[order],
        rollouts.windows[order], {name: x[order] for name, x in rollouts.account.items()},
    )  # fmt: skip


@dataclass(frozen=True)
class _SamplingRounds:
    """Samples rollouts in rounds of a few tokens, each up to the token that ends it, and has them rescored.

    `stops`: tokens after which there is no need to sample on.
    """

    generate: Generate
    rescorer: Rescorer
    step: TokenStep
    prompts: Prompts
    stops: list[int]

    def sampled(self, wanted: dict[int, np.ndarray]) -> dict[int, Rollouts]:
        """The rollouts of these numbers, by prompt."""
        rows = {prompt: self._begin(prompt, numbers) for prompt, numbers in wanted.items()}
        live = [row for of_prompt in rows.values() for row in of_prompt]
        sampling = self.step.sampling
        live = self._going_on([row for row in live if row.tokens]) + [row for row in live if not row.tokens]
        while live:
            requests = [self._request(row) for row in live]
            new = self.generate(requests, 0.0 if sampling.greedy else sampling.temperature, self.stops)
            for row, tokens in zip(live, new, strict=True):
                row.tokens.extend(tokens)
            live = self._going_on(live)
        return {
            prompt: self.rescorer.rollouts(
                self.step, self.prompts, prompt, wanted[prompt], Ragged.of([row.tokens for row in of_prompt])
            )
            for prompt, of_prompt in rows.items()
        }

    def _begin(self, prompt: int, numbers: np.ndarray) -> list[_Row]:
        number = torch.from_numpy(numbers)
        key = torch.full_like(number, int(self.prompts.key[prompt]))
        window = self.rescorer.cut(self.prompts.ids[prompt])
        return [
            _Row(prompt, int(own), seed, window, tokens=tokens)
            for own, seed, tokens in zip(
                numbers, seeds(key, number).tolist(), self._first(prompt, key, number), strict=True
            )
        ]

    def _first(self, prompt: int, key: torch.Tensor, number: torch.Tensor) -> list[list[int]]:
        """The first token of the rollouts of these numbers [R], if the prompt weighs it; else none."""
        weights = None if self.prompts.first is None else self.prompts.first[prompt]
        if weights is None or (weights == 1).all():
            return [[] for _ in number]
        device = self.step.device
        opening = openings(key, number).to(device) if self.step.sampling.stratified else None
        rows = np.full(len(number), prompt)
        state = self.step.start(self.prompts, rows, seeds(key, number).to(device), opening)
        logits = self.rescorer.first_logits(self.prompts.ids[prompt]).repeat(len(number), 1)
        token, _ = self.step.choose(logits, state, torch.from_numpy(weights).float().to(device).expand_as(logits))
        return [[one] for one in token.tolist()]

    def _going_on(self, rows: list[_Row]) -> list[_Row]:
        """Those that have not ended; tokens behind the end are cut off."""
        if not rows:
            return []
        prompt, number = (np.array([getattr(row, name) for row in rows]) for name in ("prompt", "number"))
        tokens = Ragged.of([row.tokens for row in rows])
        state, reason = replay(self.step, self.prompts, prompt, number, tokens)
        for row, length in zip(rows, state.step.tolist(), strict=True):
            del row.tokens[length:]
        return [row for row, why in zip(rows, reason, strict=True) if why < 0]

    def _request(self, row: _Row) -> SampleRequest:
        """The next tokens of a row, in a new window if the old one is full."""
        count, reach = len(row.tokens), self.rescorer.reach
        if len(row.window) + count - row.start >= reach:
            row.window = self.rescorer.cut(np.append(self.prompts.ids[row.prompt], row.tokens))
            row.start = count
        ids = [*row.window.tolist(), *row.tokens[row.start :]]
        most = min(CHUNK, self.step.tracker.limit - count, reach - len(ids))
        seed = int(seeds(torch.tensor([row.seed]), torch.tensor([count]))) & (1 << 63) - 1
        return SampleRequest(ids, most, seed)


def vllm_sampler(folder: Path, precision: str, context: int) -> Generate:
    """Start vLLM with the checkpoint of `folder`.

    Raises:
        InputError: if vLLM is not installed.
    """
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # it warns that there is no text here
    try:
        vllm: Any = import_module("vllm")
    except ImportError as error:
        raise InputError(
            f"engine vllm needs the package vllm ({error}): pip install sequela vllm, or set `engine` to own."
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

    def generate(requests: Sequence[SampleRequest], temperature: float, stops: list[int]) -> list[list[int]]:
        try:
            parameters = [
                vllm.SamplingParams(
                    temperature=temperature, seed=request.seed, max_tokens=request.most,
                    stop_token_ids=stops, ignore_eos=True, detokenize=False,
                )
                for request in requests
            ]  # fmt: skip
        except ValueError as error:
            raise InputError(
                f"vLLM refuses these settings ({error}): change them, or set `engine` to own."
            ) from error
        prompts = [{"prompt_token_ids": request.ids} for request in requests]
        outputs = llm.generate(prompts, parameters, use_tqdm=False)
        return [list(output.outputs[0].token_ids) for output in outputs]

    return generate
