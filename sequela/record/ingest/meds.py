"""Ingests MEDS datasets made by someone else: versions 0.3 and 0.4, in folders or as a flat file.

No mapping is needed: columns, types and codes are kept. What gets fixed is what MEDS leaves open or other tools do
differently: files that share patients, other time units, unsorted events.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import duckdb
import polars as pl

from sequela.errors import InputError
from sequela.files import files_below, system_error
from sequela.progress import Progress
from sequela.record.ingest.extract import ExtractedRule, ExtractedTable, Extraction
from sequela.record.ingest.rule import LARGEST
from sequela.record.ingest.spill import Spill, database_in, parts_for
from sequela.record.ingest.tables.cells import add_macros
from sequela.record.ingest.tables.sql import literal, paths_for_duckdb, plain_path, quoted
from sequela.record.schema import (
    BIRTH,
    CODES_FILE,
    DATA,
    DEATH,
    FACTS_FILE,
    MEDIA,
    PAYLOAD,
    SPLITS,
    SPLITS_FILE,
)
from sequela.record.validate import OUTSIDE, check_types, outside_error, read_parquet, schema_of

# MEDS 0.4 column -> its names, including those in earlier versions
COLUMNS = {"subject_id": ("subject_id", "patient_id"), "time": ("time",), "code": ("code",),
           "numeric_value": ("numeric_value",), "text_value": ("text_value", "text"), "media": ("media",),
           "unit": ("unit",)}  # fmt: skip
# Birth and death codes of MEDS 0.1 and 0.2
RENAMED = {"SNOMED/184099003": BIRTH, "SNOMED/419620001": DEATH}
SPLIT_FILES = (SPLITS_FILE, "metadata/patient_splits.parquet")
# Fields of dataset.json that are not copied: about columns that we drop, and the MEDS version, which is now ours
NOT_COPIED = ("meds_version", "raw_source_id_columns", "code_modifier_columns", "additional_value_modality_columns",
            "site_id_columns", "other_extension_columns")  # fmt: skip
ROWS_A_FILE = 1 << 40  # more than any file has
FILE = "_sequela_file"  # column with the file's path
ROW = "file_row_number"  # DuckDB's own column, under this name only
WILD = "outside the years 1 to 9999"
PLAIN = "hive_partitioning = false"  # a folder name such as code=X is not a column
TEXTS = ("dataset_name", "dataset_version", "etl_name", "etl_version", "created_at", "license", "location_uri",
         "description_uri")  # fmt: skip


@dataclass(frozen=True)
class _File:
    path: Path
    columns: dict[str, str]  # MEDS 0.4 column -> the file's column
    types: dict[str, pl.DataType]  # by the file's column


def extract_meds(
    folder: Path, scratch: Path, memory: str, events_per_part: int, progress: Progress
) -> Extraction:
    """Write the events of the MEDS dataset in `folder`, and its splits if it has any, to the folder `scratch`.

    Raises:
        InputError: if the folder is not a MEDS dataset, or a patient is in two splits.
    """
    progress(0, 2, stage="read events")
    files = [_file(path) for path in _data_files(folder)]
    (scratch / "events").mkdir()
    with database_in(scratch, memory) as con:
        add_macros(con)
        rows = _query(
            con, f"SELECT count(*) FROM read_parquet({_listed(files)}, union_by_name = true, {PLAIN})", folder
        )[0][0]
        spill = Spill(scratch / "events", parts_for(rows, events_per_part))
        progress(1, 2, stage="read events")
        _query(con, spill.write(_events(files), "rule=1"), folder)
        read, payload = _counts(con, spill, files, folder, rows)
        splits = _write_splits(con, spill, files, folder)
    meanings, parents = _codes(folder)
    name, metadata = _facts(folder)
    events = rows - sum(read.rules[0].dropped.values())
    return Extraction(
        spill, {"events": read}, meanings, events, payload, name, metadata, parents=parents, splits=splits
    )


def _data_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}: give the folder of a MEDS dataset.")
    data = folder / DATA
    top = data if data.is_dir() else folder
    files = [
        path for path in files_below(top, ".parquet") if "metadata" not in path.relative_to(folder).parts
    ]
    if not files:
        raise InputError(f"{folder} has no *.parquet file with events: give the folder of a MEDS dataset.")
    return files


def _file(path: Path) -> _File:
    """The columns of a file, checked to be those of MEDS, with types that can be cast."""
    types = schema_of(path)
    for name in types:
        if name.casefold() in (FILE, ROW):
            raise InputError(f"{path} has a column '{name}', a name that is reserved here: rename it.")
    columns = {}
    for word, names in COLUMNS.items():
        # MEDS does not define "text" and "media": with another type than text, they mean something else.
        meant = (name for name in names if name not in ("text", "media") or types.get(name) == pl.String)
        column = next((name for name in meant if name in types), None)
        if column is not None:
            columns[word] = column
    check_types(path, {word: types[column] for word, column in columns.items()})
    return _File(path, columns, types)


def _listed(files: list[_File]) -> str:
    return paths_for_duckdb(file.path for file in files)


def _events(files: list[_File]) -> str:
    """SQL for the rows of all files; files with the same columns are read together."""
    alike: dict[str, list[tuple[int, _File]]] = {}
    for number, file in enumerate(files):
        alike.setdefault(_select(file), []).append((number, file))
    queries = []
    for select, numbered in alike.items():
        paths = ", ".join(
            f"({literal(str(plain_path(file.path)))}, {number}::BIGINT)" for number, file in numbered
        )
        rows = (
            f"read_parquet({_listed([file for _, file in numbered])}, filename = {literal(FILE)}, "
            f"{ROW} = true, {PLAIN})"
        )
        queries.append(
            f"SELECT {select}, 1::SMALLINT AS rule, _files._number * {ROWS_A_FILE} + {ROW} + 1 AS position, "
            f"{ROW} AS row, false AS named FROM {rows} "
            f"JOIN (VALUES {paths}) AS _files(_path, _number) ON {FILE} = _files._path"
        )
    why = (
        "CASE WHEN subject_id IS NULL THEN 'no patient' WHEN code IS NULL THEN 'no code' "
        f"WHEN wild THEN {literal(WILD)} END AS reason"
    )
    return f"SELECT * EXCLUDE (wild), {why} FROM ({' UNION ALL '.join(queries)})"


def _select(file: _File) -> str:
    """SQL for the columns of a file, with our names and types."""
    columns = {word: quoted(name) for word, name in file.columns.items()}
    code = f"nullif({columns['code']}::VARCHAR, '')"
    for old, new in RENAMED.items():
        code = f"CASE WHEN {columns['code']}::VARCHAR = {literal(old)} THEN {literal(new)} ELSE {code} END"
    # Some programs write "no time" as the largest or smallest number, with which nothing can be computed
    read = f"TRY_CAST({columns['time']} AS TIMESTAMP)"
    time = f"CASE WHEN {read} BETWEEN TIMESTAMP '0001-01-01' AND TIMESTAMP '9999-12-31 23:59:59.999999' THEN {read} END"
    wild = f"({columns['time']} IS NOT NULL AND {time} IS NULL)"
    if file.types[file.columns["time"]] == pl.Date:  # known by the end of the day, except for birth
        born = f"({code} = {literal(BIRTH)} OR starts_with({code}, {literal(BIRTH + '//')}))"
        time = f"CASE WHEN {born} THEN {time} ELSE {time} + INTERVAL 86399 SECOND END"
    value = columns.get("numeric_value", "NULL")
    return (
        f"{columns['subject_id']}::BIGINT AS subject_id, {time} AS time, {wild} AS wild, {code} AS code, "
        f"CASE WHEN abs({value}::DOUBLE) <= {LARGEST} THEN {value}::FLOAT END AS numeric_value, "
        f"{columns.get('text_value', 'NULL')}::VARCHAR AS text_value, "
        f"nullif({columns.get('media', 'NULL')}::VARCHAR, '') AS media, {columns.get('unit', 'NULL')}::VARCHAR AS unit"
    )


def _counts(
    con: duckdb.DuckDBPyConnection, spill: Spill, files: list[_File], folder: Path, rows: int
) -> tuple[ExtractedTable, frozenset[str]]:
    """Row counts, and which of the columns `PAYLOAD` have a value in any event."""
    none = "(SELECT NULL::VARCHAR AS reason, NULL AS text_value, NULL AS media WHERE false)"
    made = spill.all("rule=1") or none
    reasons = con.sql(
        f"SELECT reason, count(*), {', '.join(f'count({column})' for column in PAYLOAD)} FROM {made} "
        "GROUP BY 1 ORDER BY 1"
    ).fetchall()
    dropped = {reason: count for reason, count, *_ in reasons if reason}
    payload = frozenset(
        column for _, _, *counts in reasons for column, count in zip(PAYLOAD, counts, strict=True) if count
    )
    if MEDIA in payload:
        _check_media(con, made, files)
    used = {column for file in files for column in file.columns.values()}
    left = sorted({column for file in files for column in file.types} - used)
    facts = {"columns_left_out": left} if left else {}
    names = tuple(path.path.relative_to(folder).as_posix() for path in files)
    return ExtractedTable(names, rows, (ExtractedRule(1, "code", rows, dropped),), facts), payload


def _check_media(con: duckdb.DuckDBPyConnection, rows: str, files: list[_File]) -> None:
    """No path leads out of the dataset's folder."""
    sql = f"SELECT min(position) FROM {rows} WHERE regexp_matches({MEDIA}, {literal(OUTSIDE)})"
    position = con.sql(sql).fetchall()[0][0]
    if position is not None:
        number, row = divmod(position, ROWS_A_FILE)
        raise outside_error(f"{files[number].path}, row {row}")


def _write_splits(con: duckdb.DuckDBPyConnection, spill: Spill, files: list[_File], folder: Path) -> bool:
    """Spill the splits, from the table in metadata/ or from folders named after splits; False if there is neither."""
    table = next((path for name in SPLIT_FILES if (path := folder / name).exists()), None)
    if table is not None:
        types = schema_of(table)
        column = next((name for name in COLUMNS["subject_id"] if name in types), None)
        if column is None or "split" not in types:
            raise InputError(f"{table} needs the columns subject_id and split: fix it, or remove it.")
        rows = f"read_parquet({paths_for_duckdb([table])}, {PLAIN})"
        source = f"SELECT {quoted(column)}::BIGINT AS subject_id, split::VARCHAR AS split FROM {rows}"
    else:
        top = folder / DATA
        top = top if top.is_dir() else folder
        parts = [file.path.relative_to(top).parts[0] for file in files]
        if not set(parts) <= set(SPLITS):
            return False
        source = " UNION ALL ".join(
            f"SELECT {quoted(file.columns['subject_id'])}::BIGINT AS subject_id, {literal(part)} AS split "
            f"FROM read_parquet({paths_for_duckdb([file.path])}, {PLAIN})"
            for file, part in zip(files, parts, strict=True)
        )
    once = f"SELECT DISTINCT subject_id, split FROM ({source}) WHERE subject_id IS NOT NULL AND split IS NOT NULL"
    _query(con, spill.write(once, "splits"), folder)
    rows = spill.all("splits")
    if rows is None:
        return False
    twice = con.sql(
        f"SELECT count(*) FROM (SELECT subject_id FROM {rows} GROUP BY 1 HAVING count(*) > 1)"
    ).fetchall()[0][0]
    if twice:
        raise InputError(
            f"{table or folder}: {twice} patients are in two splits; keep each in one, or remove the splits."
        )
    return True


def _codes(folder: Path) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Code -> description, and code -> parent codes, from metadata/codes.parquet."""
    path = folder / CODES_FILE
    types = schema_of(path) if path.exists() else {}
    if "code" not in types:
        return {}, {}
    wanted = [column for column in ("code", "description", "parent_codes") if column in types]
    table = read_parquet(path, wanted).with_columns(pl.col("code").cast(pl.String))
    meanings, parents = {}, {}
    if types.get("description") == pl.String:
        meanings = dict(table.select("code", "description").drop_nulls().rows())
    if types.get("parent_codes") == pl.List(pl.String):
        above = table.select("code", pl.col("parent_codes").list.drop_nulls()).drop_nulls()
        parents = {code: several for code, several in above.rows() if several}
    return meanings, parents


def _facts(folder: Path) -> tuple[str, dict]:
    """The dataset's name, and the other fields of metadata/dataset.json."""
    path = folder / FACTS_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: fix it, or remove it.") from error
    content = content if isinstance(content, dict) else {}
    kept = {
        key: value
        for key, value in content.items()
        if key not in NOT_COPIED and (key not in TEXTS or isinstance(value, str))
    }
    return kept.pop("dataset_name", None) or folder.resolve().name, kept


def _query(con: duckdb.DuckDBPyConnection, sql: str, folder: Path) -> list[tuple]:
    try:
        return con.execute(sql).fetchall()
    except (
        duckdb.IOException,
        duckdb.InvalidInputException,
        duckdb.ConversionException,
        duckdb.OutOfRangeException,
    ) as error:
        raise system_error(error, folder) or InputError(
            f"{folder}: its Parquet files cannot be read as MEDS (a truncated file, a number that is too "
            "large, an impossible time); copy or create them again."
        ) from error
