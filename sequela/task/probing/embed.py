"""From tasks and landmarks to an embeddings folder: who is asked when, and what the model knows then."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from sequela.errors import InputError
from sequela.progress import Progress, silent
from sequela.record.dataset import read_frames
from sequela.record.questions import QUESTION, SCHEMA
from sequela.rollout.embeddings.folder import EmbeddingFacts, write_embeddings
from sequela.rollout.embeddings.settings import EmbedSettings
from sequela.task.probing.landmarks import Landmark
from sequela.task.task import Task
from sequela.tokens.maps.recode import recoded_events
from sequela.training.settings import REPORT, TrainSettings

PATIENTS = 256  # at a time


def embed(
    model: Path,
    meds: Path,
    out: Path,
    tasks: Sequence[Task],
    landmarks: Sequence[Landmark],
    settings: EmbedSettings = EmbedSettings(),
    progress: Progress = silent,
) -> dict[str, object]:
    """Write the vectors of all questions of `tasks` at `landmarks` into `out`, of the patients of all splits.

    Returns:
        `questions` with a vector; `without_history`, of which nothing was recorded before their time; `left_out`,
        questions of a label file about nobody in the dataset, the dead, and those whose record is over; the `pooling`.

    Raises:
        InputError: if no question has a history, or see `Embedder.load`.
    """
    from sequela.rollout.embeddings.embedder import Embedder  # brings torch along

    embedder = Embedder.load(model, settings)
    asked = 0

    def batches() -> Iterator[tuple[pl.DataFrame, np.ndarray]]:
        nonlocal asked
        for events in read_frames(meds):
            recoded = recoded_events(events, embedder.tokenizer.maps)
            questions = _questions(tasks, landmarks, recoded)
            asked += questions.height
            patients = questions["subject_id"].unique().sort()
            for first in range(0, len(patients), PATIENTS):
                some = pl.col("subject_id").is_in(patients[first : first + PATIENTS].implode())
                known, vectors = embedder.vectors(events.filter(some), questions.filter(some))
                progress(first + PATIENTS, len(patients))
                if known.height:
                    yield known, vectors

    width = embedder.decoder.config.hidden_size
    count = write_embeddings(out, EmbeddingFacts(str(model), embedder.pooling, width, objective_of(model)), batches())
    given = [landmark.given for landmark in landmarks if landmark.given is not None]
    wanted = 0 if tasks else pl.concat(given).unique().height
    left_out = max(0, wanted - asked)
    if not count:
        raise InputError(
            f"{meds}: no question has a history to embed ({asked:,} have no event before their time, {left_out:,} are "
            "about nobody in the dataset, the dead, or a record that is over): ask about times within the records of "
            "this dataset."
        )
    return {"questions": count, "without_history": asked - count, "left_out": left_out, "pooling": embedder.pooling}


def _questions(tasks: Sequence[Task], landmarks: Sequence[Landmark], events: pl.DataFrame) -> pl.DataFrame:
    """Those about the patients of sorted, recoded `events`, each once; those of label files also without any task."""
    given = [landmark.still_followed(events) for landmark in landmarks if landmark.given is not None]
    offsets = [landmark for landmark in landmarks if landmark.given is None]
    each = [landmark.questions(task, events) for task in tasks for landmark in offsets]
    return pl.concat([pl.DataFrame(schema=SCHEMA), *given, *each]).select(QUESTION).unique().sort(QUESTION)


def objective_of(model: Path) -> str:
    """What a model was trained with, as its `train.json` has it; next tokens for models from elsewhere."""
    try:
        about = json.loads((Path(model) / REPORT).read_text(encoding="utf-8"))
        return str(about["settings"]["objective"])
    except (OSError, ValueError, KeyError, TypeError):
        return TrainSettings.objective
