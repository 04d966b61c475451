"""Vectors on disk come back as they were, and whatever is wrong with a folder is said in one sentence."""

import json
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sequela.errors import InputError
from sequela.rollout.embeddings.folder import (
    EmbeddingFacts,
    read_embeddings,
    read_facts,
    vectors_of,
    write_embeddings,
)

FACTS = EmbeddingFacts("model/", "last", 3, "next_token")
START = datetime(2001, 2, 3, 4, 5, 6, 7)


def questions(patients: list[int]) -> pl.DataFrame:
    times = [START + timedelta(days=number) for number in range(len(patients))]
    return pl.DataFrame({"subject_id": patients, "prediction_time": times})


def written(folder: Path) -> np.ndarray:
    vector = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    batches = [(questions([4, 5, 9]), vector[:3]), (questions([2, 3]), vector[3:])]
    assert write_embeddings(folder, FACTS, iter(batches)) == 5
    return vector


def test_what_is_written_is_read(tmp_path: Path) -> None:
    vector = written(tmp_path)
    frame = read_embeddings(tmp_path)
    assert frame.schema == {
        "subject_id": pl.Int64,
        "prediction_time": pl.Datetime("us"),
        "vector": pl.Array(pl.Float32, 3),
    }
    assert frame["subject_id"].to_list() == [2, 3, 4, 5, 9]
    assert frame["prediction_time"][0] == START
    np.testing.assert_array_equal(vectors_of(frame), vector[[3, 4, 0, 1, 2]])
    assert read_facts(tmp_path) == FACTS
    assert set(json.loads((tmp_path / "embeddings.json").read_text())) == {"model", "pooling", "width", "objective"}


def test_lists_of_doubles_are_vectors_too(tmp_path: Path) -> None:
    written(tmp_path)
    path = tmp_path / "vectors" / "00000.parquet"
    pl.read_parquet(path).with_columns(pl.col("vector").arr.to_list().cast(pl.List(pl.Float64))).write_parquet(path)
    assert read_embeddings(tmp_path).schema["vector"] == pl.Array(pl.Float32, 3)


def test_a_writer_refuses_what_no_reader_takes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"patient 5 at .* not finite"):
        write_embeddings(tmp_path / "a", FACTS, [(questions([4, 5]), np.array([[0, 0, 0], [0, np.nan, 0]]))])
    with pytest.raises(InputError, match=r"patient 4 at .* several vectors"):
        write_embeddings(tmp_path / "b", FACTS, [(questions([4]), np.zeros((1, 3)))] * 2)
    assert not (tmp_path / "b" / "embeddings.json").exists()  # so it is not taken for finished


def change(folder: Path, **columns: pl.Expr | pl.Series) -> None:
    path = folder / "vectors" / "00001.parquet"
    pl.read_parquet(path).with_columns(**columns).write_parquet(path)


def lists(*rows: list[float] | None) -> pl.Series:
    return pl.Series(rows, dtype=pl.List(pl.Float32))


@pytest.mark.parametrize(
    ("vector", "said"),
    [
        (lists([1, 2, 3], [1, 2]), "row 2: the vector has 2 numbers, while embeddings.json says 3"),
        (lists([1, 2, 3], None), "row 2: the vector has 0 numbers"),
        (lists([1, 2, 3], [1, None, 3]), "row 2: the vector of patient 3 at .* missing or not finite"),
        (lists([1, float("nan"), 3], [1, 2, 3]), "row 1: the vector of patient 2"),
        (lists([1, 2, 3], [1, 2, float("inf")]), "row 2: the vector of patient 3"),
        (pl.Series([1.0, 2.0]), "column 'vector' holds Float64"),
    ],
)
def test_damaged_vectors_are_named(tmp_path: Path, vector: pl.Series, said: str) -> None:
    written(tmp_path)
    change(tmp_path, vector=vector)
    with pytest.raises(InputError, match=said):
        read_embeddings(tmp_path)


def test_other_damage_is_named(tmp_path: Path) -> None:
    written(tmp_path)
    change(tmp_path, subject_id=pl.lit(4), prediction_time=pl.lit(START))
    with pytest.raises(InputError, match=r"patient 4 at 2001-02-03 .* several vectors"):
        read_embeddings(tmp_path)
    change(tmp_path, subject_id=pl.lit(None, pl.Int64))
    with pytest.raises(InputError, match=r"a patient or a time is missing"):
        read_embeddings(tmp_path)
    change(tmp_path, subject_id=pl.lit("nobody"))
    with pytest.raises(InputError, match=r"cannot be read as such"):
        read_embeddings(tmp_path)
    (tmp_path / "vectors" / "00001.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(InputError, match=r"00001.parquet"):
        read_embeddings(tmp_path)


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no embeddings .* give a folder of `sequela embed`"):
        read_embeddings(tmp_path)
    written(tmp_path)
    for path in (tmp_path / "vectors").iterdir():
        path.unlink()
    with pytest.raises(InputError, match=r"holds no vectors"):
        read_embeddings(tmp_path)


@pytest.mark.parametrize("text", ["", "[1]", '{"model": "m"}', '{"model": "m", "pooling": "last", "width": 0}'])
def test_a_damaged_summary_is_named(tmp_path: Path, text: str) -> None:
    written(tmp_path)
    (tmp_path / "embeddings.json").write_text(text)
    with pytest.raises(InputError, match=r"embeddings.json is damaged"):
        read_facts(tmp_path)


def test_a_width_that_is_no_number_is_damage(tmp_path: Path) -> None:
    written(tmp_path)
    facts = {"model": "m", "pooling": "last", "width": "3", "objective": "next_token"}
    (tmp_path / "embeddings.json").write_text(json.dumps(facts))
    with pytest.raises(InputError, match=r"embeddings.json is damaged"):
        read_facts(tmp_path)
