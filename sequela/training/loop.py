"""The one training loop."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from sequela.errors import InputError
from sequela.model import checkpoint
from sequela.progress import Progress, silent
from sequela.training import checkpoint as state
from sequela.training import monitor as watch
from sequela.training.data import Step
from sequela.training.monitor import Writer, writer
from sequela.training.parallel import ProcessGroup, whole
from sequela.training.peak import measured_peak
from sequela.training.run import Run, RunPlan
from sequela.training.score import losses
from sequela.training.settings import TrainSettings
from sequela.training.shutdown import Interrupted, Shutdown

LOG = "train.json"
CHECKPOINTS = "checkpoints"


def _unheard(line: str) -> None:
    """Where nobody listens."""


def train(
    corpus: Path,
    out: Path,
    settings: TrainSettings | None = None,
    *,
    resume: bool = True,
    beside: Path | None = None,
    progress: Progress = silent,
    say: Callable[[str], None] = _unheard,
    world: ProcessGroup | None = None,
    stop: Shutdown | None = None,
) -> dict:
    """Pretrain a decoder on the training split of a corpus and write a checkpoint folder into `out`.

    Args:
        resume: go on from a checkpoint of the same run in `out`, where there is one.
        beside: the folder that people know `out` by. Metrics go into BESIDE-log, a batch that stopped the run into
            BESIDE-stopped. `out` unless given.
        say: gets the settings as they were filled in, a line each.
        world: the processes of the run; this one alone unless given.
        stop: whether the run is asked to end; then it saves itself and raises Interrupted.

    Returns:
        What `train.json` says: settings, steps, tokens, FLOPs, seconds, and the losses in bits per token and per event
        on training and tuning patients, there for each kind of event too.

    Raises:
        InputError: for a corpus without patients, and when the loss runs away.
        Interrupted: when asked to end.
    """
    world, stop, beside = world or ProcessGroup(), stop or Shutdown(), beside or out
    if not world.leads:
        progress, say = silent, _unheard
    plan, saved = RunPlan.of(corpus, settings or TrainSettings()), out / CHECKPOINTS
    if resume and (done := world.tell(_finished(out, plan) if world.leads else None)):
        state.discard(saved, world)
        return done
    run = Run(plan, world)
    if not resume:
        state.discard(saved, world)
    elif run.restore(saved):
        say(f"goes on after {run.tokens:,} of {plan.settings.tokens:,} tokens")
    for line in (*plan.resolved.lines(), f"{'precision':<16}{run.precision}"):
        say(line)
    log = plan.settings.log if world.leads else "none"
    with closing(writer(log, _beside(beside, "log"), plan.settings.of_result, anew=not run.steps)) as metrics:
        shown = _Shown(run, metrics, progress)
        _take_steps(run, saved, shown, stop, _beside(beside, "stopped"))
        run.save(saved)  # whatever happens from here on, nothing is trained again
        about = _finish(run, out, shown)
    state.discard(saved, world)
    return about


class _Shown:
    """What people see of a run while it goes on, and how fast it is since this process took it up."""

    def __init__(self, run: Run, metrics: Writer, progress: Progress):
        self.run, self.metrics, self.progress = run, metrics, progress
        self.begun = _spent(run)
        one = measured_peak(run.plan.config, run.precision, run.world.device) if run.world.leads else math.nan
        self.peak = one * run.world.size
        self.checked_with = run.plan.sample()

    def speed(self) -> dict[str, float]:
        """Since this process took the run up."""
        return self._speed(*(now - then for now, then in zip(_spent(self.run), self.begun, strict=True)))

    def speed_of_all(self) -> dict[str, float]:
        """Of the whole run, whatever processes took part in it."""
        return self._speed(*_spent(self.run))

    def _speed(self, tokens: int, flops: int, seconds: float) -> dict[str, float]:
        """Tokens per second, and model FLOPs utilisation: the share of the peak of matrix products."""
        seconds = max(seconds, 1e-9)
        return {"tokens_per_second": tokens / seconds, "MFU": flops / seconds / self.peak}

    def step(self, step: Step, bits: float, gradient: float) -> None:
        """After a step of so many bits in all."""
        run, predicted = self.run, self.run.predicted(step)
        speed, total = self.speed(), run.plan.settings.tokens
        per_event = 1 / run.plan.events_per_token
        self.progress(
            run.tokens,
            total,
            bits_per_event=bits / predicted * per_event,
            tokens_per_second=speed["tokens_per_second"],
            seconds_left=max(0, total - run.tokens) / speed["tokens_per_second"],
            MFU=f"{speed['MFU']:.0%}",
        )
        point = run.curve.add(run.tokens, bits, predicted)
        if point is not None:
            losses = {"bits_per_token": point, "bits_per_event": point * per_event, "gradient": gradient}
            rates = {"learning_rate": run.steppers[-1].param_groups[0]["lr"]}
            self.metrics.write(run.tokens, _prefixed("train", losses | rates | speed))

    def check(self, step: Step) -> None:
        """Score some of the tuning patients where it is time to; all processes call this."""
        run, total = self.run, self.run.plan.settings.tokens
        parts = run.plan.settings.checks + 1  # there is a check between any two of them
        before, now = (parts * tokens // total for tokens in (step.tokens, run.tokens))
        if before == now or run.tokens >= total:
            return
        decoder = whole(run.objective.decoder)
        found = losses(decoder, run.plan.tuning, self.checked_with) if run.world.leads else None
        if found is not None:
            run.checks.append({"tokens": run.tokens, **found})
            self.scored(found)

    def scored(self, found: dict) -> None:
        """Tell the metrics of losses on tuning patients."""
        flat = {f"bits_per_event_of/{kind}": one["bits_per_event"] for kind, one in found["kinds"].items()}
        flat |= {name: found[name] for name in ("bits_per_token", "bits_per_event")}
        self.metrics.write(self.run.tokens, _prefixed("tuning", flat))


def _spent(run: Run) -> tuple[int, int, float]:
    return run.tokens, run.flops, run.seconds


def _take_steps(run: Run, saved: Path, shown: _Shown, stop: Shutdown, stopped: Path) -> None:
    """Every step that is left, with checkpoints in `saved`."""
    world, settings = run.world, run.plan.settings
    last_saved = started = time.perf_counter()
    with closing(run.feed()) as steps, stop.held():
        for step, passes in steps:
            nats, gradient = run.take(step, passes)
            due = world.leads and time.perf_counter() - last_saved >= 60 * settings.checkpoint_minutes
            nats, asked, due = world.sum(nats, stop.asked, due)
            run.seconds += time.perf_counter() - started
            bits = nats / math.log(2)
            why = run.watch.check(bits / run.predicted(step), gradient)
            can_pass = math.isfinite(bits) and math.isfinite(gradient)
            if why and not (settings.ignore_spikes and can_pass):
                raise _ran_away(run, step, why, stopped, can_pass)
            shown.step(step, bits, gradient)
            shown.check(step)
            if asked or due:
                run.save(saved)
                last_saved = time.perf_counter()
            if asked:
                raise Interrupted(
                    f"stopped after {run.tokens:,} of {settings.tokens:,} tokens; "
                    "run the same command again to go on."
                )
            started = time.perf_counter()


def _ran_away(run: Run, step: Step, why: str, folder: Path, can_pass: bool) -> InputError:
    """Keep the batch of a step whose loss ran away; the error that says so.

    `can_pass`: the loss and the gradient are numbers, so that the run could go on.
    """
    plan = run.plan
    if run.world.leads:
        rows = [[plan.windows[window] for window in row] for row in step.rows]
        patients = [plan.data.patients[plan.windows.patient[row]] for row in step.rows]
        about = {"why": why, "step": run.steps, "tokens": run.tokens, "losses_before": run.watch.losses}
        watch.keep(folder, rows, patients, about | {"settings": asdict(plan.settings)})
    return InputError(
        f"At step {run.steps} {why}. Its batch is in {folder}: see whether its patients are as they should be; then "
        f"lower --learning-rate and --matrix-rate (now {plan.settings.learning_rate:.3g} and "
        f"{plan.settings.matrix_rate:.3g}){', or let it pass with --ignore-spikes' if can_pass else ''}."
    )


def _finish(run: Run, out: Path, shown: _Shown) -> dict:
    """Write the checkpoint folder; all processes call this."""
    plan, decoder, about = run.plan, whole(run.objective.decoder), None
    if run.world.leads:
        tuning = losses(decoder, plan.tuning)
        if tuning is not None:
            shown.scored(tuning)
        about = {
            "settings": asdict(plan.settings),
            "same": plan.same(),
            "dial": plan.resolved.as_dict(),
            "precision": run.precision,
            "model": plan.config.as_dict(),
            "vocabulary": plan.config.vocabulary,
            "parameters": plan.config.parameters,
            "processes": run.world.size,
            "steps": run.steps,
            "tokens": run.tokens,
            "flops": run.flops,
            "seconds": run.seconds,
            **shown.speed_of_all(),
            "peak_flops_per_second": shown.peak,
            "train_bits_per_token": run.curve.last(0.05),
            "tuning": tuning,
            "checks": run.checks,
            "curve_tokens": run.curve.tokens,
            "curve_bits_per_token": run.curve.bits_per_token,
        }
        checkpoint.save(decoder, out)
        plan.data.tokenizer.hand_over(plan.corpus, plan.data.tokens.parts, out)
        work = out / f".{LOG}"
        work.write_text(json.dumps(about, indent=1))
        work.rename(out / LOG)  # last, so that it says that all is there
    return run.world.tell(about)


def _finished(out: Path, plan: RunPlan) -> dict | None:
    """What `train.json` says, where the run is complete and only the folder was not handed over yet."""
    if not (out / LOG).exists():
        return None
    about = json.loads((out / LOG).read_text())
    return about if about.get("same") == plan.same() else None


def _beside(folder: Path, what: str) -> Path:
    return folder.with_name(f"{folder.name}-{what}")


def _prefixed(where: str, metrics: dict[str, float]) -> dict[str, float]:
    return {f"{where}/{name}": value for name, value in metrics.items()}
