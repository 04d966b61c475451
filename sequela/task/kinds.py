"""Kinds of tasks. All that a kind decides stands here; every other module asks the `Kind`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import polars as pl

from sequela.task.answers.rates import ByRates, risk_by_rates, time_by_rates
from sequela.task.answers.statistic import MEAN, MEDIAN, SHARE, Statistic
from sequela.task.rules import HOW_OFTEN, WHEN, WHETHER, WHICH_NUMBER, LabelRule
from sequela.task.scoring import metric
from sequela.task.scoring.metric import Metric

LABEL = pl.col("label")
INFINITE = float("inf")


@dataclass(frozen=True)
class ValidRange:
    """What a prediction may be: `low` to `high`, both included, and how to say so."""

    low: float
    high: float
    words: str


@dataclass(frozen=True, eq=False)
class Words:
    """How people read a kind.

    Attributes:
        asks: the question, as in docs/how-to/question.md.
        unit: of an answer, in the table of a what-if.
        heading: the unit beside the name of a metric; empty for none.
        without: who has no outcome to score, though nobody was lost.
        reaches: what a verdict calls the headline metric.
        digits: of the headline metric in a verdict.
        score: one sentence about the headline score of the simulation.
        example: (predicted, observed, standard error) of one patient, in words.
    """

    asks: str
    unit: str
    heading: str
    without: str
    reaches: str
    digits: int
    score: Callable[[float], str]
    example: Callable[[float, float, float | None], str]


@dataclass(frozen=True, eq=False)
class Kind:
    """What sort of answer a task asks for, and all that follows from it.

    Attributes:
        name: as in a task's YAML file.
        numeric: the answer is a number, scored by how far off it is; else a probability.
        needs_horizon: whether a task of this kind must name one.
        has_hazard: whether the answer is the probability of one event, so that next-token probabilities add up to it.
        labels: how the label is read off a timeline.
        score: what one rollout contributes, from its label and `decided` (see `sequela.task.label.labels`).
        known: whether a rollout gives an answer, from the same columns.
        answer: how the scores of rollouts become a prediction with error and interval.
        metrics: in the order of metrics.json; the models are compared by the `headline`, one of them.
        summary: those shown in the terminal.
        baselines: name -> fitter in `sequela.task.baselines.baseline.FITTERS`, in the order of reports.
        valid: the range of a prediction.
        words: how people read it.
        by_rates: how the rates of a value head become a prediction; None: they do not tell.
    """

    name: str
    numeric: bool
    needs_horizon: bool
    has_hazard: bool
    labels: LabelRule
    score: pl.Expr
    known: pl.Expr
    answer: Statistic
    metrics: tuple[Metric, ...]
    headline: Metric
    summary: tuple[Metric, ...]
    baselines: Mapping[str, str]
    valid: ValidRange
    words: Words
    by_rates: ByRates | None = None

    @property
    def unmarked(self) -> bool:
        """Whether files of predictions leave the column `kind` out, as the meds-evaluation schema has none."""
        return self.name == "binary"


def kind_of_numbers(names: list[str]) -> str | None:
    """The kind of a file of numbers, given the distinct cells of its column `kind`; None if they name no such kind.

    >>> kind_of_numbers(["count"]), kind_of_numbers([]), kind_of_numbers(["count", "time"])
    ('count', 'time', None)
    """
    return _named(
        names or [TIME.name], numeric=True
    )  # files of others have no such column: their numbers are days


def kind_of_probabilities(names: list[str]) -> str | None:
    """The same for a file of probabilities.

    >>> kind_of_probabilities([]), kind_of_probabilities(["count"])
    ('binary', None)
    """
    return _named(names or [BINARY.name], numeric=False)


def _named(names: list[str], *, numeric: bool) -> str | None:
    kind = KINDS.get(names[0])
    return kind.name if len(names) == 1 and kind is not None and kind.numeric == numeric else None


def _risk_in_words(risk: float, happened: float, error: float | None) -> str:
    doubt = f" (± {196 * error:.1f} from simulating)" if error is not None else ""
    return f"risk {100 * risk:.1f} %{doubt}; {'it happened' if happened else 'it did not happen'}"


def _number_in_words(predicted: float, observed: float, _error: float | None) -> str:
    return f"{round(predicted, 2):,g} predicted, {round(observed, 2):,g} observed"


BINARY = Kind(
    name="binary",
    numeric=False,
    needs_horizon=False,
    has_hazard=True,
    labels=WHETHER,
    score=LABEL,
    known=LABEL.is_not_null(),
    answer=SHARE,
    by_rates=risk_by_rates,
    metrics=(metric.AUROC, metric.AUPRC, metric.BRIER, metric.ECE, metric.CALIBRATION_SLOPE, metric.OE),
    headline=metric.AUROC,
    summary=(metric.AUROC, metric.OE),
    baselines={
        "prevalence": "mean", "age_sex": "age_sex", "logistic": "logistic", "trees": "trees", "cox": "cox",
    },
    valid=ValidRange(0.0, 1.0, "a probability from 0 to 1"),
    words=Words(
        asks="does it happen?",
        unit="risk",
        heading="",
        without="without an answer",
        reaches="AUROC",
        digits=3,
        score=lambda auroc: (
            "of two patients the model has never seen, one with and one without this outcome, simulated futures gave "
            f"the higher risk to the right one in {round(100 * auroc)} of 100 pairs."
        ),
        example=_risk_in_words,
    ),
)  # fmt: skip
TIME = Kind(
    name="time",
    numeric=True,
    needs_horizon=False,
    has_hazard=False,
    labels=WHEN,
    # Of those who reach it: an end or the horizon first is no time; cut off counts as later than any other
    score=pl.when(pl.col("decided") == "censored").then(INFINITE).otherwise(LABEL),
    known=pl.col("decided") != "censored",
    answer=MEDIAN,
    by_rates=time_by_rates,
    metrics=(metric.MAE,),
    headline=metric.MAE,
    summary=(metric.MAE,),
    baselines={"median": "median", "ridge": "ridge of logarithms", "trees": "positive trees"},
    valid=ValidRange(0.0, INFINITE, "a number of days"),
    words=Words(
        asks="after how many days?",
        unit="days",
        heading="days",
        without="without the outcome in time",
        reaches="a mean error, in days, of",
        digits=2,
        score=lambda mae: f"simulated futures are off by {mae:.1f} days on average.",
        example=lambda predicted, observed, _: f"{predicted:.1f} days predicted, {observed:.1f} observed",
    ),
)
COUNT = Kind(
    name="count",
    numeric=True,
    needs_horizon=True,
    has_hazard=False,
    labels=HOW_OFTEN,
    score=LABEL,
    known=LABEL.is_not_null(),
    answer=MEAN,
    metrics=(metric.MAE, metric.RMSLE),
    headline=metric.MAE,
    summary=(metric.MAE, metric.RMSLE),
    baselines={"mean": "mean", "median": "median", "ridge": "ridge of logarithms", "trees": "counting trees"},
    valid=ValidRange(0.0, INFINITE, "a count, 0 or more"),
    words=Words(
        asks="how often, until the horizon?",
        unit="events",
        heading="",
        without="without an answer",
        reaches="a mean error of",
        digits=2,
        score=lambda mae: f"simulated futures are off by {mae:.2f} on average.",
        example=_number_in_words,
    ),
)
VALUE = Kind(
    name="value",
    numeric=True,
    needs_horizon=True,
    has_hazard=False,
    labels=WHICH_NUMBER,
    score=LABEL,
    known=LABEL.is_not_null(),
    answer=MEDIAN,
    metrics=(metric.MAE,),
    headline=metric.MAE,
    summary=(metric.MAE,),
    baselines={"median": "median", "ridge": "ridge", "trees": "trees of numbers"},
    valid=ValidRange(-INFINITE, INFINITE, "a number"),
    words=Words(
        asks="which number does the first one carry?",
        unit="its unit",
        heading="unit of the value",
        without="without a value in time",
        reaches="a mean error, in the unit of the values, of",
        digits=2,
        score=lambda mae: f"simulated futures are off by {mae:.2f} (in the unit of the value) on average.",
        example=_number_in_words,
    ),
)
KINDS: dict[str, Kind] = {kind.name: kind for kind in (BINARY, TIME, COUNT, VALUE)}
