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
    time.

    Example: sequela embed model/ meds/ next_token/ --task death_5y --landmark
    "0 days" --landmark "365 days"

    Args:
        model: A checkpoint, such as sequela train writes.
        meds: A MEDS dataset with the histories.
        out: The folder to write: vectors/*.parquet and embeddings.json.

    Raises:
        InputError: for an unknown task, a model without state tokens if they are asked for, and if nobody is asked.
    """
    identity = {
        **asdict(settings),
        "tasks": [task.as_dict() for task in ask.tasks()],
        "landmarks": ask.landmark,
    }
    inputs = {"model": model, "meds": meds} | ({} if ask.labels is None else {"labels": ask.labels})

    def make(work: Path) -> dict:
        from sequela.task.probing.embed import embed

        return embed(model, meds, work, ask.tasks(), ask.landmarks(), settings, run.progress)

    return run.folder(out, "embed", identity, inputs, make)
