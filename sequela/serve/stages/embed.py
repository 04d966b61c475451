"""`sequela embed`: a model and histories to vectors."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from sequela.rollout.embeddings.settings import EmbedSettings
from sequela.serve.ask import LandmarkSettings
from sequela.serve.stage import StageRun, stage


@stage()
def embed(
    model: Path,
    meds: Path,
    out: Path = Path("embeddings"),
    *,
    ask: LandmarkSettings = LandmarkSettings(),
    settings: EmbedSettings = EmbedSettings(),
    run: StageRun,
) -> dict:
    """Write what a model knows of each patient at each time as a vector.

    Patients of all splits are embedded, since probes learn on some and are
    scored on others. A vector knows what was recorded strictly before its
    time. With --labels alone no task is needed.

    Example: sequela embed model/ meds/ next_token/ --task death_5y --landmark
    "0 days" --landmark "365 days"

    Args:
        model: A checkpoint, such as sequela train writes.
        meds: A MEDS dataset with the histories.
        out: The folder to write: vectors/*.parquet and embeddings.json.

    Raises:
        InputError: for an unknown task, a model without state tokens if they are asked for, and if no question has a
            history.
    """
    tasks = ask.tasks() if ask.task or ask.labels is None else []
    identity = {**asdict(settings), "tasks": [task.as_dict() for task in tasks], "landmarks": ask.landmark}
    inputs = {"model": model, "meds": meds} | ({} if ask.labels is None else {"labels": ask.labels})

    def make(work: Path) -> dict:
        from sequela.task.probing.embed import embed

        made = embed(model, meds, work, tasks, ask.landmarks(), settings, run.progress)
        if made["without_history"]:
            run.say(f"{made['without_history']:,} questions have no event before their time, and so no vector.")
        if made["left_out"]:
            run.say(
                f"{made['left_out']:,} questions are left out: their patients are not in {meds}, had died, or their "
                "records were over by then."
            )
        return made

    return run.folder(out, "embed", identity, inputs, make)
