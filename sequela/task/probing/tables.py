"""What a probe asks: the questions of each task at each landmark, with labels, in the three splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from sequela.errors import InputError
from sequela.record.dataset import read_events
from sequela.record.questions import QUESTION, SCHEMA
from sequela.record.schema import HELD_OUT, SPLITS, TRAIN, TUNING
from sequela.task.baselines.baseline import FEWEST
from sequela.task.baselines.strong import sample_of
from sequela.task.label import labels
from sequela.task.probing.heads import ProbeRows
from sequela.task.probing.landmarks import EVERY, Landmark
from sequela.task.probing.settings import LabelWindow
from sequela.task.task import Task
from sequela.tokens.maps.code_map import CodeMap
from sequela.tokens.maps.recode import recoded_events

ALL = LabelWindow()


@dataclass(frozen=True, eq=False)
class SplitEvents:
    """The events of a dataset's three splits.

    Attributes:
        recorded: by split, in the codes of the dataset.
        recoded: the same after the code maps.
    """

    recorded: dict[str, pl.DataFrame]
    recoded: dict[str, pl.DataFrame]

    @staticmethod
    def read(meds: Path, maps: tuple[CodeMap, ...] = ()) -> SplitEvents:
        """Read them all.

        Raises:
            InputError: if the folder is no MEDS dataset, lacks a split, or has a patient in two splits.
        """
        recorded = {}
        for split in SPLITS:
            try:
                recorded[split] = read_events(meds, split)
            except InputError as error:
                if "no patients in split" not in str(error):
                    raise
                raise InputError(
                    f"{meds} has no patients in split '{split}', and a probe learns on '{TRAIN}', chooses on "
                    f"'{TUNING}' and is scored on '{HELD_OUT}': let `sequela ingest meds` assign the splits."
                ) from error
        return SplitEvents(recorded, {split: recoded_events(events, maps) for split, events in recorded.items()})


@dataclass(frozen=True, eq=False)
class ProbeTable:
    """A task at a landmark.

    Attributes:
        task: under its own name.
        landmark: when it is asked.
        rows: the `labels` of its questions, by split.
    """

    task: Task
    landmark: Landmark
    rows: dict[str, pl.DataFrame]

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.task.name} at {self.landmark.name}"

    def sample(self, split: str, vectors: np.ndarray) -> ProbeRows:
        """The rows of a split with their vectors, float [N, D] in their order."""
        rows = self.rows[split]
        return ProbeRows(rows["subject_id"].to_numpy(), sample_of(rows, vectors))

    def check(self) -> None:
        """Check that there is something to learn, to choose on and to score.

        Raises:
            InputError: with too few rows, or patients of one class, in a split; or where too few were followed.
        """
        for split, fewest in ((TRAIN, FEWEST), (TUNING, 1), (HELD_OUT, 1)):
            rows = self.rows[split]
            sample = sample_of(rows, np.zeros((rows.height, 0), np.float32))
            self._check_classes(split, rows, fewest)
            if not sample.identified:
                raise InputError(
                    f"{self.name}: too many {split} patients were lost before their answer was known, and nobody was "
                    "followed for longer to stand for them: leave out the landmark, or ask for a shorter horizon."
                )

    def _check_classes(self, split: str, rows: pl.DataFrame, fewest: int) -> None:
        known = rows.drop_nulls("label")
        patients = known["subject_id"].n_unique()
        if self.task.asks.numeric:
            if patients < 2 * fewest:
                raise InputError(
                    f"{self.name}: {patients} {split} patients have a known answer, and a probe needs {2 * fewest}: "
                    "leave out the landmark, or choose a task for this data."
                )
            return
        with_it = known.filter(pl.col("label") == 1)["subject_id"].n_unique()
        without = known.filter(pl.col("label") == 0)["subject_id"].n_unique()
        if with_it and without and min(with_it, without) >= fewest:
            return
        if patients and not (with_it and without):
            what = f"all {patients} {split} patients with a known answer {'had' if with_it else 'lack'} the outcome"
        else:
            what = f"of {patients} {split} patients with a known answer {with_it} had the outcome and {without} had not"
        raise InputError(
            f"{self.name}: {what}, and a probe needs {fewest} of each: leave out the landmark, or choose a longer "
            "horizon or a more frequent outcome."
        )


def build_tables(
    tasks: Sequence[Task],
    landmarks: Sequence[Landmark],
    events: SplitEvents,
    *,
    pool: bool = False,
    window: LabelWindow = ALL,
) -> list[ProbeTable]:
    """A table for every task and landmark; with `pool` also one of the rows of all landmarks of a task.

    Raises:
        InputError: if nobody is asked at a landmark.
    """
    tables = []
    for task in tasks:
        parts: dict[str, list[pl.DataFrame]] = {split: [pl.DataFrame(schema=SCHEMA)] for split in SPLITS}
        for landmark in landmarks:
            asked = {split: landmark.questions(task, events.recoded[split]) for split in SPLITS}
            for split, questions in asked.items():
                if questions.is_empty():
                    raise InputError(
                        f"{task.name} at {landmark.name}: no {split} patient is still at risk then: leave out the "
                        "landmark, or choose a task for this data (`sequela tasks` lists them)."
                    )
                parts[split].append(questions)
            tables.append(_labelled(task, landmark, asked, events, window))
        if pool and len(landmarks) > 1:
            pooled = {split: pl.concat(each).unique().sort(QUESTION) for split, each in parts.items()}
            tables.append(_labelled(task, Landmark(EVERY, None), pooled, events, window))
    return tables


def _labelled(
    task: Task, landmark: Landmark, asked: dict[str, pl.DataFrame], events: SplitEvents, window: LabelWindow
) -> ProbeTable:
    rows = {}
    for split, questions in asked.items():
        if window.gap is not None:
            opens = pl.col("prediction_time") + pl.duration(microseconds=window.gap)
            questions = questions.with_columns(opens=opens)
        labelled = labels(task, events.recoded[split], questions).drop("opens", strict=False)
        rows[split] = labelled.filter(pl.col("decided") != "censored") if window.drop_lost else labelled
    return ProbeTable(task, landmark, rows)


def questions_asked(tables: Sequence[ProbeTable]) -> pl.DataFrame:
    """The distinct questions of all splits, sorted: those that must be embedded before a probe."""
    parts = [rows.select(QUESTION) for table in tables for rows in table.rows.values()]
    return pl.concat(parts).unique().sort(QUESTION)
