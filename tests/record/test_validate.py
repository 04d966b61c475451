"""What a foreign MEDS dataset may be like, and the sentence that each wrong one gets."""

import datetime as dt
import shutil
from pathlib import Path

import polars as pl
import pytest

from sequela.errors import InputError
from sequela.record.dataset import read_events, split_of


def rewrite(dataset: Path, change, split: str = "train") -> Path:
    path = dataset / "data" / split / "0.parquet"
    change(pl.read_parquet(path)).write_parquet(path)
    return path


def test_foreign_but_valid_types_are_read(events, dataset):
    shutil.rmtree(dataset / "metadata")  # without a table of splits, the folders tell
    for split in ("train", "tuning", "held_out"):
        rewrite(
            dataset,
            lambda frame: frame.with_columns(
                pl.col("subject_id").cast(pl.Int32),
                pl.col("time").cast(pl.Datetime("ms")),
                pl.col("code").cast(pl.Categorical),
                pl.col("numeric_value").cast(pl.Float64),
                extra=pl.lit(1),
            ).sample(fraction=1, shuffle=True, seed=0).sort("subject_id"),
            split,
        )  # fmt: skip
    read = read_events(dataset)
    assert read.schema == events.schema
    assert read.sort(read.columns).equals(events.sort(events.columns))
    assert read["time"].is_null().sum() == 40 and read["code"][0] == "GENDER//F"
    assert set(split_of(read_events(dataset, "tuning")["subject_id"].to_numpy())) == {"tuning"}


def test_values_may_be_absent_and_text_may_be_there(dataset):
    for split in ("train", "tuning", "held_out"):
        rewrite(dataset, lambda f: f.drop("numeric_value").with_columns(text_value=pl.lit("note")), split)
    read = read_events(dataset)
    assert read["numeric_value"].null_count() == read.height
    assert read["text_value"].to_list()[:2] == ["note", "note"]


def refused(dataset: Path, *words: str, split: str | None = None) -> None:
    with pytest.raises(InputError) as caught:
        read_events(dataset, split)
    said = str(caught.value)
    assert all(word in said for word in words), said
    assert "\n" not in said


def test_no_dataset(tmp_path):
    refused(tmp_path / "nowhere", "nowhere", "MEDS dataset")


def test_missing_column(dataset):
    path = rewrite(dataset, lambda frame: frame.drop("code"))
    refused(dataset, str(path), "'code'")


@pytest.mark.parametrize(
    "column, kind",
    [("time", pl.String), ("subject_id", pl.String), ("numeric_value", pl.String), ("code", pl.Binary)],
)
def test_wrong_type(dataset, column, kind):
    path = rewrite(dataset, lambda frame: frame.with_columns(pl.col(column).cast(pl.String).cast(kind)))
    refused(dataset, str(path), f"'{column}'", "convert")


@pytest.mark.parametrize("column", ["subject_id", "code"])
def test_missing_cell(dataset, column):
    hole = pl.when(pl.int_range(pl.len()) != 4).then(pl.col(column)).alias(column)
    path = rewrite(dataset, lambda frame: frame.with_columns(hole))
    refused(dataset, f"{path}, row 5", f"'{column}'")


def test_event_before_birth(dataset):
    early = pl.when(pl.col("code") == "LAB//HB").then(dt.datetime(1949, 1, 1)).otherwise("time").alias("time")
    path = rewrite(dataset, lambda frame: frame.with_columns(early))
    refused(dataset, f"{path}, row 3", "before its patient's birth")


def test_patient_in_two_files(dataset):
    stolen = pl.read_parquet(dataset / "data/train/0.parquet").head(5)
    path = rewrite(dataset, lambda frame: pl.concat([frame, stolen]), "held_out")
    refused(dataset, str(path), "is also in", "data/train/0.parquet")
    refused(dataset, "is also in", split="train")


def test_patient_in_two_splits(dataset):
    path = dataset / "metadata/subject_splits.parquet"
    table = pl.read_parquet(path)
    pl.concat([table, table.head(1).with_columns(split=pl.lit("other"))]).write_parquet(path)
    refused(dataset, str(path), "in two splits", split="train")


def test_a_patient_named_twice_in_the_same_split_is_fine(dataset, events):
    path = dataset / "metadata/subject_splits.parquet"
    table = pl.read_parquet(path)
    pl.concat([table, table.head(1)]).write_parquet(path)
    assert read_events(dataset).height == events.height


def test_unknown_split(dataset):
    refused(dataset, "'test'", "held_out, train, tuning", split="test")


def test_empty_table(dataset):
    for split in ("train", "tuning", "held_out"):
        rewrite(dataset, lambda frame: frame.clear(), split)
    refused(dataset, "no events")


def test_truncated_file(dataset):
    path = dataset / "data/train/0.parquet"
    path.write_bytes(path.read_bytes()[:300])
    refused(dataset, str(path), "cannot be read")


@pytest.mark.parametrize(
    "path", ["/etc/hostname", "../1.png", "a/../../1.png", "a/..", "..\\1.png", "~/1.png", "C:/1.png",
             "https://example.org/1.png", "\\\\server\\1.png", ""],
)  # fmt: skip
def test_media_outside_the_dataset_are_refused(dataset, path):
    second = lambda cell: pl.when(pl.int_range(pl.len()) == 1).then(pl.lit(cell))  # noqa: E731
    file = rewrite(dataset, lambda frame: frame.with_columns(media=second("a..b/.c/1.png")))
    assert read_events(dataset)["media"].drop_nulls().to_list() == ["a..b/.c/1.png"]
    rewrite(dataset, lambda frame: frame.with_columns(media=second(path)))
    refused(dataset, f"{file}, row 2", "'media'", "relative path")


def test_not_a_number_is_no_value_and_infinity_is_refused(dataset):
    def with_first(value):
        number = pl.when(pl.int_range(pl.len()) == 0).then(value).otherwise(pl.col("numeric_value"))
        return lambda frame: frame.with_columns(numeric_value=number.cast(pl.Float32))

    rewrite(dataset, with_first(float("nan")))
    assert read_events(dataset, "train")["numeric_value"].is_nan().sum() == 0
    rewrite(dataset, with_first(float("inf")))
    with pytest.raises(InputError, match=r"row 1: 'numeric_value' is infinite"):
        read_events(dataset, "train")


@pytest.mark.parametrize(("zone", "accepted"), [("UTC", True), ("Europe/Berlin", False), ("America/New_York", False)])
def test_times_have_no_zone_but_utc(dataset, zone, accepted):
    """Dropping another one would shift events, some of them from after a prediction time to before it."""
    rewrite(dataset, lambda frame: frame.with_columns(pl.col("time").dt.replace_time_zone(zone)))
    if accepted:
        read_events(dataset)
        return
    with pytest.raises(InputError, match=f"column 'time' has the time zone {zone}: MEDS times have none"):
        read_events(dataset)
