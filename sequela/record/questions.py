"""Questions: a patient and a prediction time. A patient may be asked about at many times.

Cohorts, simulated folders and predictions are keyed by these two columns. A MEDS label file is a list of questions too;
only its two key columns are read, so that a label can never reach a model.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from sequela.errors import InputError
from sequela.files import files_below

QUESTION = ("subject_id", "prediction_time")
SCHEMA = {"subject_id": pl.Int64, "prediction_time": pl.Datetime("us")}


def questions_of(frame: pl.DataFrame, source: str | Path) -> pl.DataFrame:
    """The distinct questions of a frame, sorted by patient and time; all other columns are dropped.

    Patient ids may be any whole numbers; times may be dates, timestamps of any unit, or ISO 8601 text, as long as the
    cast to `SCHEMA` loses nothing. A time zone is accepted only if it is UTC: MEDS times carry none, and shifting them
    silently could show the model events from after the prediction time.

    Args:
        source: where the frame comes from, for error messages.

    Returns:
        A frame in `SCHEMA`; empty if `frame` is.

    Raises:
        InputError: if a column is missing, or a cell is missing or cannot be cast without loss.
    """
    for column in QUESTION:
        if column not in frame.columns:
            raise InputError(f"{source} has no column '{column}': questions need {' and '.join(QUESTION)}.")
    patient = _checked(frame["subject_id"], _patients(frame["subject_id"], source), source, "a whole number")
    time = _checked(
        frame["prediction_time"],
        _times(frame["prediction_time"], source),
        source,
        "a time such as 2020-01-31 08:00:00, without time zone and in whole microseconds",
    )
    return pl.DataFrame([patient, time], schema=SCHEMA).unique().sort(QUESTION)


def read_questions(path: str | Path) -> pl.DataFrame:
    """The questions in a Parquet file of ours, a MEDS label file, or a folder of such files.

    Returns:
        See `questions_of`; never empty.

    Raises:
        InputError: if nothing is there, a file is not Parquet, there is no question, or see `questions_of`.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist: give a Parquet file with {' and '.join(QUESTION)}.")
    files = files_below(path, ".parquet") if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path} holds no *.parquet file: give a folder of MEDS label files, or one file.")
    questions = pl.concat([pl.DataFrame(schema=SCHEMA), *(_read(file) for file in files)]).unique()
    if questions.is_empty():
        raise InputError(f"{path} holds no question: give at least one row of {' and '.join(QUESTION)}.")
    return questions.sort(QUESTION)


def write_questions(questions: pl.DataFrame, path: str | Path) -> None:
    """Write the questions of a frame (see `questions_of`) to a Parquet file, and nothing else."""
    questions_of(questions, path).write_parquet(path, compression="zstd")


def _read(file: Path) -> pl.DataFrame:
    # Imported here: who reads no file, such as a list of tasks, is spared Arrow
    from sequela.record.validate import read_parquet, schema_of

    columns = [column for column in QUESTION if column in schema_of(file)]
    return questions_of(read_parquet(file, columns), file)


def _patients(cells: pl.Series, source: str | Path) -> pl.Series:
    """As whole numbers; null where a cell is none."""
    if cells.dtype.is_integer():
        return cells.cast(pl.Int64, strict=False)
    if cells.dtype.is_float():
        whole = cells.cast(pl.Int64, strict=False)
        # Above 2^53 a float no longer tells neighboring ids apart.
        exact = (whole.cast(pl.Float64) == cells) & (whole.abs() <= 2**53)
        return whole.set(~exact.fill_null(False), None)
    if cells.dtype in (pl.String, pl.Null):
        return cells.cast(pl.String).cast(pl.Int64, strict=False)
    raise InputError(f"{source}, column 'subject_id' holds {cells.dtype}: convert it to whole numbers.")


def _times(cells: pl.Series, source: str | Path) -> pl.Series:
    """As microseconds without a time zone; null where a cell cannot be had so."""
    if isinstance(cells.dtype, pl.Datetime):
        if cells.dtype.time_zone not in (None, "UTC"):
            raise InputError(
                f"{source}, row 1: 'prediction_time' has the time zone {cells.dtype.time_zone}; "
                "MEDS times have none: write the times as in the dataset, without a zone."
            )
        plain = cells.dt.replace_time_zone(None)
        time = plain.dt.cast_time_unit("us")
        return time.set((time.dt.cast_time_unit(plain.dtype.time_unit) != plain).fill_null(False), None)
    if cells.dtype == pl.Date:
        return cells.cast(pl.Datetime("us"))
    if cells.dtype in (pl.String, pl.Null):
        return _parsed(cells.cast(pl.String))
    raise InputError(f"{source}, column 'prediction_time' holds {cells.dtype}: convert it to timestamps.")


def _parsed(text: pl.Series) -> pl.Series:
    """ISO 8601 dates and times without a zone, to the microsecond; null for anything else."""
    shape = r"^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?)?$"
    text = text.set(~text.str.contains(shape).fill_null(False), None).str.replace("T", " ")
    formats = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M")
    day = text.str.to_date("%Y-%m-%d", strict=False, exact=True).cast(pl.Datetime("us"))
    times = [text.str.to_datetime(shape, time_unit="us", strict=False) for shape in formats]
    return pl.select(pl.coalesce(day, *times)).to_series()


def _checked(before: pl.Series, after: pl.Series, source: str | Path, wanted: str) -> pl.Series:
    """`after` if no cell of it is missing."""
    if not after.null_count():
        return after.rename(before.name)
    row = int(np.argmax(after.is_null().to_numpy()))
    cell = before[row]
    problem = f"'{before.name}' is missing" if cell is None else f"'{before.name}' is {cell!s}"
    raise InputError(f"{source}, row {row + 1}: {problem}; give {wanted}, or drop the row.")
