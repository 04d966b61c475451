"""A training run: what it does, and how it gets from one step to the next."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sequela.errors import InputError
from sequela.model import precision
from sequela.model.config import ModelConfig
from sequela.model.decoder import Decoder
from sequela.tokens import corpus as corpora
from sequela.tokens.corpus import Corpus
from sequela.tokens.packing import Windows
from sequela.training import checkpoint
from sequela.training.cpu_threads import ParallelRows
from sequela.training.data import Sampler, Step, feed, padded_to, token_counts, windows_of
from sequela.training.derive import Resolved, context_of, evenly, resolve
from sequela.training.finetuning.start import Start
from sequela.training.monitor import DivergenceAlarm, LossCurve
from sequela.training.objectives.objective import (
    Group,
    Loss,
    Objective,
    ObjectiveFactory,
    Setup,
    Weighted,
    named,
)
from sequela.training.optimizer import optimizers
from sequela.training.outcomes.stopping import Stopping
from sequela.training.outcomes.weight import class_weights, outcome_tokens
from sequela.training.parallel import ProcessGroup, accumulating, clip, is_parallel, parallelize, whole
from sequela.training.settings import TrainSettings

CHECK_SHARE = 0.04  # of the work of a run may go into checks on the way


@dataclass(frozen=True)
class RunPlan:
    """What a run does: everything that is known before its first step.

    Attributes:
        windows: of the training patients.
        resolved: the settings, every one filled in, and where each comes from.
        config: of the decoder.
        objective: what it learns.
        start: the checkpoint that it starts from; None: random weights.
    """

    corpus: Path
    data: Corpus
    tuning: Corpus
    windows: Windows
    resolved: Resolved
    config: ModelConfig
    objective: ObjectiveFactory
    start: Start | None = None

    @staticmethod
    def of(
        corpus: Path,
        settings: TrainSettings,
        objective: ObjectiveFactory | None = None,
        init_from: Path | None = None,
    ) -> RunPlan:
        """The plan for `objective`, the default one unless given; `init_from` is the checkpoint that it starts from.

        Raises:
            InputError: for a corpus without training patients, for outcomes of an unknown kind, and for a checkpoint
                that does not fit the corpus or the settings.
        """
        data, tuning = Corpus.load(corpus, "train"), Corpus.load(corpus, "tuning")
        start = None if init_from is None else Start.of(init_from, data.tokenizer)
        settings = settings if start is None else start.checked(settings)
        shape = None if start is None else start.config
        windows = windows_of(data, context_of(settings, shape))
        if len(windows) == 0:
            raise InputError(
                f"{corpus} has no training patient: tokenize a larger dataset or change the split."
            )
        tokenizer = data.tokenizer
        outcome_tokens(tokenizer, settings.outcomes)
        resolved = resolve(settings, len(tokenizer.vocabulary), int(windows.lengths.sum()), shape)
        time = "rotary" if tokenizer.positions_from_clock else "intervals"
        config = replace(resolved.model, vocabulary=tokenizer.vocabulary.hash, time=time)
        objective = objective or named(settings.objective)
        return RunPlan(corpus, data, tuning, windows, resolved, config, objective, start)

    @property
    def settings(self) -> TrainSettings:
        """The settings, every one filled in."""
        return self.resolved.settings

    @property
    def rows_per_step(self) -> int:
        """Rows of a step, over all processes."""
        return max(1, round(self.settings.batch_tokens / self.settings.row_tokens))

    def batches(self) -> Sampler:
        """The steps, from the first one on."""
        chosen = self.settings
        return Sampler(
            self.windows.lengths, chosen.row_tokens, self.rows_per_step, chosen.tokens, chosen.seed,
            self.windows.patient,
        )  # fmt: skip

    def identity(self) -> dict:
        """What makes two runs the same run."""
        digest = hashlib.sha256((self.corpus / corpora.FILE).read_bytes()).hexdigest()
        same = {"settings": self.settings.of_result, "corpus": digest, "objective": self.objective.name}
        return same if self.start is None else {**same, "start": self.start.weights}

    @property
    def events_per_token(self) -> float:
        """Events of the training patients per predicted token."""
        return self.data.events / max(1, int(self.windows.lengths.sum()) - len(self.windows))

    @cached_property
    def class_weights(self) -> np.ndarray | None:
        """See `Setup`."""
        return class_weights(self.data, self.settings)

    def sample(self, times: int | None = None) -> np.ndarray:
        """Rows of tuning patients to score so many times, as often as there are checks unless given: one, or as many as
        fit `CHECK_SHARE` of the run's work."""
        lengths = self.tuning.tokens.lengths
        order = np.random.default_rng(self.settings.seed).permutation(len(lengths))
        budget = 3 * CHECK_SHARE * self.settings.tokens / (times or max(1, self.settings.checks))  # forward is a third
        fit = int((np.cumsum(lengths[order]) <= budget).sum())
        return order[: max(1, fit)]

    def decoder(self) -> Decoder:
        """With the weights that the run begins with."""
        if self.start is None:
            return Decoder(self.config).initialize(self.settings.seed)
        return self.start.decoder(self.config)

    def build(self, decoder: Decoder, precision: str, device: torch.device) -> Objective:
        """The objective around a decoder; its other weights follow from the seed too."""
        settings = self.settings
        multiple = padded_to(settings.row_tokens, device)
        setup = Setup(
            precision, multiple, settings, self.data.tokenizer, self.events_per_token,
            self.data.rest, self.class_weights, token_counts(self.data), self.windows,
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            return self.objective(decoder, setup)


@dataclass(frozen=True)
class StepResult:
    """What a step did.

    Attributes:
        loss: of this process's rows, summed.
        weight: what the loss is divided by, summed over all processes.
        gradient: norm over all processes, before clipping.
        parts: named parts of the loss, summed as the loss is.
    """

    loss: float
    weight: float
    gradient: float
    parts: dict[str, float]


class Run:
    """A run between two steps: what the next one needs, and therefore what a checkpoint holds.

    Attributes:
        steps: steps done.
        position: of the sampler.
        rate: share of the peak learning rate that the last step used.
        flops, seconds: spent on the steps so far, by all processes together and by this one.
        curve, alarm: of the losses so far.
        checks: losses on tuning patients along the way.
        stopping: when it ends.
        best: weights and buffers at the best check, by name; empty before, or where a run does not stop by checks.
    """

    def __init__(self, plan: RunPlan, group: ProcessGroup):
        """Raises InputError where the processes cannot share the rows of a step evenly."""
        settings, rows = plan.settings, plan.rows_per_step
        if rows % group.size:
            raise InputError(
                f"A step of {settings.batch_tokens} tokens has {rows} rows of {settings.row_tokens}, which "
                f"{group.size} processes cannot share evenly: {evenly(plan.resolved, group.size)}."
            )
        self.plan, self.group = plan, group
        self.precision = precision.choose(settings.precision, group.device, plan.config.hidden_size)
        self.objective = plan.build(plan.decoder(), self.precision, group.device)
        if plan.start is not None:
            self.objective.take_over(plan.start.folder)
        self.objective.to(group.device)
        if group.device.type == "cuda":
            self.objective.decoder.compile_blocks()
        self.module = parallelize(self.objective, settings.parallel, group)  # may replace the weights
        threads = self.objective.pure and not is_parallel(self.module) and group.device.type == "cpu"
        self.parallel_rows = ParallelRows(self.objective) if threads else None
        groups = self.objective.groups()
        _check(groups, self.objective)
        self.optimizers = optimizers(groups, settings)
        self.peaks = [optimizer.param_groups[0]["lr"] for optimizer in self.optimizers]
        self.steps, self.position, self.rate = 0, plan.batches().state(), 0.0
        self.flops, self.seconds = 0, 0.0
        self.curve, self.alarm = LossCurve(settings.tokens), DivergenceAlarm()
        self.checks: list[dict] = []
        self.stopping, self.best = Stopping.of(settings), {}

    @property
    def tokens(self) -> int:
        """Tokens seen so far."""
        return self.position["tokens"]

    @property
    def over(self) -> bool:
        """Whether no step is left."""
        return self.tokens >= self.stopping.end

    def judge(self, loss: float) -> None:
        """Take the loss of a check: keep the weights if it is the best, begin to cool down if it stalls."""
        if self.stopping.judge(loss, self.tokens):
            self.best = {name: x.clone() for name, x in self._trained.state().items()}
        if self.stopping.stalls(self.tokens):
            self.go_back()

    def go_back(self) -> None:
        """To the weights of the best check."""
        with torch.no_grad():
            for name, x in self._trained.state().items():
                x.copy_(self.best[name])

    @property
    def _trained(self) -> checkpoint.Trained:
        return checkpoint.Trained(self.objective, self.optimizers, self.best)

    def save(self, folder: Path) -> None:
        """Write a checkpoint into `folder`; all processes call this."""
        progress = {
            "steps": self.steps, "position": self.position, "flops": self.flops, "seconds": self.seconds,
            "curve": self.curve.state(), "watch": self.alarm.state(), "checks": self.checks,
            "precision": self.precision, "stopping": self.stopping.state(),
        }  # fmt: skip
        checkpoint.write_step(folder, self.steps, self._trained, progress, self.plan.identity(), self.group)

    def restore(self, folder: Path) -> bool:
        """Continue from the latest whole checkpoint in `folder`, if there is one; all processes call this.

        Raises:
            InputError: where this processor would compute in another precision than the one that began the run.
        """
        progress = checkpoint.read_latest(folder, self._trained, self.plan.identity(), self.group)
        if progress is None:
            return False
        if progress["precision"] != self.precision:
            raise InputError(
                f"The run was begun in {progress['precision']}, but this processor would go on in {self.precision}: "
                "continue where it began, set precision, or start over without resuming."
            )
        self.steps, self.position = progress["steps"], progress["position"]
        self.flops, self.seconds, self.checks = progress["flops"], progress["seconds"], progress["checks"]
        self.curve.restore(progress["curve"])
        self.alarm.restore(progress["watch"])
        self.stopping = Stopping.restored(progress["stopping"])
        return True

    def feed(self) -> Generator[tuple[Step, list[tuple[Weighted, float]]]]:
        """The steps to come, each with the rows that this process takes and their weights."""
        batches = self.plan.batches()
        batches.start_at(self.position)
        return feed(batches, self.collate, self.group.device, self.group.share)

    def collate(self, row: np.ndarray) -> Weighted:
        """The batch of a row, given its windows."""
        return self.objective.collate(self.plan.windows, row)

    def take(self, step: Step, passes: list[tuple[Weighted, float]]) -> StepResult:
        """One step: the gradient of its mean loss, row by row, then the optimizers."""
        end = self.stopping.end
        middle = (step.tokens + min(step.after["tokens"], end)) / 2  # the last step may overshoot
        self.rate = self.stopping.rate(middle)
        for optimizer, peak in zip(self.optimizers, self.peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * self.rate
            optimizer.zero_grad()
        (weight,) = self.group.sum(sum(row_weight * batch.weight for batch, row_weight in passes))
        weight = weight or 1.0  # nothing to learn from in this step: the loss is 0
        scale = self.group.size / weight  # gradients are averaged over the processes, and this makes it a sum
        losses = self._backward(passes, scale)
        gradient = clip(self.objective, self.plan.settings.clip)
        for optimizer in self.optimizers:
            optimizer.step()
        self.steps, self.position = self.steps + 1, step.after
        self.flops += self.objective.flops(self.lengths(step))
        if names := list(losses[0].figures):
            sums = self.group.sum(*(float(sum(loss.figures[name] for loss in losses)) for name in names))
            self.objective.heed({name: value / self.group.size for name, value in zip(names, sums, strict=True)})
        with torch.no_grad():
            self.objective.after_step(min(1.0, self.tokens / end))
        parts = {name: float(sum(loss.parts[name] for loss in losses)) / scale for name in losses[0].parts}
        return StepResult(float(sum(loss.total for loss in losses)) / scale, weight, gradient, parts)

    def _backward(self, passes: list[tuple[Weighted, float]], scale: float) -> list[Loss]:
        """Add up the gradients of the rows of this process; returns their losses, scaled and detached."""

        def loss(row: tuple[Weighted, float]) -> tuple[Tensor, Loss]:
            batch, row_weight = row
            (total, *more), factor = self.module(batch), row_weight * scale
            parts, figures = ({name: x.detach() * factor for name, x in each.items()} for each in more)
            total = total * factor
            return total, Loss(total.detach(), parts, figures)

        if self.parallel_rows is not None:
            return self.parallel_rows.backward(loss, passes)
        losses = []
        for number, row in enumerate(passes):
            with accumulating(self.module, last=number == len(passes) - 1):
                total, detached = loss(row)
                total.backward()
            losses.append(detached)
        return losses

    def lengths(self, step: Step) -> np.ndarray:
        """Tokens of each window of a step, over all processes."""
        return self.plan.windows.lengths[np.concatenate(step.rows)]

    def whole(self) -> Objective:
        """The objective with whole weights: a copy if they are sharded. All processes call this and get one."""

        def blank() -> Any:
            return self.plan.build(Decoder(self.plan.config), self.precision, self.group.device)

        return whole(self.objective, blank)


def _check(groups: list[Group], objective: torch.nn.Module) -> None:
    """Raises ValueError unless every weight that requires a gradient is in one group, and none in two."""
    seen: dict[int, str] = {}
    for group in groups:
        for weight in group.weights:
            if id(weight) in seen:
                raise ValueError(f"a weight is in two groups: {seen[id(weight)]!r} and {group.name!r}")
            seen[id(weight)] = group.name
    for name, weight in objective.named_parameters():
        if weight.requires_grad and id(weight) not in seen:
            raise ValueError(f"{name} requires a gradient but is in no group: add it to one or freeze it")
