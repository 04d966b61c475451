"""`sequela scale`: how the loss falls with compute, and what to train next."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sequela.errors import InputError
from sequela.rollout.settings import SimulateSettings
from sequela.serve.folder import launch
from sequela.serve.stage import Finished, StageRun, stage
from sequela.serve.stages.scaling.downstream import DownstreamSettings, downstream
from sequela.serve.stages.train import train
from sequela.training.scaling.settings import ScaleSettings
from sequela.training.settings import TrainSettings


def _line(done: Finished) -> str:
    from sequela.serve.pages.scale import PAGE

    answer = done.result["advice"]["answer"]
    return f"{answer}\nscale: {done.result['runs']} runs, open {done.values['out'] / PAGE} to read on."


@stage(line=_line)
def scale(
    corpus: Path,
    out: Path,
    *,
    flops: tuple[float, ...],
    settings: ScaleSettings = ScaleSettings(),
    base: TrainSettings = TrainSettings(),
    ask: DownstreamSettings = DownstreamSettings(),
    run: StageRun,
) -> dict:
    """Study how the loss falls with compute, and plan a larger run.

    Trains models of several sizes at each budget, fits power laws, checks them
    on the largest budget, and says what to train next. Started again, also
    with more budgets, it keeps the runs that are done; processes started on
    several machines on one shared folder share the runs.

    Example: sequela scale corpus/ study/ --flops 1e12 3e12 1e13 3e13

    Args:
        corpus: A corpus, such as sequela tokenize writes.
        out: The folder to write; scale.html in it is the result for people.
        flops: Budgets: the training FLOPs of each group of runs, two or more.

    Returns:
        What fit.json holds.

    Raises:
        InputError: where the folder holds another study, or budgets and corpus make no study.
    """
    from sequela.serve.stages.scaling import study

    if launch.launched():
        raise InputError(
            "a study is not started by torchrun: start `sequela scale` as often as there are machines, on one folder."
        )
    if bool(ask.task) != (ask.meds is not None):
        raise InputError("a study asks tasks about patients: give both `task` and `meds`, or neither.")

    def make(chosen: TrainSettings, folder: Path) -> dict:
        return train(corpus, folder, settings=chosen)

    def answers(rows: Sequence[dict]) -> list[dict]:
        settings = SimulateSettings(rollouts=ask.rollouts)
        return downstream(out, rows, ask, settings, progress=run.progress) if ask.task else []

    return study.scale(study.Study.of(corpus, out, flops, settings, base, make), run.progress, answers)
