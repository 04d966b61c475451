"""`sequela embed`: a model and histories to vectors."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from sequela.rollout.embeddings.settings import EmbedSettings
from sequela.serve.stage import StageRun, stage


@stage()
def embed(
    model: Path,
    meds: Path,
    out: Path = Path("embeddings"),
    *,
    task: tuple[str, ...] = (),
    landmark: tuple[str, ...] = (),
    labels: Path | None = None,
    split: str | None = None,
    settings: EmbedSettings = EmbedSettings(),
    run: StageRun,
) -> dict:
    """Write what a model knows of each patient at each time as a vector.

    Who is asked when: the questions of tasks, so long after them as
    --landmark says, and those of label files. A vector knows what was
    recorded strictly before its time. Probes need the patients of all splits,
    so all are embedded unless --split names one.

    Example: sequela embed model/ meds/ embeddings/ --task death_5y
    --landmark "0 days" --landmark "365 days"

    Args:
        model: A checkpoint, such as sequela train writes.
        meds: A MEDS dataset with the histories.
        out: The folder to write: vectors/*.parquet and embeddings.json.
        task: A task by name (see sequela tasks) or a task file; repeat for several.
        landmark: A time after the questions of the tasks, such as "90 days" or "6 hours"; repeat for several.
        labels: A MEDS label file, or a folder of them: also embed its patients and times; its labels are not read.
        split: Only the patients of this split.

    Raises:
        InputError: where nothing is asked, a task or split does not exist, or the model has no state tokens and they
            are asked for.
    """
    identity = {**asdict(settings), "tasks": list(task), "landmarks": list(landmark), "split": split}
    inputs = {"model": model, "meds": meds, **({} if labels is None else {"labels": labels})}

    def make(work: Path) -> dict:
        from sequela.task.probing.embed import embed

        return embed(model, meds, work, task, landmark, labels, split, settings, run.progress, run.say)

    return run.folder(out, "embed", identity, inputs, make)
