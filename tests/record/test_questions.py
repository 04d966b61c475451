"""Questions from label files of many makes, and the sentence that each wrong one gets."""

import datetime as dt

import polars as pl
import pytest

from sequela.errors import InputError
from sequela.record.questions import QUESTION, SCHEMA, questions_of, read_questions, write_questions

NOON, NIGHT = dt.datetime(2020, 1, 1, 12), dt.datetime(2020, 1, 2, 23, 30)


def frame(times=(NIGHT, NOON, NOON, NOON), patients=(2, 2, 1, 1), **labels) -> pl.DataFrame:
    return pl.DataFrame({"subject_id": patients, "prediction_time": times, **labels})


EXPECTED = [(1, NOON), (2, NOON), (2, NIGHT)]


def test_questions_are_distinct_and_sorted_many_times_a_patient():
    questions = questions_of(frame(), "here")
    assert tuple(questions.columns) == QUESTION and dict(questions.schema) == SCHEMA
    assert questions.rows() == EXPECTED
    assert questions_of(frame().clear(), "here").schema == questions.schema


@pytest.mark.parametrize("kind", [pl.Int32, pl.UInt64, pl.Float64, pl.String])
def test_patient_ids_of_any_type_are_cast_if_nothing_is_lost(kind):
    assert questions_of(frame().with_columns(pl.col("subject_id").cast(kind)), "here").rows() == EXPECTED


@pytest.mark.parametrize(
    "times",
    [
        pl.col("prediction_time").cast(pl.Datetime("ms")),
        pl.col("prediction_time").cast(pl.Datetime("ns")),
        pl.col("prediction_time").dt.replace_time_zone("UTC"),
        pl.col("prediction_time").dt.strftime("%Y-%m-%d %H:%M"),
        pl.col("prediction_time").dt.strftime("%Y-%m-%dT%H:%M:%S%.6f"),
    ],
)
def test_times_of_any_type_are_cast_if_nothing_is_lost(times):
    assert questions_of(frame().with_columns(times), "here").rows() == EXPECTED


def test_dates_are_midnights():
    for dates in (pl.Series([dt.date(2020, 1, 1)]), pl.Series(["2020-01-01"])):
        assert questions_of(frame(dates, [7]), "here").rows() == [(7, dt.datetime(2020, 1, 1))]


def test_labels_are_dropped(tmp_path):
    labels = {"boolean_value": [True] * 4, "integer_value": [1] * 4, "float_value": [0.5] * 4}
    frame(**labels, categorical_value=["yes"] * 4).write_parquet(tmp_path / "labels.parquet")
    questions = read_questions(tmp_path / "labels.parquet")
    assert tuple(questions.columns) == QUESTION and questions.rows() == EXPECTED


def test_a_folder_of_shards_is_one_list_of_questions(tmp_path):
    for name, rows in (("train/0", slice(0, 2)), ("train/1", slice(1, 4))):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        frame()[rows].write_parquet(tmp_path / f"{name}.parquet")
    assert read_questions(tmp_path).rows() == EXPECTED


def test_what_is_written_is_read_back_without_its_labels(tmp_path):
    write_questions(frame(boolean_value=[True] * 4), tmp_path / "questions.parquet")
    assert pl.read_parquet(tmp_path / "questions.parquet").schema == SCHEMA
    assert read_questions(tmp_path / "questions.parquet").rows() == EXPECTED


def refused(wrong: pl.DataFrame, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        questions_of(wrong, "labels.parquet")
    message = str(caught.value)
    assert all(word in message for word in ("labels.parquet", *words)), message


@pytest.mark.parametrize("column", QUESTION)
def test_a_missing_column_or_cell_is_refused(column):
    refused(frame().drop(column), f"no column '{column}'")
    hole = pl.when(pl.int_range(pl.len()) != 2).then(pl.col(column)).alias(column)
    refused(frame().with_columns(hole), "row 3", f"'{column}' is missing", "drop the row")


@pytest.mark.parametrize(
    ("patients", "words"),
    [
        ([1.0, 2.5], ("row 2", "2.5", "whole number")),
        ([2.0**53 + 2, 1.0], ("row 1", "whole number")),
        (["7", "x7"], ("row 2", "x7")),
        ([True, False], ("Boolean", "whole numbers")),
    ],
)
def test_a_patient_that_is_no_whole_number_is_refused(patients, words):
    refused(frame([NOON, NOON], patients), *words)


@pytest.mark.parametrize(
    ("times", "words"),
    [
        (pl.Series([NOON, NOON]).dt.replace_time_zone("Europe/Paris"), ("row 1", "Europe/Paris")),
        (pl.Series([0, 1_001]).cast(pl.Datetime("ns")), ("row 2", "microseconds")),
        (pl.Series(["2020-01-01", "2020-01-01 12:00:00+02:00"]), ("row 2", "+02:00", "without time zone")),
        (pl.Series(["2020-01-01", "2020-02-31"]), ("row 2", "2020-02-31")),
        (pl.Series(["2020-01-01", "1/2/2020"]), ("row 2", "1/2/2020")),
        (pl.Series([1, 2]), ("Int64", "timestamps")),
    ],
)
def test_a_time_that_would_lose_something_is_refused(times, words):
    refused(frame(times, [1, 2]), *words)


def test_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_questions(tmp_path / "nowhere.parquet")
    with pytest.raises(InputError, match=r"holds no \*.parquet file"):
        read_questions(tmp_path)
    (tmp_path / "labels.parquet").write_text("subject_id,prediction_time\n")
    with pytest.raises(InputError, match=r"labels\.parquet cannot be read as parquet"):
        read_questions(tmp_path)
    frame().clear().write_parquet(tmp_path / "labels.parquet")
    with pytest.raises(InputError, match="holds no question"):
        read_questions(tmp_path / "labels.parquet")
    frame().drop("prediction_time").write_parquet(tmp_path / "labels.parquet")
    with pytest.raises(InputError, match="no column 'prediction_time'"):
        read_questions(tmp_path / "labels.parquet")
