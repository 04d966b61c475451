"""From embeddings of questions to the answers of heads, beside the baselines on the same rows, and their comparison."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from sequela.progress import Progress, silent
from sequela.record.questions import QUESTION
from sequela.record.schema import HELD_OUT, SPLITS, TRAIN, TUNING
from sequela.task.answers.prediction import write_predictions
from sequela.task.baselines.rivals import Cohorts, Rivals
from sequela.task.probing.arms import COX, LAST_VALUES, Arm, read_arms, reference_of
from sequela.task.probing.cell import Cell
from sequela.task.probing.compare import Contest, compare
from sequela.task.probing.few_shot import FewShot
from sequela.task.probing.heads import Head, ProbeRows, fit_cox, fit_linear
from sequela.task.probing.landmarks import Landmark
from sequela.task.probing.rounded import Repeated, repeated
from sequela.task.probing.settings import ProbeSettings
from sequela.task.probing.tables import ProbeTable, SplitEvents, build_tables
from sequela.task.probing.variety import entropies
from sequela.task.task import Task
from sequela.tokens.ehr.tokenizer import EhrTokenizer
from sequela.tokens.maps.code_map import CodeMap

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class ProbePlan:
    """What is asked, and when.

    Attributes:
        tasks: what.
        landmarks: when (see `landmarks_of`).
        maps: the code maps of the model that embedded; tasks are stated in the codes that they lead to.
        tokenizer: whose tokens the baseline `tokens` reads; None to leave that one out.
    """

    tasks: list[Task]
    landmarks: list[Landmark]
    maps: tuple[CodeMap, ...] = ()
    tokenizer: EhrTokenizer | None = None


def probe(
    folders: Sequence[Path],
    meds: Path,
    out: Path,
    asked: ProbePlan,
    settings: ProbeSettings = ProbeSettings(),
    progress: Progress = silent,
    say: Say = lambda line: None,
) -> dict[str, object]:
    """Fit heads on embeddings, answer the held-out questions in `out/TASK@LANDMARK/MODEL.parquet`, and compare.

    Heads learn on the split "train" and their penalty is chosen on "tuning"; nothing of "held_out" reaches them.

    Args:
        folders: embeddings folders, one for each arm and training seed (see `read_arms`).
        asked: what, and when.
        progress: counts tasks at landmarks.
        say: hears what is left out, and why.

    Returns:
        See `compare`.

    Raises:
        InputError: for folders that cannot be compared or lack a question (see `read_arms`, `Arm.of`), a dataset
            without the three splits, and a task at a landmark with nothing to learn (see `ProbeTable.check`).
    """
    arms = read_arms(folders)
    reference = reference_of(arms, settings.reference)
    shots = FewShot(settings.few_shot, settings.replicates, settings.seed)
    events = SplitEvents.read(meds, asked.maps)
    tables = build_tables(asked.tasks, asked.landmarks, events, pool=settings.pool, window=settings.window)
    for table in tables:  # all, before any is fitted
        table.check()
        for arm in arms:
            for split in SPLITS:
                arm.of(table.rows[split])
    plain = _Plain.of(tables, events, meds, asked.tokenizer, settings, say) if settings.baselines else None
    cells = []
    for done, table in enumerate(tables):
        progress(done, len(tables), task=table.name)
        answers = _Answers(table, shots)
        for arm in arms:
            answers.probe(arm.model, {split: arm.of(table.rows[split]) for split in SPLITS}, cox=settings.cox)
        if plain is not None:
            answers.probe(LAST_VALUES, plain.last_values(table), cox=False, again=False)
            answers.predictions |= plain.answers(table)
        cells.append(answers.cell(entropies(events.recoded[HELD_OUT], table.rows[HELD_OUT])))
        _write(cells[-1], Path(out))
        for line in (answers.without(), *answers.warnings()):
            if line:
                say(line)
    progress(len(tables), len(tables))
    return compare(cells, _contest(arms, reference, cells, settings))


def _contest(arms: list[Arm], reference: str, cells: list[Cell], settings: ProbeSettings) -> Contest:
    """The arms, and as arms of their own their Cox heads; all other models are baselines."""
    groups: dict[str, dict[str, int | None]] = defaultdict(dict)
    for arm in arms:
        groups[arm.name][arm.model] = arm.seed
    answered = dict.fromkeys(name for cell in cells for name in cell.predictions)
    for arm in arms:
        if arm.model + COX in answered:
            groups[arm.name + COX][arm.model + COX] = arm.seed
    heads = {model for models in groups.values() for model in models}
    baselines = tuple(name for name in answered if name not in heads)
    return Contest(dict(groups), reference, baselines, settings.margin, settings.seed)


class _Answers:
    """The heads of one table, one after the other, and what they answer."""

    def __init__(self, table: ProbeTable, shots: FewShot) -> None:
        self.table, self.shots = table, shots
        self.predictions: dict[str, np.ndarray] = {}
        self.chosen: dict[str, float] = {}
        self.few_shot: dict[str, dict[int, list[float]]] = {}
        self.rounded: dict[str, Repeated] = {}

    def probe(self, name: str, vectors: dict[str, np.ndarray], *, cox: bool, again: bool = True) -> None:
        """Fit the heads on the vectors of a model, [N, D] by split; `again`: also on rounded ones."""
        rows = {split: self.table.sample(split, each) for split, each in vectors.items()}
        learned = self.table.task, rows[TRAIN], rows[TUNING]
        head = fit_linear(*learned)
        self._add(name, head, rows[HELD_OUT])
        if again:
            self.rounded[name] = repeated(self.table.task, head, *(rows[split] for split in SPLITS))
        if cox and (other := fit_cox(*learned)) is not None:
            self._add(name + COX, other, rows[HELD_OUT])
        if self.shots.shots and not self.table.task.asks.numeric:
            self.few_shot[name] = self.shots.scores(rows[TRAIN], rows[TUNING], rows[HELD_OUT])

    def without(self) -> str:
        """Which few-shot heads there are not, and why; empty for none."""
        wanted = set(self.shots.shots)
        if wanted and self.table.task.asks.numeric:
            return f"{self.table.name}: there are no few-shot heads, since numbers have no classes."
        missing = sorted(wanted.difference(*self.few_shot.values()))
        if not missing:
            return ""
        return f"{self.table.name}: too few training patients of a class for {', '.join(map(str, missing))} of each."

    def warnings(self) -> list[str]:
        """Which models know nothing that rounding leaves."""
        return [again.words(self.table.name, name) for name, again in self.rounded.items() if again.lost]

    def _add(self, name: str, head: Head, asked: ProbeRows) -> None:
        self.predictions[name] = head.predict(asked.sample.values)
        self.chosen[name] = head.penalty

    def cell(self, entropy: np.ndarray) -> Cell:
        """What has been answered."""
        counts = [self.table.rows[split]["label"].count() for split in (TRAIN, TUNING)]
        return Cell(
            self.table.task,
            self.table.landmark,
            self.table.rows[HELD_OUT],
            self.predictions,
            entropy,
            (counts[0], counts[1]),
            self.chosen,
            self.few_shot,
            self.rounded,
        )


@dataclass(frozen=True, eq=False)
class _Plain:
    """The baselines on the rows of the tables."""

    rivals: Rivals

    @staticmethod
    def of(
        tables: list[ProbeTable],
        events: SplitEvents,
        meds: Path,
        tokenizer: EhrTokenizer | None,
        settings: ProbeSettings,
        say: Say,
    ) -> _Plain:
        recorded, recoded = (
            pl.concat(by_split.values(), how="diagonal").sort("subject_id", maintain_order=True)
            for by_split in (events.recorded, events.recoded)
        )
        train, tuning = ({table.name: table.rows[split] for table in tables} for split in (TRAIN, TUNING))
        patients = events.recorded[TRAIN]["subject_id"].unique()
        cohorts = Cohorts(recorded, recoded, patients, train, tuning if settings.strong else {})
        asked = pl.concat(table.rows[split].select(QUESTION) for table in tables for split in (TUNING, HELD_OUT))
        return _Plain(Rivals.of(cohorts, meds, asked.unique(), tokenizer, settings.seed, say))

    def last_values(self, table: ProbeTable) -> dict[str, np.ndarray]:
        """Age, sex and the last value of each code as vectors, by split; NaN where there is none."""
        names = self.rivals.features.names
        columns = [number for number, name in enumerate(names) if name in ("age", "sex") or name.endswith(" last")]
        return {split: self.rivals.features.of(rows)[:, columns] for split, rows in table.rows.items()}

    def answers(self, table: ProbeTable) -> dict[str, np.ndarray]:
        """The predictions of each baseline."""
        task = replace(table.task, name=table.name)  # as which the rivals know the rows of this landmark
        answered = self.rivals.answers(task, table.rows[HELD_OUT])
        return {name: frame["prediction"].to_numpy() for name, frame in answered.items()}


def _write(cell: Cell, out: Path) -> None:
    for model, prediction in cell.predictions.items():
        answer = cell.truth.with_columns(prediction=pl.Series(prediction, dtype=pl.Float64))
        write_predictions(answer, cell.task.kind, out / cell.name / f"{model}.parquet")
