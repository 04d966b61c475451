"""One random source through the real program and through the plain one, and in what the two differ."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random

import numpy as np
import polars as pl

from sequela.errors import InputError
from sequela.record.dataset import read_events
from sequela.record.ingest.run import IngestSettings, ingest
from sequela.record.schema import SPLITS_FILE
from sequela.record.timeline import timelines
from sequela.task.label import labels
from sequela.tokens.corpus import Corpus
from sequela.tokens.ehr.tokenize import tokenize
from tests.fuzz.differential import clinic, events, fhir, omop, tokens
from tests.fuzz.differential import labels as naive

SOURCES = {"clinic": clinic.Clinic.of, "omop": omop.Omop.of, "fhir": fhir.Fhir.of}
EPOCH = dt.datetime(1970, 1, 1)


@dataclass(frozen=True)
class Trial:
    """A random source of one kind, ingested into `folder`/meds."""

    kind: str
    seed: int
    folder: Path
    made: list[events.Event]
    unmade: Counter
    report: dict

    @staticmethod
    def of(kind: str, seed: int, folder: Path) -> Trial:
        """Make the source, write it, and ingest it."""
        rng = Random(f"{kind} {seed}")
        world = SOURCES[kind](rng)
        mapping = world.write(rng, folder / "raw")
        report = ingest(mapping, folder / "raw", folder / "meds", IngestSettings(fractions=(0.8, 0.1, 0.1)))
        return Trial(kind, seed, folder, *world.events(), report)

    @property
    def rng(self) -> Random:
        """For what is asked of the record; always the same."""
        return Random(f"questions {self.kind} {self.seed}")

    @cached_property
    def frame(self) -> pl.DataFrame:
        """The events that ingest wrote."""
        return read_events(self.folder / "meds")

    @cached_property
    def split(self) -> dict[int, str]:
        """Patient -> split."""
        return dict(pl.read_parquet(self.folder / "meds" / SPLITS_FILE).rows())

    @cached_property
    def naive(self) -> tuple[list[events.Event], Counter]:
        """The events that should be there, and what is dropped because of others."""
        late = frozenset([omop.CONDITIONS if self.kind == "omop" else fhir.CONDITIONS])
        return events.finish(self.made, late if self.kind != "clinic" else frozenset())

    def differences(self) -> list[str]:
        """All differences; empty if the two programs agree."""
        return [*self.of_events(), *self.of_rows(), *self.of_labels(), *self.of_tokens()]

    def of_events(self) -> list[str]:
        """Events that only one of the two has, or that stand in another order."""
        real = self.frame.select("subject_id", "time", "code", "numeric_value").rows()
        plain = [(e.patient, e.time, e.code, e.number) for e in self.naive[0]]
        out = [f"only ingest has {event}" for event in (Counter(real) - Counter(plain)).elements()]
        out += [f"ingest lacks {event}" for event in (Counter(plain) - Counter(real)).elements()]
        ordered = self.kind == "clinic"  # the others number their rules in their own way
        return out or (["another order of events"] if ordered and real != plain else [])

    def of_rows(self) -> list[str]:
        """Rows that make no event, by rule and reason. Counted for the clinic only, whose rules are spelled out."""
        if self.kind != "clinic":
            return []
        counted: Counter = Counter()
        for table in self.report["tables"].values():
            for rule in table["rules"]:
                counted.update({(rule["rule"], reason): rows for reason, rows in rule["dropped"].items()})
        plain = self.unmade + self.naive[1]
        return (
            [f"dropped rows: ingest {counted - plain}, plainly {plain - counted}"] if counted != plain else []
        )

    def of_labels(self, tasks: int = 6) -> list[str]:
        """Questions and answers of random tasks."""
        rng, record, out = self.rng, self.naive[0], []
        lines = {line.patient: line for line in timelines(self.frame)}
        for _ in range(tasks):
            task = naive.random_task(rng, record)
            asked = task.prediction_times(self.frame)
            if asked.rows() != naive.questions(task, record):
                out.append(f"other questions: {task.as_dict()}")
                continue
            for row in labels(task, self.frame, asked).iter_rows(named=True):
                plain = naive.answer(task, record, (row["subject_id"], row["prediction_time"]))
                at = (row["prediction_time"] - EPOCH) // naive.MICROSECOND
                single = task.label(lines[row["subject_id"]], at)
                real = row["label"], row["decided"], row["until_days"]
                if not _same((*real, single), (plain.label, plain.decided, plain.days, plain.label)):
                    out.append(f"other answer: {task.as_dict()}, {row}, alone {single}, plainly {plain}")
        return out

    def of_tokens(self) -> list[str]:
        """Token rows of all splits, under random settings."""
        settings, record = tokens.random_settings(self.rng), self.naive[0]
        train = [event for event in record if self.split[event.patient] == "train"]
        plain = tokens.NaiveTokenizer.fit(train, settings)
        corpus = self.folder / "corpus"
        corpus.mkdir(exist_ok=True)
        try:
            tokenize(self.folder / "meds", corpus, settings, maps=())
        except InputError as error:
            return [f"tokenize refuses: {error}"] if plain.codes else []
        out = []
        for split in sorted(set(self.split.values())):
            rows = {
                p: plain.row([e for e in record if e.patient == p])
                for p in self.split
                if self.split[p] == split
            }
            rows = {patient: row for patient, row in rows.items() if row}
            real = _rows_of(corpus, split) if rows else {}
            for patient in sorted(rows.keys() | real.keys()):
                if rows.get(patient) != real.get(patient):
                    out.append(
                        f"tokens of {patient} under {settings}:\n{real.get(patient)}\nplainly\n{rows.get(patient)}"
                    )
        return out


def _rows_of(corpus: Path, split: str) -> dict[int, list[str]]:
    held = Corpus.load(corpus, split)
    names = held.tokenizer.vocabulary.tokens
    return {
        patient: [names[token] for token in held.tokens[row].tolist()]
        for row, patient in enumerate(held.patients.tolist())
    }


def _same(first: tuple, second: tuple) -> bool:
    """Equal, but for the rounding of days."""
    for a, b in zip(first, second, strict=True):
        if (a is None) != (b is None) or (isinstance(a, str) and a != b):
            return False
        if a is not None and not isinstance(a, str) and not np.isclose(a, b, rtol=1e-9, atol=1e-9):
            return False
    return True
