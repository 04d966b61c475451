"""`sequela train`: a corpus to a model."""

from __future__ import annotations

import json
from pathlib import Path

from sequela.serve.stage import Finished, StageRun, stage
from sequela.training.settings import REPORT, RESIDUALS, TrainSettings
from sequela.training.shutdown import stopping


def _show(done: Finished) -> None:
    from sequela.serve.pages.residuals import print_residuals
    from sequela.serve.pages.terminal import print_losses

    about = json.loads((done.values["out"] / REPORT).read_text(encoding="utf-8"))
    if about["tuning"] is not None:
        print_losses(about["tuning"])
    if about[RESIDUALS] is not None:
        print_residuals(about[RESIDUALS])


@stage(show=_show, distributed=True)
def train(
    corpus: Path,
    out: Path,
    *,
    init_from: Path | None = None,
    resume: bool = True,
    settings: TrainSettings = TrainSettings(),
    run: StageRun,
) -> dict:
    """Train a decoder that continues timelines.

    The run is saved every few minutes and on SIGTERM. Interrupted or killed,
    it continues from there with the same command. On several processes:

    torchrun --nproc-per-node 2 -m sequela train corpus/ model/

    Example: sequela train corpus/ model/ --depth 2 --epochs 5

    Args:
        corpus: A corpus, such as sequela tokenize writes.
        out: The folder to write: a checkpoint that transformers can load too. Metrics for a log go into OUT-log, the
            batch on which the loss diverged into OUT-stopped.
        init_from: A checkpoint with the vocabulary of the corpus, whose weights and shape the model starts from.
        resume: Continue from what an interrupted run left behind.

    Raises:
        InputError: where the folder is no corpus, the checkpoint does not fit it, or the loss diverges.
        Interrupted: after SIGTERM, once the run is saved.
    """

    def make(work: Path) -> dict:
        from sequela.training.loop import Host, train

        group = {"group": run.group} if run.group else {}
        host = Host(shutdown=shutdown, progress=run.progress, say=run.say, beside=out, **group)
        summary = train(corpus, work, settings, init_from=init_from, resume=resume, host=host)
        # curves stay in train.json
        return {name: value for name, value in summary.items() if not isinstance(value, list)}

    inputs = {"corpus": corpus} | ({} if init_from is None else {"init_from": init_from})
    with stopping() as shutdown:
        return run.folder(
            out, "train", settings.of_result, inputs, make, resumable=True, fresh=not resume
        )
