"""All baselines of a cohort: what they learn from, and what they answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from sequela.errors import InputError
from sequela.record.dataset import read_events
from sequela.record.duration import DAY
from sequela.record.questions import QUESTION
from sequela.record.splits import assigned_splits
from sequela.task.baselines.features import Features, build_features
from sequela.task.label import labels
from sequela.task.task import Task
from sequela.tokens.ehr.tokenizer import EhrTokenizer
from sequela.tokens.maps.code_map import CodeMap
from sequela.tokens.maps.recode import recoded_events

if TYPE_CHECKING:
    from sequela.task.baselines.baseline import Model, TrainingSample

Say = Callable[[str], None]
COX, STRONG, TOKENS, FOREST = "cox", "strong", "tokens", "survival_forest"


@dataclass(frozen=True, eq=False)
class Cohorts:
    """The events that baselines read, and the labels that they learn from.

    Attributes:
        events: of the training, tuning, and asked patients, sorted, in the codes of the dataset.
        recoded: the same after the code maps.
        patients: the training patients.
        train: the labels of their questions, by task.
        tuning: those of the tuning patients; empty if the strong baselines are left out.
    """

    events: pl.DataFrame
    recoded: pl.DataFrame
    patients: pl.Series
    train: dict[str, pl.DataFrame]
    tuning: dict[str, pl.DataFrame]

    @staticmethod
    def read(
        meds: Path, asked: pl.DataFrame, maps: tuple[CodeMap, ...], tasks: list[Task], strong: bool, say: Say
    ) -> Cohorts:
        """Read the training patients, and for the strong baselines the tuning patients.

        Args:
            asked: the events of the patients who are predicted, in the codes of the dataset.
            maps: the code maps.
            strong: whether the strong baselines are wanted.
        """
        train = read_events(meds, "train")
        parts, patients = [train, asked], {"train": train["subject_id"].unique()}
        if strong and (tuning := _tuning(meds, asked["subject_id"], say)) is not None:
            parts.append(tuning)
            patients["tuning"] = tuning["subject_id"].unique()
        events = pl.concat(parts, how="diagonal").sort("subject_id", maintain_order=True)
        recoded = recoded_events(events, maps)
        known = {}
        for split, ids in patients.items():
            theirs = recoded.filter(pl.col("subject_id").is_in(ids.implode()))
            known[split] = {task.name: labels(task, theirs, task.prediction_times(theirs)) for task in tasks}
        return Cohorts(events, recoded, patients["train"], known["train"], known.get("tuning", {}))


def _tuning(meds: Path, asked: pl.Series, say: Say) -> pl.DataFrame | None:
    """The events of the tuning patients; None, and why, if there are none who can be used."""
    splits = assigned_splits(meds)
    tuning = None if splits is None else splits.filter(pl.col("split") == "tuning")["subject_id"]
    if tuning is None or tuning.is_empty():
        say(f"{meds} has no split 'tuning' to tune the strong baselines on: they are left out.")
    elif tuning.is_in(asked.implode()).any():
        say("The strong baselines are left out: they are tuned on the split 'tuning', which was simulated.")
    else:
        return read_events(meds, "tuning")
    return None


@dataclass(frozen=True, eq=False)
class Rivals:
    """Everything that answers a task besides simulation.

    Attributes:
        cohorts: what is learned from.
        features: of all training and asked questions, for the plain baselines.
        tokenizer: of the model whose tokens `TOKENS` reads; None if it is not known.
        seed: of the baselines.
        say: hears what is left out, and why.
    """

    cohorts: Cohorts
    features: Features
    tokenizer: EhrTokenizer | None
    seed: int
    say: Say

    @staticmethod
    def of(
        cohorts: Cohorts,
        meds: Path,
        asked: pl.DataFrame,
        tokenizer: EhrTokenizer | None,
        seed: int,
        say: Say,
    ) -> Rivals:
        """With the features of the training questions and of `asked`.

        Raises:
            InputError: if a question is about a patient whose answers the baselines learn.
        """
        both = asked.filter(pl.col("subject_id").is_in(cohorts.patients.implode()))
        if both.height:
            raise InputError(
                f"{meds}: patient {both['subject_id'].min()} was simulated and is in the split 'train', which the "
                f"baselines learn from ({both.height} such rows): simulate another split, or leave the baselines out."
            )
        train = [frame.select(QUESTION) for frame in cohorts.train.values()]
        times = pl.concat([asked.select(QUESTION), *train]).unique().sort(QUESTION)
        features = build_features(cohorts.recoded, times, cohorts.patients)
        if without := features.without_sex():
            say(without)
        if cohorts.tuning and tokenizer is None:
            say("The model is not where it was: the baseline `tokens`, which needs its tokenizer, is left out.")
        return Rivals(cohorts, features, tokenizer, seed, say)

    def answers(self, task: Task, truth: pl.DataFrame) -> dict[str, pl.DataFrame]:
        """`truth` with the `prediction` of each baseline, by its name, in the order of reports."""
        # Imported here: scikit-learn takes seconds to load, and only baselines need it
        from sequela.task.baselines.baseline import fit_baselines
        from sequela.task.baselines.strong import sample_of

        labelled = self.cohorts.train[task.name]
        sample, values = sample_of(labelled, self.features.of(labelled)), self.features.of(truth)
        models = fit_baselines(task, sample, self.seed)
        strong = bool(self.cohorts.tuning and models)
        if strong and task.horizon is not None and COX in models:
            models |= self._forest(sample, task.horizon / DAY)
        predictions = {name: model(values) for name, model in models.items()}
        if strong:
            predictions |= self._strong(task, truth)
        return {
            name: truth.with_columns(prediction=pl.Series(values)) for name, values in predictions.items()
        }

    def _forest(self, sample: TrainingSample, horizon_days: float) -> dict[str, Model]:
        from sequela.task.baselines.survival import fit_forest, installed

        if not installed():
            self.say("There is no survival forest among the baselines: `pip install sequela[survival]` adds it.")
            return {}
        return {FOREST: fit_forest(sample, horizon_days, self.seed)}

    def _strong(self, task: Task, truth: pl.DataFrame) -> dict[str, np.ndarray]:
        from sequela.task.baselines.histories import as_recorded, as_tokens
        from sequela.task.baselines.strong import answer_each

        readers = {STRONG: partial(as_recorded, self.cohorts.recoded)}
        if self.tokenizer is not None:
            readers[TOKENS] = partial(as_tokens, self.tokenizer, self.cohorts.events)
        train, tuning = self.cohorts.train[task.name], self.cohorts.tuning[task.name]
        predictions = {}
        for name, answer in answer_each(task, readers, train, tuning, truth, self.seed).items():
            if answer is None:
                self.say(f"{task.name}: too few tuning patients have a known answer for the baseline `{name}`.")
                continue
            predictions[name] = answer.prediction
            used, known = answer.learned_from
            if used < known:
                self.say(f"{task.name}: `{name}` learns from {used:,} of {known:,} training questions, to save memory.")
        return predictions
