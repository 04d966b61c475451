"""Predictions on disk: `<task>/<model>.parquet`, one row per question.

The first columns are those of the meds-evaluation schema. That schema allows no others, and no missing labels, so
`for_meds_evaluation` selects the rows and columns that it accepts. Then come `until_days` (until the truth was known,
or the record ended), `lost` (whether the record ended first), and, from a simulation, `standard_error` (Monte Carlo),
`low` and `high` (the 95 % interval of a risk from sampling alone; of a number, the range of most rollouts), `reached`
(the share of rollouts that have a number), `rollouts` that gave an answer, `undecidable_rollouts` that were truncated
before they did, and the `tokens` that they cost. A mean over models of several training seeds says how many `seeds`
they were and how far their answers lie apart, `between_seeds`; the answers of each stand beside it (`seed_name`).
Recalibrated risks are models of their own (`recalibrated_name`), with `low` and `high` recalibrated too.
"""

from __future__ import annotations

import re
from pathlib import Path

import polars as pl

from sequela.errors import InputError
from sequela.record.questions import QUESTION
from sequela.record.validate import read_parquet
from sequela.task.kinds import KINDS, kind_of_numbers, kind_of_probabilities

SIMULATION = "sequela"  # the name of the simulation among the models; of several seeds, of their mean
BY_HEAD = f"{SIMULATION}_head"  # that of the value head, beside a simulation
RECALIBRATED = ("logistic", "isotonic")  # the maps of a calibration (see `sequela.task.answers.calibration`)
BINARY = {
    "subject_id": pl.Int64,
    "prediction_time": pl.Datetime("us"),
    "boolean_value": pl.Boolean,  # the truth; null: not known
    "predicted_boolean_value": pl.Boolean,
    "predicted_boolean_probability": pl.Float32,  # null: no rollout gave an answer
}
NUMBER = {
    "subject_id": pl.Int64,
    "prediction_time": pl.Datetime("us"),
    "float_value": pl.Float32,  # days, a count, or in the unit of the outcome's code
    "predicted_float_value": pl.Float32,
}
EXTRA = {
    "until_days": pl.Float64,  # days until the truth was known, or the patient was lost
    "lost": pl.Boolean,  # whether the record ends before the truth is known
    "standard_error": pl.Float32,  # Monte Carlo; null for baselines and for a single rollout
    # Of probabilities: the 95 % interval of sampling; of numbers: the range of most rollouts
    "low": pl.Float32,
    "high": pl.Float32,
    "reached": pl.Float32,  # of numbers: the share of rollouts that have one, such as those that reach the outcome
    "rollouts": pl.Int32,  # that gave an answer
    "undecidable_rollouts": pl.Int32,
    "tokens": pl.Int64,  # what the rollouts cost
    "seeds": pl.Int32,  # models whose answers are averaged; null for one
    "between_seeds": pl.Float32,  # standard deviation of their answers
}
KIND = "kind"  # left out for binary tasks; files of others lack it, too, and their numbers are days


def seed_name(number: int) -> str:
    """What the model of one of several training seeds is called, `number` from 0.

    >>> seed_name(0), is_seed(seed_name(0)), is_seed("sequela"), is_seed("trees")
    ('sequela_1', True, False, False)
    """
    return f"{SIMULATION}_{number + 1}"


def is_seed(model: str) -> bool:
    """Whether that is the name of one of several seeds, whose mean is called `SIMULATION`."""
    return re.fullmatch(rf"{SIMULATION}_[1-9]\d*", model) is not None


def recalibrated_name(name: str) -> str:
    """What the simulation's recalibrated risks are called among the models.

    >>> recalibrated_name("logistic"), is_recalibrated("sequela_logistic"), is_recalibrated("logistic")
    ('sequela_logistic', True, False)
    """
    return f"{SIMULATION}_{name}"


def is_recalibrated(model: str) -> bool:
    """Whether that is the name of recalibrated risks."""
    return model in {recalibrated_name(name) for name in RECALIBRATED}


def is_ours(model: str) -> bool:
    """Whether the answers are those of the simulation's model, in any form: no rival of it."""
    return model in (SIMULATION, BY_HEAD) or is_seed(model) or is_recalibrated(model)


def model_order(model: str) -> tuple[bool, bool, str]:
    """Sorts models: the simulation, its other forms, and the rest, by name."""
    return model != SIMULATION, not is_ours(model), model


def write_predictions(answers: pl.DataFrame, kind: str, path: Path) -> None:
    """Write one model's predictions for a task of that `kind`.

    Args:
        answers: `subject_id`, `prediction_time`, `label`, `until_days` and `decided` (see `labels`; without the last,
            patients without a label count as lost), `prediction`; from a simulation also `standard_error`, `low`,
            `high`, `rollouts`, `undecidable_rollouts`, `tokens`; from a mean of several `seeds` and `between_seeds`.
    """
    spec = KINDS[kind]
    if spec.numeric:
        typed = answers.with_columns(float_value="label", predicted_float_value="prediction")
    else:
        typed = answers.with_columns(
            boolean_value=pl.col("label") == 1,
            predicted_boolean_value=pl.col("prediction") >= 0.5,
            predicted_boolean_probability="prediction",
        )
    lost = pl.col("decided") == "censored" if "decided" in answers.columns else pl.col("label").is_null()
    typed = typed.with_columns(lost=lost)
    missing = [pl.lit(None).alias(column) for column in EXTRA if column not in typed.columns]
    schema = {**(NUMBER if spec.numeric else BINARY), **EXTRA}
    columns = [pl.col(column).cast(dtype) for column, dtype in schema.items()]
    if not spec.unmarked:
        columns.append(pl.lit(kind).alias(KIND))
    path.parent.mkdir(parents=True, exist_ok=True)
    typed.with_columns(missing).select(columns).write_parquet(path)


def read_predictions(path: Path) -> tuple[str, pl.DataFrame]:
    """The kind of task and one model's predictions, in the columns that `write_predictions` takes, and `lost`.

    Any file in the meds-evaluation schema will do; its numbers are days. Without `until_days` the follow-up is unknown,
    and patients without a label are dropped without weighting the others. Without `lost` they count as lost.

    Raises:
        InputError: if the file does not hold predictions, or not valid ones.
    """
    if not path.exists():
        raise InputError(
            f"{path} is not there: it should hold predictions, as `sequela predict` writes them."
        )
    frame = read_parquet(path)
    kind = _kind(frame, path)
    schema = NUMBER if KINDS[kind].numeric else BINARY
    label, prediction = list(schema)[2], list(schema)[-1]
    for column in ("subject_id", "prediction_time", label, prediction):
        if column not in frame.columns:
            raise InputError(f"{path} has no column '{column}': predictions need {', '.join(schema)}.")
    absent = {"until_days": 0.0} | dict.fromkeys(list(EXTRA)[1:])
    whole = frame.with_columns(
        pl.lit(absent[column]).alias(column) for column in EXTRA if column not in frame.columns
    )
    answers = whole.select(
        "subject_id",
        pl.col("prediction_time").cast(pl.Datetime("us")),
        pl.col(label).cast(pl.Float64).alias("label"),
        pl.col(prediction).cast(pl.Float64).alias("prediction"),
        *(pl.col(column).cast(dtype) for column, dtype in EXTRA.items()),
    ).with_columns(pl.col("lost").fill_null(pl.col("label").is_null()))
    _check(answers, kind, prediction, path)
    return kind, answers


def _kind(frame: pl.DataFrame, path: Path) -> str:
    """The kind that the file names; without a name, numbers are days and probabilities of kind binary."""
    names = frame[KIND].unique().to_list() if KIND in frame.columns else []
    if "predicted_float_value" in frame.columns:
        result = kind_of_numbers(names)
        choices = [name for name, spec in KINDS.items() if spec.numeric]
    else:
        result = kind_of_probabilities(names)
        choices = [name for name, spec in KINDS.items() if not spec.numeric]
    if result is None:
        raise InputError(f"{path}: '{KIND}' is {names}; give one of {', '.join(choices)} in every row.")
    return result


def _check(answers: pl.DataFrame, kind: str, column: str, path: Path) -> None:
    valid = KINDS[kind].valid
    sound = pl.col("prediction").is_between(valid.low, valid.high) & pl.col("prediction").is_finite()
    wrong = answers.with_row_index("row").filter(~sound)
    if wrong.height:
        row, value = wrong.select("row", "prediction").row(0)
        raise InputError(
            f"{path}, row {row + 1}: '{column}' is {value}; give {valid.words}, or null for none."
        )
    twice = answers.filter(pl.struct(QUESTION).is_duplicated())
    if twice.height:
        patient, time = twice.select(QUESTION).row(0)
        raise InputError(f"{path}: patient {patient} at {time} is predicted twice; keep one row a question.")


def for_meds_evaluation(predictions: pl.DataFrame) -> pl.DataFrame:
    """What the package meds-evaluation accepts of a predictions file: rows with a label, columns of its schema."""
    return predictions.filter(pl.col("boolean_value").is_not_null()).select(list(BINARY))
