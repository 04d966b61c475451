"""The embeddings folder, written and read: one vector for every question, and what they are.

`vectors/*.parquet` holds `subject_id`, `prediction_time` and `vector`, one row a question; `embeddings.json` the model,
how its states were pooled, the width of a vector and the objective that the model was trained with. The latter is
written last, so a folder without it is not finished.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import polars as pl

from sequela.errors import InputError
from sequela.files import files_below
from sequela.record.questions import QUESTION, SCHEMA
from sequela.record.validate import read_parquet

VECTORS = "vectors"
SUMMARY = "embeddings.json"
VECTOR = "vector"


@dataclass(frozen=True)
class EmbeddingFacts:
    """What the vectors of a folder are.

    Attributes:
        model: the folder of the model, in words.
        pooling: how the states of a history became one vector.
        width: numbers of a vector.
        objective: what the model was trained with.
    """

    model: str
    pooling: str
    width: int
    objective: str


def write_embeddings(
    folder: Path, facts: EmbeddingFacts, batches: Iterable[tuple[pl.DataFrame, np.ndarray]]
) -> int:
    """Write an embeddings folder, a file for each batch; returns how many questions there were.

    Args:
        batches: questions (`subject_id`, `prediction_time`; [n] rows) and their vectors, float [n, `facts.width`].

    Raises:
        InputError: where a vector is not finite, or a question comes twice.
    """
    vectors = Path(folder) / VECTORS
    vectors.mkdir(parents=True, exist_ok=True)
    asked = [pl.DataFrame(schema=SCHEMA)]
    for number, (questions, vector_NC) in enumerate(batches):
        assert vector_NC.shape == (questions.height, facts.width), f"vectors of the shape {vector_NC.shape}"
        frame = questions.select(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items()).with_columns(
            pl.Series(VECTOR, vector_NC.astype(np.float32), dtype=pl.Array(pl.Float32, facts.width))
        )
        path = vectors / f"{number:05}.parquet"
        _check_finite(frame, path)
        frame.write_parquet(path, compression="zstd")
        asked.append(frame.select(QUESTION))
    every = pl.concat(asked)
    _check_once(every, Path(folder))
    (Path(folder) / SUMMARY).write_text(json.dumps(asdict(facts), indent=2) + "\n", encoding="utf-8")
    return every.height


def read_facts(folder: Path) -> EmbeddingFacts:
    """What the vectors of a folder are.

    Raises:
        InputError: for a folder of another kind, or a damaged one.
    """
    path = Path(folder) / SUMMARY
    if not path.is_file():
        raise InputError(f"{folder} holds no embeddings ({SUMMARY} is not there): give a folder of `sequela embed`.")
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        facts = EmbeddingFacts(*(str(known[name]) for name in ("model", "pooling")), known["width"], known["objective"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({_reason(error)}): embed again.") from error
    sound = type(facts.width) is int and facts.width > 0 and isinstance(facts.objective, str)
    if not sound:
        raise InputError(f"{path} is damaged (`width` or `objective` is none): embed again.")
    return facts


def read_embeddings(folder: Path) -> pl.DataFrame:
    """The vectors of a folder: `subject_id` Int64, `prediction_time` Datetime[us], `vector` Array(Float32, width).

    Returns:
        One row a question, sorted by patient and time.

    Raises:
        InputError: for a folder of another kind or without vectors, a damaged file, vectors of different widths or with
            numbers that are not finite, and for a question that comes twice.
    """
    facts, vectors = read_facts(folder), Path(folder) / VECTORS
    files = files_below(vectors, ".parquet") if vectors.is_dir() else []
    if not files:
        raise InputError(f"{folder} holds no vectors ({VECTORS}/*.parquet): embed again.")
    frames = [_read(path, facts.width) for path in files]
    every = pl.concat(frames)
    _check_once(every, Path(folder))
    return every.sort(QUESTION)


def _read(path: Path, width: int) -> pl.DataFrame:
    frame = read_parquet(path)
    for name in (*QUESTION, VECTOR):
        if name not in frame.columns:
            raise InputError(f"{path} has no column '{name}': embeddings need {', '.join((*QUESTION, VECTOR))}.")
    vector = frame[VECTOR]
    if not isinstance(vector.dtype, pl.Array | pl.List) or not vector.dtype.inner.is_numeric():
        raise InputError(f"{path}, column '{VECTOR}' holds {vector.dtype}: write a list of numbers in each row.")
    lists = vector.arr.to_list() if isinstance(vector.dtype, pl.Array) else vector
    length = lists.list.len()
    wrong = (length != width) | length.is_null()
    if wrong.any():
        row = wrong.arg_max()
        raise InputError(
            f"{path}, row {row + 1}: the vector has {length[row] or 0} numbers, while {SUMMARY} says {width}: keep "
            "vectors of one width in a folder, or embed again."
        )
    try:
        keys = [pl.col(name).cast(dtype) for name, dtype in SCHEMA.items()]
        whole = frame.select(*keys, lists.cast(pl.List(pl.Float32)).list.to_array(width).alias(VECTOR))
    except pl.exceptions.PolarsError as error:
        raise InputError(f"{path}: patients or times cannot be read as such: embed again.") from error
    if whole.select(pl.any_horizontal(pl.col(QUESTION).is_null().any())).item():
        raise InputError(f"{path}: a patient or a time is missing; fill it in, or drop the row.")
    _check_finite(whole, path)
    return whole


def _check_finite(frame: pl.DataFrame, path: Path) -> None:
    """Check that all numbers are there and finite."""
    if frame.is_empty():
        return
    finite = np.isfinite(vectors_of(frame)).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        patient, time = frame.select(QUESTION).row(row)
        raise InputError(
            f"{path}, row {row + 1}: the vector of patient {patient} at {time} has a number that is missing or not "
            f"finite ({(~finite).sum():,} such rows): check the model for a run that diverged, and embed again."
        )


def vectors_of(frame: pl.DataFrame) -> np.ndarray:
    """The column `vector` as float32 [N, width]; NaN where a number is missing.

    >>> frame = pl.DataFrame({"vector": [[1.0, 2.0], [3.0, None]]}, schema={"vector": pl.Array(pl.Float32, 2)})
    >>> vectors_of(frame).tolist()
    [[1.0, 2.0], [3.0, nan]]
    """
    width = frame.schema[VECTOR].shape[0]
    return frame[VECTOR].explode().fill_null(np.nan).to_numpy().reshape(frame.height, width)


def _check_once(frame: pl.DataFrame, folder: Path) -> None:
    twice = frame.filter(pl.struct(QUESTION).is_duplicated())
    if twice.height:
        patient, time = twice.select(QUESTION).row(0)
        raise InputError(
            f"{folder}: patient {patient} at {time} has several vectors ({twice.height:,} such rows); keep one a "
            "question."
        )


def _reason(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else "it is not the JSON that belongs there"
