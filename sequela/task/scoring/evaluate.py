"""Scores with intervals: every model of a task on the same questions and the same resamples."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from sequela.errors import InputError
from sequela.files import files_below
from sequela.record.questions import QUESTION
from sequela.task.answers.prediction import SIMULATION, is_ours, model_order, read_predictions
from sequela.task.kinds import KINDS, Kind
from sequela.task.scoring.agreement import agreement, agreement_in_words
from sequela.task.scoring.bootstrap import LEVEL, RESAMPLES
from sequela.task.scoring.censoring import UNSEEN
from sequela.task.scoring.comparison import MARGIN, Comparison, corrected
from sequela.task.scoring.measured import OBSERVED, Measured, SharedAnswers, measure_all
from sequela.task.scoring.seeds import SeedSpread, pooled, seeds_of
from sequela.task.scoring.verdict import in_words, verdict


def evaluate(
    predictions: Path | list[Path],
    out: Path,
    seed: int = 0,
    resample_count: int = RESAMPLES,
    margin: float = MARGIN,
) -> dict[str, dict]:
    """Score every model of every task in the folders `predictions`; write `out/metrics.json` and return what it holds.

    `tasks`, by task: `kind`; `n` questions, `positives`, `decidable` (label known), `undecidable` (censored), `without`
    (not censored, but there is no number to score: the outcome did not come in time, or without a value); `evaluated`,
    those that every model answered; `unpredicted` by model; `rollouts` by simulating model; `observed`, the incidence
    (or mean number) corrected for censoring; `models`: each metric as `value`, `low`, `high` (percentile bootstrap by
    patient; of a mean of several training seeds by patient and seed), empty if it is not defined; `difference`:
    simulation minus each other model in the headline metric, on the same resamples, with what `Comparison.as_dict`
    says; `seeds` of the simulation, and `between_seeds`, the standard deviation of each metric over them; `verdict`:
    the differences in words; `agreement` of the simulation with the value head beside it, and the same in `words`
    (see `sequela.task.scoring.agreement`).

    `comparisons`: how many differences there are in all tasks, for which Holm's method corrects each `p`; the
    `confidence` and the `margin`, and all that in `words`.

    Args:
        margin: models are as good as each other if the interval of their difference lies within it: of AUROC, or of an
            error as a share of the other model's.

    Raises:
        InputError: if there are no predictions, or the files of a task contradict each other; for a margin that is not
            above 0.
    """
    if not margin > 0:
        raise InputError(f"`margin` must be above 0, not {margin}.")
    given = [predictions] if isinstance(predictions, str | Path) else predictions
    folders = [Path(folder) for folder in given]
    scored = _pooled(
        {name: _Scored.of(files, seed, resample_count) for name, files in _files(folders).items()}
    )
    differences = [(name, model, one) for name, task in scored.items() for model, one in task.compared(margin).items()]
    by_task: dict[str, dict[str, Comparison]] = {name: {} for name in scored}
    for (name, model, _), one in zip(differences, corrected([one for *_, one in differences]), strict=True):
        by_task[name][model] = one
    tasks = {name: task.report(by_task[name]) for name, task in scored.items()}
    trained = {task["seeds"] for task in tasks.values() if task["difference"]}
    words = in_words(len(differences), margin, trained)
    comparisons = {"count": len(differences), "confidence": LEVEL, "margin": margin, "words": words}
    metrics = {"tasks": tasks, "comparisons": comparisons}
    Path(out).mkdir(parents=True, exist_ok=True)
    (Path(out) / "metrics.json").write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return metrics


def _tables(folder: Path) -> list[Path]:
    """The files TASK/MODEL.parquet of a folder."""
    return [path for path in files_below(folder, ".parquet") if path.parent.parent == folder]


def _files(folders: list[Path]) -> dict[str, dict[str, Path]]:
    """The files by task and model, the simulation first."""
    files: dict[str, dict[str, Path]] = {}
    for path in (path for folder in folders for path in _tables(folder)):
        models = files.setdefault(path.parent.name, {})
        if path.stem in models:
            other = models[path.stem]
            advice = (
                f"{path} is given twice: leave out one of the folders."
                if path.resolve() == other.resolve()
                else f"{path} and {other} are the same model of the same task: rename one of the files."
            )
            raise InputError(advice)
        models[path.stem] = path
    if not files:
        raise InputError(
            f"{folders[0]} has no TASK/MODEL.parquet: give a folder that `sequela predict` wrote."
        )
    return {
        task: {model: models[model] for model in sorted(models, key=model_order)}
        for task, models in sorted(files.items())
    }


@dataclass(frozen=True, eq=False)
class _Scored:
    """A task, measured.

    Attributes:
        truth: see `_truth`.
        answers: by model, as read.
        cohort: the questions that all models answered.
    """

    kind: Kind
    truth: pl.DataFrame
    answers: dict[str, pl.DataFrame]
    cohort: SharedAnswers
    measured: Measured

    @staticmethod
    def of(files: dict[str, Path], seed: int, resample_count: int) -> _Scored:
        read = {model: read_predictions(path) for model, path in files.items()}
        kinds = {kind for kind, _ in read.values()}
        if len(kinds) > 1:
            raise InputError(
                f"{files[min(files)].parent}: there are files of the kinds {', '.join(sorted(kinds))}; keep one kind."
            )
        kind = KINDS[kinds.pop()]
        answers = {model: frame for model, (_, frame) in read.items()}
        truth = _truth(answers, files)
        cohort = _cohort(kind, truth, answers, files)
        return _Scored(kind, truth, answers, cohort, measure_all(cohort, seed, resample_count))

    def compared(self, margin: float) -> dict[str, Comparison]:
        """The simulation with each other model in the headline metric; not with single seeds of its own."""
        headline, points = self.kind.headline, self.measured.points
        if (SIMULATION, headline.name) not in points:
            return {}
        others = [name for name, key in points if key == headline.name and not is_ours(name)]
        return {
            model: self.measured.comparison(model, headline, margin) for model in others
        }

    def report(self, comparisons: dict[str, Comparison]) -> dict[str, object]:
        """What metrics.json says of this task (see `evaluate`)."""
        kind, truth, answers = self.kind, self.truth, self.answers
        names, estimate = [metric.name for metric in kind.metrics], self.measured.estimate
        models = {model: {name: estimate(model, name) for name in names} for model in answers}
        reason, each = why_not(self.cohort, self.measured), seeds_of(self.cohort.predictions)
        together = agreement(kind, answers, self.measured.seed)
        unpredicted = {model: truth.height - frame["prediction"].count() for model, frame in answers.items()}
        return {
            "kind": kind.name,
            "n": truth.height,
            "positives": int((truth["label"] == 1).sum()) if not kind.numeric else None,
            "decidable": truth["label"].count(),
            "undecidable": int(truth["lost"].sum()),
            "without": truth.filter(pl.col("label").is_null() & ~pl.col("lost")).height,
            "evaluated": len(self.cohort.patient),
            "unpredicted": unpredicted,
            "rollouts": {
                model: _rollouts(frame) for model, frame in answers.items() if frame["rollouts"].count()
            },
            "observed": estimate(*OBSERVED).as_dict(reason),
            "models": {
                model: {key: x.as_dict(reason) for key, x in scores.items()} for model, scores in models.items()
            },
            "difference": {model: one.as_dict() for model, one in comparisons.items()},
            "seeds": len(each) or 1,
            "between_seeds": {} if not each else {
                name: float(np.std(values, ddof=1))
                for name in names
                if np.isfinite(values := [models[model][name].value for model in each]).all()
            },
            "agreement": together | ({"words": agreement_in_words(together, kind)} if together else {}),
            "verdict": verdict(kind.name, models, comparisons, unpredicted.get(SIMULATION, 0), reason),
        }


def _pooled(scored: dict[str, _Scored]) -> dict[str, _Scored]:
    """The same, where tasks tell each other how far training seeds lie apart, in metrics without a unit."""
    shared: dict[str, dict[str, SeedSpread]] = {name: {} for name in scored}
    for metric in {metric for task in scored.values() for metric in task.kind.metrics if not metric.in_units}:
        spreads = {name: task.measured.seeds.get(metric.name) for name, task in scored.items()}
        known = {name: spread for name, spread in spreads.items() if spread is not None}
        for name, spread in zip(known, pooled(list(known.values())), strict=True):
            shared[name][metric.name] = spread
    return {
        name: replace(task, measured=replace(task.measured, seeds=task.measured.seeds | shared[name]))
        for name, task in scored.items()
    }


def _truth(answers: dict[str, pl.DataFrame], files: dict[str, Path]) -> pl.DataFrame:
    """The questions that any model was asked, with `label`, `until_days`, `lost`; all files must agree on them."""
    columns = (*QUESTION, "label", "until_days", "lost")
    first, *others = (frame.select(columns) for frame in answers.values())
    if all(other.equals(first) for other in others):
        return first.sort(QUESTION)
    every = pl.concat(
        frame.select(*columns, file=pl.lit(str(files[model]))) for model, frame in answers.items()
    )
    unlike = pl.struct("label", "until_days", "lost").n_unique() > 1
    torn = (
        every.group_by(QUESTION)
        .agg(pl.col("file").unique().sort(), unlike=unlike)
        .filter("unlike")
        .sort(QUESTION)
    )
    if torn.height:
        patient, _, paths, _ = torn.row(0)
        raise InputError(
            f"{' and '.join(paths[:2])} disagree about the truth of patient {patient} ({torn.height} such questions): "
            "predict again from one MEDS dataset."
        )
    return every.unique(QUESTION).drop("file").sort(QUESTION)


def _cohort(
    kind: Kind, truth: pl.DataFrame, answers: dict[str, pl.DataFrame], files: dict[str, Path]
) -> SharedAnswers:
    """The questions that every model answered, of the models that answered any."""
    common = truth
    for model, frame in answers.items():
        answered = frame.select(*QUESTION, pl.col("prediction").alias(model)).drop_nulls(model)
        if answered.height:
            common = common.join(answered, on=QUESTION, maintain_order="left")
    if common.is_empty():
        folder = files[min(files)].parent
        raise InputError(
            f"{folder}: no patient is predicted by all of {', '.join(files)}; score them separately."
        )
    return SharedAnswers(
        kind,
        common["subject_id"].to_numpy(),
        common["label"].fill_null(np.nan).to_numpy(),
        common["until_days"].to_numpy(),
        common["lost"].to_numpy(),
        {model: common[model].to_numpy() for model in answers if model in common.columns},
    )


def why_not(cohort: SharedAnswers, measured: Measured) -> str:
    """Why some or all metrics of all models are not defined; empty if nothing about the answers forbids them."""
    known = cohort.outcome[~np.isnan(cohort.outcome)]
    if not len(known):
        return "no answer is known"
    if measured.unseen > UNSEEN:
        return (
            f"not identified: {100 * measured.unseen:.0f} % of the patients were lost before their answer was known, "
            "and nobody was followed longer to stand for them; ask for a shorter horizon"
        )
    if not cohort.kind.numeric and (known == known[0]).all():
        return "everybody had the outcome" if known[0] else "nobody had the outcome"
    return ""


def _rollouts(answers: pl.DataFrame) -> dict[str, float | None]:
    """How many rollouts a simulation's predictions come from, and their mean sampling error."""
    return {
        "decidable": int(answers["rollouts"].sum()),
        "undecidable": int(answers["undecidable_rollouts"].sum()),
        "mean_standard_error": answers["standard_error"].mean(),
    }
