"""The training loop."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from sequela.errors import InputError
from sequela.progress import Progress, silent
from sequela.training import checkpoint
from sequela.training.data import Step
from sequela.training.monitor import MetricsLog, keep_batch, metrics_log
from sequela.training.objectives.objective import ObjectiveFactory, Validation
from sequela.training.parallel import ProcessGroup
from sequela.training.peak import measured_peak
from sequela.training.run import Run, RunPlan, StepResult
from sequela.training.settings import REPORT, RESIDUALS, TrainSettings
from sequela.training.shutdown import Interrupted, Shutdown

CHECKPOINTS = "checkpoints"


def _ignore(line: str) -> None:
    """The default listener."""


@dataclass(frozen=True)
class Host:
    """What a run runs in and reports to.

    Attributes:
        group: the processes of the run.
        shutdown: whether the run is asked to stop; then it saves itself and raises Interrupted.
        progress: shows how far the run is.
        say: gets the settings as they were filled in, a line each.
        beside: the folder that people know the run by. Metrics go into BESIDE-log, a batch that stopped the run into
            BESIDE-stopped. The one that it writes unless given.
    """

    group: ProcessGroup = field(default_factory=ProcessGroup)
    shutdown: Shutdown = field(default_factory=Shutdown)
    progress: Progress = silent
    say: Callable[[str], None] = _ignore
    beside: Path | None = None


def train(
    corpus: Path,
    out: Path,
    settings: TrainSettings | None = None,
    *,
    objective: ObjectiveFactory | None = None,
    init_from: Path | None = None,
    resume: bool = True,
    host: Host | None = None,
) -> dict:
    """Train a decoder on the training split of a corpus and write a checkpoint folder into `out`.

    Args:
        objective: what it learns; the first of `OBJECTIVES` unless given.
        init_from: the checkpoint whose weights it starts from; random ones unless given.
        resume: continue from a checkpoint of the same run in `out`, if there is one.
        host: processes, shutdown, and progress; this process alone and silent unless given.

    Returns:
        The content of `train.json`: settings, steps, tokens, FLOPs, seconds, and the losses on training and tuning
        patients in the objective's units.

    Raises:
        InputError: for a corpus without patients, a checkpoint that does not fit it, and if the loss diverges.
        Interrupted: if asked to stop.
    """
    host = host or Host()
    group, beside = host.group, host.beside or out
    say = host.say if group.leads else _ignore
    plan, saved = RunPlan.of(corpus, settings or TrainSettings(), objective, init_from), out / CHECKPOINTS
    if resume and (done := group.broadcast(_finished(out, plan) if group.leads else None)):
        checkpoint.discard(saved, group)
        return done
    run = Run(plan, group)
    if not resume:
        checkpoint.discard(saved, group)
    elif run.restore(saved):
        say(f"resumes after {run.tokens:,} of {plan.settings.tokens:,} tokens")
    for line in (*plan.resolved.lines(), f"{'precision':<16}{run.precision}"):
        say(line)
    log = plan.settings.log if group.leads else "none"
    with closing(metrics_log(log, _beside(beside, "log"), plan.settings.of_result, anew=not run.steps)) as metrics:
        reporter = _Reporter(run, metrics, host.progress if group.leads else silent, say)
        _take_steps(run, saved, reporter, host.shutdown, _beside(beside, "stopped"))
        run.save(saved)  # whatever happens from here on, nothing is trained twice
        report = _finish(run, out, reporter, reporter.put_best_back())
    checkpoint.discard(saved, group)
    return report


class _Reporter:
    """Shows a run while it goes on, and how fast it has been since this process started or resumed it."""

    def __init__(self, run: Run, metrics: MetricsLog, progress: Progress, say: Callable[[str], None] = _ignore):
        self.run, self.metrics, self.progress, self.say = run, metrics, progress, say
        self.start = _totals(run)
        self.peak = self._peak() if run.group.leads else math.nan
        self.checked = False
        self.sample = run.plan.sample()

    def _peak(self) -> float:
        """FLOP/s of matrix products on the processes together, as they are now."""
        run = self.run
        return measured_peak(run.plan.config, run.precision, run.group.device) * run.group.size

    def speed(self) -> dict[str, float]:
        """Since this process started or resumed the run."""
        return self._speed(*(now - then for now, then in zip(_totals(self.run), self.start, strict=True)))

    def speed_of_all(self) -> dict[str, float]:
        """Of the whole run, whatever processes took part in it."""
        return self._speed(*_totals(self.run))

    def _speed(self, tokens: int, flops: int, seconds: float) -> dict[str, float]:
        """Tokens per second, and model FLOPs utilization: the share of the peak of matrix products.

        Where a run is faster than the peak, something else took the processor while that was measured: it is measured
        once more. A share above 1 is never told.
        """
        seconds = max(seconds, 1e-9)
        rate = flops / seconds
        if rate > self.peak and not self.checked:
            self.checked, self.peak = True, max(self.peak, self._peak())
        share = {"MFU": rate / self.peak} if rate <= self.peak or math.isnan(self.peak) else {}
        return {"tokens_per_second": tokens / seconds, **share}

    def step(self, loss: float, parts: dict[str, float], result: StepResult) -> None:
        """After a step. `loss` and `parts` are summed over all processes, in the unit shown."""
        run, objective = self.run, self.run.objective
        speed, total = self.speed(), run.stopping.end
        headline, value = next(iter(objective.figures(loss / result.weight).items()))
        self.progress(
            run.tokens,
            total,
            **{headline: value},
            tokens_per_second=speed["tokens_per_second"],
            **({"MFU": f"{speed['MFU']:.0%}"} if "MFU" in speed else {}),
        )
        point = run.curve.add(run.tokens, loss, result.weight)
        if point is not None:
            figures = objective.figures(point) | {name: part / result.weight for name, part in parts.items()}
            rates = {"gradient": result.gradient, "learning_rate": run.rate * run.plan.settings.learning_rate}
            self.metrics.write(run.tokens, _prefixed("train", figures | rates | speed))

    def check(self, step: Step) -> None:
        """Score some of the tuning patients when it is time to; all processes call this."""
        run, total = self.run, self.run.plan.settings.tokens
        parts = run.plan.settings.checks + 1  # with a check between any two of them
        before, now = (parts * tokens // total for tokens in (step.tokens, run.tokens))
        if before == now or run.over:
            return
        validation = self._validate()
        if validation is None:
            return
        run.checks.append({"tokens": run.tokens, **validation.details})
        self.validated(validation)
        if not run.plan.settings.patience:
            return
        run.judge(validation.watched)
        if run.stopping.stalled == run.tokens:
            self.say(
                f"tuning patients are not predicted better than after {run.stopping.best_tokens:,} tokens: goes back "
                f"to the weights it had then, and cools down until {run.stopping.end:,}"
            )

    def put_best_back(self) -> int:
        """Put the weights of the best check back unless the last ones are better; returns after how many tokens they
        were. All processes call this."""
        run = self.run
        if not run.best or (last := self._validate()) is None or last.watched <= run.stopping.best:
            return run.tokens
        run.go_back()
        self.say(f"keeps the weights of {run.stopping.best_tokens:,} tokens, the best on tuning patients")
        return run.stopping.best_tokens

    def _validate(self) -> Validation | None:
        """On the sample, the same for all processes."""
        objective, group = self.run.whole(), self.run.group
        return group.broadcast(objective.validate(self.run.plan.tuning, self.sample) if group.leads else None)

    def validated(self, validation: Validation) -> None:
        """Log figures on tuning patients."""
        self.metrics.write(self.run.tokens, _prefixed("tuning", validation.figures))


def _totals(run: Run) -> tuple[int, int, float]:
    return run.tokens, run.flops, run.seconds


def _take_steps(run: Run, saved: Path, reporter: _Reporter, shutdown: Shutdown, stopped: Path) -> None:
    """Every step that is left, with checkpoints in `saved`."""
    group, settings, shown = run.group, run.plan.settings, run.objective.shown
    last_saved = started = time.perf_counter()
    with closing(run.feed()) as steps, shutdown.deferred():
        for step, passes in steps if not run.over else ():
            result = run.take(step, passes)
            due = group.leads and time.perf_counter() - last_saved >= 60 * settings.checkpoint_minutes
            loss, requested, due, *sums = group.sum(result.loss, shutdown.requested, due, *result.parts.values())
            run.seconds += time.perf_counter() - started
            loss, parts = shown(loss), dict(zip(result.parts, map(shown, sums), strict=True))
            loss = parts.pop(run.objective.unit, loss)
            why = run.alarm.check(loss / result.weight, result.gradient, result.weight)
            can_pass = math.isfinite(loss) and math.isfinite(result.gradient)
            if why and not (settings.ignore_spikes and can_pass):
                raise _diverged(run, step, why, stopped, can_pass)
            reporter.step(loss, parts, result)
            reporter.check(step)
            if requested or due:
                run.save(saved)
                last_saved = time.perf_counter()
            if requested:
                raise Interrupted(
                    f"stopped after {run.tokens:,} of {settings.tokens:,} tokens; "
                    "run the same command again to continue."
                )
            if run.over:
                break
            started = time.perf_counter()


def _diverged(run: Run, step: Step, why: str, folder: Path, can_pass: bool) -> InputError:
    """Keep the batch of the step at which the loss diverged; returns the error to raise.

    `can_pass`: the loss and the gradient are finite, so that the run could go on.
    """
    plan = run.plan
    if run.group.leads:
        rows = [[plan.windows[window] for window in row] for row in step.rows]
        patients = [plan.data.patients[plan.windows.patient[row]] for row in step.rows]
        meta = {"why": why, "step": run.steps, "tokens": run.tokens, "losses_before": run.alarm.losses}
        keep_batch(folder, rows, patients, meta | {"settings": plan.settings.as_dict})
    return InputError(
        f"At step {run.steps} {why}. Its batch is in {folder}: check whether its patients are what they should be; "
        f"then lower learning_rate and matrix_rate (now {plan.settings.learning_rate:.3g} and "
        f"{plan.settings.matrix_rate:.3g}){', or let it pass with ignore_spikes' if can_pass else ''}."
    )


def _finish(run: Run, out: Path, reporter: _Reporter, weights_of: int) -> dict:
    """Write the checkpoint folder with the weights after so many tokens; all processes call this."""
    plan, objective, report = run.plan, run.whole(), None
    if run.group.leads:
        validation = objective.validate(plan.tuning)
        if validation is not None:
            reporter.validated(validation)
        report = {
            "settings": plan.settings.as_dict,
            "same": plan.identity(),
            "dial": plan.resolved.as_dict(),
            "precision": run.precision,
            "model": plan.config.as_dict(),
            "vocabulary": plan.config.vocabulary,
            "parameters": plan.config.parameters,
            "processes": run.group.size,
            "steps": run.steps,
            "tokens": run.tokens,
            "flops": run.flops,
            "seconds": run.seconds,
            "stopped": run.stopping.summary(weights_of),
            "MFU": None,  # unless it is known
            **reporter.speed_of_all(),
            "peak_flops_per_second": reporter.peak,
            f"train_{objective.unit}": run.curve.last(0.05),
            "tuning": validation.details if validation else None,
            RESIDUALS: objective.compared(plan.tuning, plan.sample(1)),
            "checks": run.checks,
            "curve_tokens": run.curve.tokens,
            f"curve_{objective.unit}": run.curve.losses,
        }
        objective.save(out)
        plan.data.tokenizer.hand_over(plan.corpus, plan.data.tokens.parts, out)
        work = out / f".{REPORT}"
        work.write_text(json.dumps(report, indent=1), encoding="utf-8")
        work.rename(out / REPORT)  # last, so that its presence says that all is there
    return run.group.broadcast(report)


def _finished(out: Path, plan: RunPlan) -> dict | None:
    """The report of a run that is complete, although its folder was not handed over yet."""
    if not (out / REPORT).exists():
        return None
    report = json.loads((out / REPORT).read_text(encoding="utf-8"))
    return report if report.get("same") == plan.identity() else None


def _beside(folder: Path, suffix: str) -> Path:
    return folder.with_name(f"{folder.name}-{suffix}")


def _prefixed(split: str, metrics: dict[str, float]) -> dict[str, float]:
    return {f"{split}/{name}": value for name, value in metrics.items()}
