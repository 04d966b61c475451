"""What one causal pass for all times of a patient saves, over encoding the history of each time by itself.

    python bench/embed.py            synthetic patients with long courses, a few minutes
    python bench/embed.py --quick    fewer patients

A model with state tokens is asked at every visit of patients with a known course (sequela.record.worlds.latent). Both
sides use the same code, model and batches of packed rows: together, where one pass reads all states of a patient; and
apart, where every question is a patient of its own. The vectors of both sides are compared first. The last line is
JSON: `ratio` is questions a second together over apart, the median of pairs taken in turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

import sequela
from sequela.record.dataset import write_shard, write_splits
from sequela.record.questions import QUESTION
from sequela.record.worlds.latent import LatentWorld
from sequela.rollout.embeddings.embedder import Embedder
from sequela.training.settings import TrainSettings

WORLD = LatentWorld(visits=100, hazard=(0.002, 0.1), gap=(30.0, 0.5))


def apart(events: pl.DataFrame, questions: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The same questions, each about a patient of its own, whose record ends where the question is asked."""
    numbered = questions.with_row_index("number")
    each = numbered.join(events, on="subject_id", maintain_order="left_right").filter(
        pl.col("time").is_null() | (pl.col("time") < pl.col("prediction_time"))
    )
    number = pl.col("number").cast(pl.Int64).alias("subject_id")
    return each.select(number, "time", "code", "numeric_value"), numbered.select(number, "prediction_time")


def seconds(embedder: Embedder, events: pl.DataFrame, questions: pl.DataFrame) -> tuple[float, np.ndarray]:
    """The time that the vectors take, and they."""
    begun = time.perf_counter()
    _, vectors = embedder.vectors(events, questions)
    return time.perf_counter() - begun, vectors


def main(patients: int, pairs: int) -> None:
    """Measure, and print the result."""
    events = WORLD.events(patients, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        split = pl.DataFrame({"subject_id": range(patients), "split": ["train", "tuning"] * (patients // 2)})
        write_shard(events, split, work / "meds", 0)
        write_splits([split], work / "meds")
        sequela.tokenize(work / "meds", work / "corpus")
        settings = TrainSettings(depth=2, context=2048, tokens=8192, objective="state_jepa")
        sequela.train(work / "corpus", work / "model", settings=settings)
        embedder = Embedder.load(work / "model")
    questions = WORLD.truth(patients, seed=0).select(QUESTION)
    alone = apart(events, questions)
    (_, once), (_, each) = seconds(embedder, events, questions), seconds(embedder, *alone)
    worst = float(np.abs(once - each).max() / np.abs(each).max())
    if worst > 1e-3:
        raise SystemExit(f"the vectors differ by {worst:.1e} of the largest number, so the times mean nothing.")
    times = [(seconds(embedder, events, questions)[0], seconds(embedder, *alone)[0]) for _ in range(pairs)]
    ratio = statistics.median(slow / fast for fast, slow in times)
    together = len(questions) / statistics.median(fast for fast, _ in times)
    print(f"{len(questions):,} questions of {patients} patients: {together:,.0f} a second, {ratio:.1f} times as many")
    record = {"name": "embed", "ratio": ratio, "target": 10.0, "ok": ratio >= 10, "questions_per_second": together}
    print(json.dumps(record | {"questions": len(questions), "patients": patients, "largest_difference": worst}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer patients, one pair")
    main(*((30, 1) if parser.parse_args().quick else (40, 3)))
