"""A training run: what it is to do, and how it goes from one step to the next."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from sequela.errors import InputError
from sequela.model import flops, precision
from sequela.model.config import ModelConfig
from sequela.model.decoder import Decoder
from sequela.tokens import corpus as corpora
from sequela.tokens.corpus import Corpus
from sequela.tokens.packing import Windows
from sequela.training import checkpoint as state
from sequela.training.cpu_threads import Abreast
from sequela.training.data import Inputs, Sampler, Step, feed, padded_to
from sequela.training.derive import Resolved, context_of, resolve
from sequela.training.monitor import DivergenceAlarm, LossCurve
from sequela.training.objectives.next_token import NextToken
from sequela.training.optimizer import optimizers, schedule
from sequela.training.parallel import ProcessGroup, accumulating, clip, parallelize
from sequela.training.score import windows
from sequela.training.settings import TrainSettings

CHECKED = 0.02  # of the work of a run may go into checks on the way


@dataclass(frozen=True)
class RunPlan:
    """What a run is to do: everything that is known before its first step.

    Attributes:
        windows: those of the training patients.
        resolved: the settings, every one filled, and where each comes from.
        config: of the decoder.
    """

    corpus: Path
    data: Corpus
    tuning: Corpus
    windows: Windows
    resolved: Resolved
    config: ModelConfig

    @staticmethod
    def of(corpus: Path, settings: TrainSettings) -> RunPlan:
        """Raises InputError for a corpus without training patients."""
        data, tuning = Corpus.load(corpus, "train"), Corpus.load(corpus, "tuning")
        cut = windows(data, context_of(settings))
        if len(cut) == 0:
            raise InputError(
                f"{corpus} has no training patient: tokenize a larger dataset or change the split."
            )
        tokenizer = data.tokenizer
        resolved = resolve(settings, len(tokenizer.vocabulary), int(cut.lengths.sum()))
        time = "rotary" if tokenizer.positions_from_clock else "intervals"
        config = replace(resolved.model, vocabulary=tokenizer.vocabulary.hash, time=time)
        return RunPlan(corpus, data, tuning, cut, resolved, config)

    @property
    def settings(self) -> TrainSettings:
        """None of them open."""
        return self.resolved.settings

    @property
    def rows_per_step(self) -> int:
        """Of all processes together."""
        return max(1, round(self.settings.batch_tokens / self.settings.row_tokens))

    def batches(self) -> Sampler:
        """The steps, from the first one on."""
        chosen = self.settings
        return Sampler(
            self.windows.lengths, chosen.row_tokens, self.rows_per_step, chosen.tokens, chosen.seed
        )

    def same(self) -> dict:
        """What makes two runs the same run."""
        digest = hashlib.sha256((self.corpus / corpora.FILE).read_bytes()).hexdigest()
        return {"settings": self.settings.of_result, "corpus": digest}

    @property
    def events_per_token(self) -> float:
        """Events of the training patients for each of their tokens that is predicted."""
        return self.data.events / max(1, int(self.windows.lengths.sum()) - len(self.windows))

    def sample(self) -> np.ndarray:
        """Some tuning patients to check with on the way, one or as many as take `CHECKED` of the run's work."""
        lengths = self.tuning.tokens.lengths
        order = np.random.default_rng(self.settings.seed).permutation(len(lengths))
        most = 3 * CHECKED * self.settings.tokens / max(1, self.settings.checks)  # a pass forward is a third
        fit = int((np.cumsum(lengths[order]) <= most).sum())
        return order[: max(1, fit)]


class Run:
    """A run between two of its steps: what the next one needs, and so what a checkpoint holds.

    Attributes:
        steps: steps done.
        position: where the stream of batches stands.
        flops, seconds: spent on the steps so far, by all processes together and by this one.
        curve, watch: of the losses so far.
        checks: the losses on some tuning patients, on the way.
    """

    def __init__(self, plan: RunPlan, world: ProcessGroup):
        """Raises InputError where the processes cannot share the rows of a step evenly."""
        settings, rows = plan.settings, plan.rows_per_step
        if rows % world.size:
            raise InputError(
                f"A step of {settings.batch_tokens} tokens has {rows} rows of {settings.row_tokens}, which "
                f"{world.size} processes cannot share evenly: set --batch-tokens to a multiple of "
                f"{world.size * settings.row_tokens}, or lower --row-tokens."
            )
        self.plan, self.world = plan, world
        self.precision = precision.choose(settings.precision, world.device, plan.config.hidden_size)
        decoder = Decoder(plan.config).initialize(settings.seed)
        self.objective = NextToken(decoder, self.precision).to(world.device)
        if world.device.type == "cuda":
            self.objective.compile_blocks()
        self.module = parallelize(self.objective, settings.parallel, world)  # may replace the weights
        alone = self.module is self.objective and world.device.type == "cpu"
        self.abreast = Abreast(self.objective) if alone else None
        self.steppers = optimizers(self.objective.decoder, settings)
        self.peaks = [stepper.param_groups[0]["lr"] for stepper in self.steppers]
        self.steps, self.position = 0, plan.batches().state()
        self.flops, self.seconds = 0, 0.0
        self.curve, self.watch = LossCurve(settings.tokens), DivergenceAlarm()
        self.checks: list[dict] = []

    @property
    def tokens(self) -> int:
        """Seen so far."""
        return self.position["tokens"]

    def save(self, folder: Path) -> None:
        """Write a checkpoint into `folder`; all processes call this."""
        facts = {
            "steps": self.steps, "position": self.position, "flops": self.flops, "seconds": self.seconds,
            "curve": self.curve.state(), "watch": self.watch.state(), "checks": self.checks,
            "precision": self.precision,
        }  # fmt: skip
        state.save(folder, self.steps, self.objective, self.steppers, facts, self.plan.same(), self.world)

    def restore(self, folder: Path) -> bool:
        """Go on from the latest whole checkpoint in `folder`, where there is one; all processes call this.

        Raises:
            InputError: where this processor computes in other numbers than the one that began the run.
        """
        facts = state.restore(folder, self.objective, self.steppers, self.plan.same(), self.world)
        if facts is None:
            return False
        if facts["precision"] != self.precision:
            raise InputError(
                f"The run was begun in {facts['precision']}, and this processor would go on in {self.precision}: go on "
                "where it began, or begin anew with --no-resume."
            )
        self.steps, self.position = facts["steps"], facts["position"]
        self.flops, self.seconds, self.checks = facts["flops"], facts["seconds"], facts["checks"]
        self.curve.go_on(facts["curve"])
        self.watch.go_on(facts["watch"])
        return True

    def feed(self) -> Generator[tuple[Step, list[tuple[Inputs, float]]]]:
        """The steps to come, each with the rows that this process takes and their weights."""
        batches = self.plan.batches()
        batches.start_at(self.position)
        device = self.world.device
        multiple = padded_to(self.plan.settings.row_tokens, device)
        return feed(batches, self.plan.windows, device, share=self.world.share, multiple=multiple)

    def take(self, step: Step, passes: list[tuple[Inputs, float]]) -> tuple[float, float]:
        """One step: the gradient of its mean loss, row by row, then the optimizers.

        Returns:
            nats: the loss of this process's rows, summed.
            gradient: its norm over all processes, before clipping.
        """
        settings, predicted = self.plan.settings, self.predicted(step)
        middle = (step.tokens + min(step.after["tokens"], settings.tokens)) / 2  # the last step may overshoot
        rate = schedule(middle / settings.tokens, settings)
        for stepper, peak in zip(self.steppers, self.peaks, strict=True):
            stepper.param_groups[0]["lr"] = peak * rate
            stepper.zero_grad()
        # Gradients are averaged over the processes, and this is to be their sum
        scale = self.world.size / predicted
        if self.abreast is not None:
            weighed = self.abreast.backward(partial(self._loss, scale=scale), passes)
        else:
            weighed = []
            for number, row in enumerate(passes):
                with accumulating(self.module, last=number == len(passes) - 1):
                    loss = self._loss(row, scale)
                    loss.backward()
                weighed.append(loss.detach())
        gradient = clip(self.objective, settings.clip)
        for stepper in self.steppers:
            stepper.step()
        self.steps, self.position = self.steps + 1, step.after
        self.flops += flops.train(self.plan.config, self.lengths(step))
        return float(sum(weighed)) / scale, gradient

    def _loss(self, row: tuple[Inputs, float], scale: float) -> Tensor:
        """Nats of a row of this process, weighed and scaled."""
        batch, weight = row
        nats, _ = self.module(batch)
        return nats * (weight * scale)

    def lengths(self, step: Step) -> np.ndarray:
        """Tokens of each window of a step, those of all processes."""
        return self.plan.windows.lengths[np.concatenate(step.rows)]

    def predicted(self, step: Step) -> int:
        """How many tokens of a step are predicted, by all processes: all but each window's first."""
        return max(1, int((self.lengths(step) - 1).sum()))
