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
from sequela.record.questions import QUESTION
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
    """Write the vectors of every question of `tasks` at `landmarks` into `out`, of the patients of all splits.

    Returns:
        `questions` with a vector, `without_history` (nothing was recorded before their time), and the `pooling`.

    Raises:
        InputError: if nobody is asked who has a history, or see `Embedder.load`.
    """
    from sequela.rollout.embeddings.embedder import Embedder  # brings torch along

    embedder = Embedder.load(model, settings)
    asked = 0

    def batches() -> Iterator[tuple[pl.DataFrame, np.ndarray]]:
        nonlocal asked
        for events in read_frames(meds):
            recoded = recoded_events(events, embedder.tokenizer.maps)
            each = [landmark.questions(task, recoded) for task in tasks for landmark in landmarks]
            questions = pl.concat(each).select(QUESTION).unique().sort(QUESTION)
            patients = questions["subject_id"].unique().sort()
            for first in range(0, len(patients), PATIENTS):
                some = pl.col("subject_id").is_in(patients[first : first + PATIENTS].implode())
                known, vectors = embedder.vectors(events.filter(some), questions.filter(some))
                asked += questions.filter(some).height
                progress(first + PATIENTS, len(patients))
                if known.height:
                    yield known, vectors

    width = embedder.decoder.config.hidden_size
    facts = EmbeddingFacts(str(model), embedder.pooling, width, objective_of(model))
    count = write_embeddings(out, facts, batches())
    if not count:
        raise InputError(f"{meds}: nobody is asked who has a history: name a task or a file for this data.")
    return {"questions": count, "without_history": asked - count, "pooling": embedder.pooling}


def objective_of(model: Path) -> str:
    """What a model was trained with, as its `train.json` has it; next tokens for models from elsewhere."""
    try:
        about = json.loads((Path(model) / REPORT).read_text(encoding="utf-8"))
        return str(about["settings"]["objective"])
    except (OSError, ValueError, KeyError, TypeError):
        return TrainSettings.objective
