"""From tasks, landmarks and label files to an embeddings folder: who is asked when, and what the model knows then."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from sequela.errors import InputError
from sequela.progress import Progress, silent
from sequela.record.dataset import read_frames
from sequela.record.questions import QUESTION
from sequela.rollout.embeddings.folder import EmbeddingFacts, write_embeddings
from sequela.rollout.embeddings.settings import EmbedSettings
from sequela.task.catalog import load_tasks
from sequela.task.probing.landmarks import Landmark, landmarks_of
from sequela.task.task import Task
from sequela.tokens.maps.recode import recoded_events

PATIENTS = 256  # at a time


def embed(
    model: Path,
    meds: Path,
    out: Path,
    tasks: Sequence[str],
    landmarks: Sequence[str],
    labels: Path | None,
    split: str | None,
    settings: EmbedSettings = EmbedSettings(),
    progress: Progress = silent,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, object]:
    """Write the vectors of every question into `out`.

    Args:
        model: a checkpoint.
        tasks: names or files; their questions are asked at each of the `landmarks` that is a time after them.
        landmarks: durations; see `landmarks_of`.
        labels: a label file whose patients and times are asked too, whatever the tasks.
        split: None for all patients.
        progress: counts questions.
        say: hears how many questions have no history.

    Returns:
        `questions`, `without_history`, and the `pooling` that was used.

    Raises:
        InputError: if nothing is asked, nobody of the split is, or see `Embedder.load`.
    """
    from sequela.rollout.embeddings.embedder import Embedder  # brings torch along

    if not tasks and labels is None:
        raise InputError("nothing is asked: name a task with `task`, or give a file of patients and times as `labels`.")
    chosen, times = load_tasks(tasks), landmarks_of(landmarks, labels)
    embedder = Embedder.load(model, settings)
    without = 0

    def batches() -> Iterator[tuple[pl.DataFrame, np.ndarray]]:
        nonlocal without
        done = 0
        for events in read_frames(meds, split):
            questions = _questions(chosen, times, recoded_events(events, embedder.tokenizer.maps))
            patients = questions["subject_id"].unique().sort()
            for first in range(0, len(patients), PATIENTS):
                some = pl.col("subject_id").is_in(patients[first : first + PATIENTS].implode())
                asked = questions.filter(some)
                known, vectors = embedder.vectors(events.filter(some), asked)
                without += asked.height - known.height
                done += known.height
                progress(done, 0)
                if known.height:
                    yield known, vectors

    facts = EmbeddingFacts(str(model), embedder.pooling, embedder.decoder.config.hidden_size, objective_of(model))
    count = write_embeddings(out, facts, batches())
    if not count:
        where = "" if split is None else f" of the split '{split}'"
        raise InputError(f"{meds}: no patient{where} is asked who has a history: name another task, split or file.")
    if without:
        say(f"{without:,} of {count + without:,} questions have no event before their time, and so no vector.")
    return {"questions": count, "without_history": without, "pooling": embedder.pooling}


def objective_of(model: Path) -> str:
    """What a model was trained with, as its `train.json` has it; next tokens for models from elsewhere."""
    import json

    from sequela.training.settings import REPORT, TrainSettings

    path = Path(model) / REPORT
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["settings"]["objective"])
    except (OSError, ValueError, KeyError, TypeError):
        return TrainSettings.objective


def _questions(tasks: Sequence[Task], landmarks: Sequence[Landmark], events: pl.DataFrame) -> pl.DataFrame:
    """All that is asked of these patients, distinct and sorted."""
    parts = [landmark.questions(task, events) for task in tasks for landmark in landmarks if landmark.given is None]
    if not tasks:
        parts = []
    for landmark in landmarks:
        if landmark.given is not None:
            here = landmark.given.filter(pl.col("subject_id").is_in(events["subject_id"].unique().implode()))
            parts.append(here.select(QUESTION))
    return pl.concat(parts).unique().sort(QUESTION)
