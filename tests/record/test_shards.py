from datetime import datetime

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sequela.errors import InputError
from sequela.record.events import Events
from sequela.record.schema import BIRTH
from sequela.record.shards import patients_of, read_frame, read_shard, shards_of
from tests.record.test_events import frame, rows_of


def dataset(folder, events, rows_a_group=1000, name="0.parquet"):
    path = folder / "data" / "train" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(events.to_arrow(), path, row_group_size=rows_a_group)
    return folder


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 5), st.integers(1, 15))
def test_every_patient_is_whole_in_exactly_one_shard(tmp_path_factory, counts, rows_a_group, rows_a_shard):
    rows = [(p, m, f"C{(p + m) % 3}", float(m)) for p, count in enumerate(counts) for m in range(count)]
    folder = dataset(tmp_path_factory.mktemp("meds"), frame(*rows), rows_a_group)
    read = [read_shard(shard) for shard in shards_of(folder, rows_a_shard)]
    assert [row for columns in read for row in rows_of(columns)] == rows
    every = [p for columns in read for p in columns.patient[columns.starts].tolist()]
    assert every == list(range(len(counts)))


def test_rows_out_of_order_are_sorted_and_those_of_one_time_keep_their_order(tmp_path):
    rows = [
        (2, 5, "B", None),
        (2, 1, "A", None),
        (1, 3, "Z", 1.0),
        (1, 3, "A", 2.0),
        (1, None, "GENDER//F", None),
    ]
    (shard,) = shards_of(dataset(tmp_path, frame(*rows)))
    assert rows_of(read_shard(shard)) == [rows[4], rows[2], rows[3], rows[1], rows[0]]


@pytest.mark.parametrize(
    "columns",
    [
        {"code": pl.col("code").cast(pl.Categorical)},
        {"time": pl.col("time").cast(pl.Datetime("ns"))},
        {"time": pl.col("time").cast(pl.Datetime("ms"))},
        {
            "subject_id": pl.col("subject_id").cast(pl.Int32),
            "numeric_value": pl.col("numeric_value").cast(pl.Float64),
        },
        {"numeric_value": pl.col("numeric_value").fill_null(float("nan"))},
        {"text_value": pl.lit("a word")},
        {"subject_id": pl.col("subject_id").cast(pl.UInt64)},
        {"subject_id": pl.col("subject_id").cast(pl.Decimal(20, 0))},
        {"numeric_value": pl.col("numeric_value").cast(pl.Decimal(18, 3))},
        {"numeric_value": pl.col("numeric_value").cast(pl.Float16)},
    ],
    ids=[
        "categorical",
        "nanoseconds",
        "milliseconds",
        "widths",
        "nan",
        "more columns",
        "unsigned",
        "decimal ids",
        "decimals",
        "halves",
    ],
)
def test_other_types_of_the_same_cells_are_read_alike(tmp_path, columns):
    rows = [(1, None, "GENDER//F", None), (1, 5, "A", 1.5), (3, 1, "B", None)]
    (shard,) = shards_of(dataset(tmp_path, frame(*rows).with_columns(**columns)))
    assert rows_of(read_shard(shard)) == rows


def test_a_dataset_without_values_is_read(tmp_path):
    (shard,) = shards_of(dataset(tmp_path, frame((1, 5, "A", 1.5)).drop("numeric_value")))
    assert np.isnan(read_shard(shard).number).all()


@pytest.mark.parametrize("column", ["time", "numeric_value", "text_value"])
def test_a_column_of_nulls_has_no_cells(tmp_path, column):
    nothing = frame((1, None, "A", None), (2, None, "B", None)).with_columns(pl.lit(None).alias(column))
    (shard,) = shards_of(dataset(tmp_path, nothing))
    assert rows_of(read_shard(shard)) == [(1, None, "A", None), (2, None, "B", None)]


def test_a_file_without_rows_may_know_no_types(tmp_path):
    nothing = pl.DataFrame({column: [] for column in ("subject_id", "time", "code")})
    dataset(tmp_path, nothing, name="1.parquet")
    (shard,) = shards_of(dataset(tmp_path, frame((1, 5, "A", None))))
    assert rows_of(read_shard(shard)) == [(1, 5, "A", None)]


@pytest.mark.parametrize(
    ("number", "unit"), [(2**63 - 1, "us"), (-(2**63) + 1, "us"), (2**62, "ms"), (253_402_300_800_000, "ms")]
)
def test_a_time_that_no_calendar_has_is_refused_with_its_row(tmp_path, number, unit):
    time = pl.Series([5, number, None]).cast(pl.Datetime(unit))
    wild = frame((1, 5, "A", None), (1, 6, "A", None), (2, None, "A", None)).with_columns(time=time)
    (shard,) = shards_of(dataset(tmp_path, wild))
    with pytest.raises(InputError, match="row 2: 'time' is not between the years 1 and 9999"):
        read_shard(shard)


def test_the_last_day_of_the_calendar_is_a_time(tmp_path):
    (shard,) = shards_of(
        dataset(tmp_path, frame((1, 5, "A", None)).with_columns(time=datetime(9999, 12, 31, 23, 59)))
    )
    assert len(read_shard(shard)) == 1


@pytest.mark.parametrize(
    ("events", "word"),
    [
        (frame((1, 5, "A", None), (1, 5, None, None)), "row 2: 'code' is missing"),
        (frame((1, 5, "A", float("inf"))), "row 1: 'numeric_value' is infinite"),
        (frame((1, 5, BIRTH, None), (1, 4, "A", None)), "row 2: the event is before its patient's birth"),
        (
            frame((1, 5, "A", None)).with_columns(media=pl.lit(7)),
            "column 'media' holds Int32: convert it to text",
        ),
        (frame((1, 5, "A", None)).drop("time"), "has no column 'time'"),
        (
            frame((1, 5, "A", None), (2, 5, "A", None)).with_columns(
                subject_id=pl.Series([1, 2**63 + 5], dtype=pl.UInt64)
            ),
            "row 2: 'subject_id' is larger than",
        ),
        (
            frame((1, 5, "A", None)).with_columns(subject_id=pl.lit(1.5).cast(pl.Decimal(9, 1))),
            "convert it to whole numbers",
        ),
        (frame((1, 5, "A", None)).with_columns(code=pl.lit(None)), "'code' holds Null: convert it to text"),
        (frame((1, 5, "A", None)).with_columns(time=pl.lit("today")), "convert it to timestamps"),
    ],
)
def test_what_cannot_be_true_is_refused(tmp_path, events, word):
    with pytest.raises(InputError, match=word):
        [read_shard(shard) for shard in shards_of(dataset(tmp_path, events))]


@pytest.mark.parametrize(
    ("wrong", "word"),
    [((3, 1, None, None), "'code' is missing"), ((3, 1, "A", float("-inf")), "infinite")],
)
def test_the_row_that_is_named_is_the_one_in_the_file_whatever_shard_it_is_in(tmp_path, wrong, word):
    rows = [(p, m, "A", 1.0) for p in (1, 2, 3) for m in range(4)] + [wrong]
    shards = shards_of(dataset(tmp_path, frame(*rows), rows_a_group=3), 3)
    assert len(shards) == 5
    with pytest.raises(InputError, match=f"row 13: .*{word}"):
        [read_shard(shard) for shard in shards]


def test_a_frame_is_the_same_with_the_texts_and_in_the_same_order(tmp_path):
    rows = [(2, 5, "B", None), (2, None, "A", 1.0), (1, 3, "Z", 1.0), (1, 3, "A", 2.0)]
    events = frame(*rows).with_columns(text_value=pl.Series(["w", "x", "y", None]))
    (shard,) = shards_of(dataset(tmp_path, events))
    read = read_frame(shard)
    assert read.equals(events[[2, 3, 1, 0]]) and read.schema == events.schema
    assert rows_of(Events.of(read)) == rows_of(read_shard(shard))
    assert read_shard(shard).text.to_list() == ["y", None, "x", "w"]
    assert read_shard(shard, payload=False).text is None
    assert patients_of(shard).tolist() == [1, 2]


def test_a_damaged_file_is_refused(tmp_path):
    rows = [(n, n, f"C{n}", float(n)) for n in range(5000)]
    folder = dataset(tmp_path, frame(*rows))
    path = next(folder.rglob("*.parquet"))
    content = bytearray(path.read_bytes())
    content[1000:6000] = bytes(5000)
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as parquet"):
        [read_shard(shard) for shard in shards_of(folder)]


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="give the folder of a MEDS dataset"):
        shards_of(tmp_path)
    dataset(tmp_path, frame())
    with pytest.raises(InputError, match="no events at all"):
        shards_of(tmp_path)


def test_a_shard_is_what_the_frame_says(world_meds):
    path = next((world_meds / "data" / "train").glob("*.parquet"))
    read = read_shard(next(shard for shard in shards_of(world_meds) if shard.path == path))
    assert rows_of(read) == rows_of(Events.of(pl.read_parquet(path)))
    assert read.time.max() < np.datetime64(datetime(2200, 1, 1), "us").astype(np.int64)


def test_patients_out_of_order_are_sorted_though_their_times_are_not_wrong(tmp_path):
    rows = [(3, 1, "A", None), (1, 5, "B", None), (9, 7, "C", None), (4, 8, "D", None)]
    (shard,) = shards_of(dataset(tmp_path, frame(*rows)))
    assert rows_of(read_shard(shard)) == sorted(rows)


def test_numbers_and_times_finer_than_ours_are_rounded(tmp_path):
    fine = pl.Series([1_000_000_001], dtype=pl.Int64).cast(pl.Datetime("ns"))
    events = frame((1, 5, "A", None)).with_columns(time=fine, numeric_value=pl.lit(16_777_217, pl.Int64))
    (shard,) = shards_of(dataset(tmp_path, events))
    read = read_shard(shard)
    assert read.time.tolist() == [1_000_000] and read.number.tolist() == [np.float32(16_777_216)]


def test_a_linked_split_is_read_and_leftovers_are_not(tmp_path):
    folder = dataset(tmp_path / "meds", frame((1, 1, "A", None)))
    dataset(tmp_path / "else", frame((2, 1, "B", None)))
    (folder / "data/held_out").symlink_to("../../else/data/train")
    for name in ("._0.parquet", ".0.parquet", "~$0.parquet"):
        (folder / "data/train" / name).write_bytes(b"no parquet")
    assert [patients_of(shard).tolist() for shard in shards_of(folder)] == [[2], [1]]
    (tmp_path / "else").rename(tmp_path / "gone")
    with pytest.raises(InputError, match="held_out is a link to nothing"):
        shards_of(folder)


def test_a_split_that_may_not_be_read_is_an_error(tmp_path, locked):
    folder = dataset(tmp_path, frame((1, 1, "A", None)))
    dataset(tmp_path, frame((2, 1, "B", None)), name="deep/0.parquet")
    for place in ("data/train/deep", "data/train/deep/0.parquet"):
        with locked(folder / place), pytest.raises(InputError, match=rf"{place} cannot be opened"):
            shards_of(folder)
    assert len(shards_of(folder)) == 2


@pytest.mark.parametrize("name", ["run[1]", "run*", "r?n1", "{run1}", "it's 5 % #1", "a=b", "x\ny", 'q"'])
def test_a_path_is_no_pattern(tmp_path, name):
    dataset(tmp_path / "run1", frame((1, 1, "A", None)))
    folder = dataset(tmp_path / name, frame((2, 1, "B", None)), name=f"{name}.parquet")
    (shard,) = shards_of(folder)
    assert read_frame(shard)["subject_id"].to_list() == [2]
