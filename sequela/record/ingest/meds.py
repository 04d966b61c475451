"""A MEDS dataset that others made, as a source: versions 0.3 and 0.4, in folders or as a flat file.

MEDS is where mappings lead, so none is needed: columns, types and codes are taken as they are. What is mended is what
MEDS leaves open or others do differently: files that share patients, times of other units, events out of order.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import duckdb
import polars as pl

from sequela.errors import InputError
from sequela.progress import Progress
from sequela.record.ingest.extract import Gathered, Read, Ruled
from sequela.record.ingest.rule import LARGEST
from sequela.record.ingest.spill import Spill, database_in, parts_for
from sequela.record.ingest.tables.sql import literal, quoted
from sequela.record.schema import BIRTH, DATA, DEATH, FACTS_FILE, MEDIA, PAYLOAD, SPLITS
from sequela.record.validate import OUTSIDE, check_types, outside_error, schema_of

# The word of MEDS 0.4 -> those of versions before it
COLUMNS = {"subject_id": ("subject_id", "patient_id"), "time": ("time",), "code": ("code",),
           "numeric_value": ("numeric_value",), "text_value": ("text_value", "text"), "media": ("media",),
           "unit": ("unit",)}  # fmt: skip
# Birth and death as MEDS 0.1 and 0.2 coded them
RENAMED = {"SNOMED/184099003": BIRTH, "SNOMED/419620001": DEATH}
SPLIT_FILES = ("subject_splits.parquet", "patient_splits.parquet")
# Fields of dataset.json about columns, which we do not take over, and about the version of MEDS, which is now ours
NOT_OURS = ("meds_version", "raw_source_id_columns", "code_modifier_columns", "additional_value_modality_columns",
            "site_id_columns", "other_extension_columns")  # fmt: skip
ROWS_A_FILE = 1 << 40  # no file has more
FILE = "_sequela_file"  # a column with the file's path
ROW = "file_row_number"  # a column of DuckDB's, under no other name
PLAIN = "hive_partitioning = false"  # what a folder is called (code=X) is no column
TEXTS = ("dataset_name", "dataset_version", "etl_name", "etl_version", "created_at", "license", "location_uri",
         "description_uri")  # fmt: skip


@dataclass(frozen=True)
class _File:
    path: Path
    columns: dict[str, str]  # the word of MEDS 0.4 -> the file's own
    types: dict[str, pl.DataType]  # by the file's own words


def gather_meds(folder: Path, scratch: Path, memory: str, events_a_part: int, progress: Progress) -> Gathered:
    """Leave the events of the MEDS dataset in `folder` in the folder `scratch`, with the splits if it has any.

    Raises:
        InputError: where the folder is no MEDS dataset, or a patient is in two splits.
    """
    progress(0, 2, stage="read events")
    files = [_file(path) for path in _data_files(folder)]
    (scratch / "events").mkdir()
    with database_in(scratch, memory) as con:
        con.execute("SET TimeZone = 'UTC'")
        rows = _query(
            con, f"SELECT count(*) FROM read_parquet({_listed(files)}, union_by_name = true, {PLAIN})", folder
        )[0][0]
        spill = Spill(scratch / "events", parts_for(rows, events_a_part))
        progress(1, 2, stage="read events")
        _query(con, spill.write(_events(files), "rule=1"), folder)
        read, payload = _account(con, spill, files, folder, rows)
        splits = _write_splits(con, spill, files, folder)
    meanings, parents = _codes(folder)
    name, metadata = _facts(folder)
    events = rows - sum(read.rules[0].dropped.values())
    return Gathered(
        spill, {"events": read}, meanings, events, payload, name, metadata, parents=parents, splits=splits
    )


def _data_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}: give the folder of a MEDS dataset.")
    data = folder / DATA
    top = data if data.is_dir() else folder
    files = sorted(
        path
        for path in top.rglob("*.parquet")
        if not any(part == "metadata" or part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not files:
        raise InputError(f"{folder} has no *.parquet with events: give the folder of a MEDS dataset.")
    return files


def _file(path: Path) -> _File:
    """The columns of a file, which must be those of MEDS, in types that can be read as such."""
    types = schema_of(path)
    for name in types:
        if name.casefold() in (FILE, ROW):
            raise InputError(f"{path} has a column '{name}', a name that is needed here: rename it.")
    columns = {}
    for word, names in COLUMNS.items():
        # "text" and "media" are words of some, but no words of MEDS: another type than text is something else
        meant = (name for name in names if name not in ("text", "media") or types.get(name) == pl.String)
        own = next((name for name in meant if name in types), None)
        if own is not None:
            columns[word] = own
    check_types(path, {word: types[own] for word, own in columns.items()})
    return _File(path, columns, types)


def _listed(files: list[_File]) -> str:
    return "[" + ", ".join(literal(str(file.path)) for file in files) + "]"


def _events(files: list[_File]) -> str:
    """SQL for the rows of all files, those with the same columns together."""
    alike: dict[str, list[tuple[int, _File]]] = {}
    for number, file in enumerate(files):
        alike.setdefault(_select(file), []).append((number, file))
    queries = []
    for select, some in alike.items():
        paths = ", ".join(f"({literal(str(file.path))}, {number}::BIGINT)" for number, file in some)
        rows = (
            f"read_parquet({_listed([file for _, file in some])}, filename = {literal(FILE)}, "
            f"{ROW} = true, {PLAIN})"
        )
        queries.append(
            f"SELECT {select}, 1::SMALLINT AS rule, _files._number * {ROWS_A_FILE} + {ROW} + 1 AS position, "
            f"{ROW} AS row FROM {rows} JOIN (VALUES {paths}) AS _files(_path, _number) ON {FILE} = _files._path"
        )
    why = "CASE WHEN subject_id IS NULL THEN 'no patient' WHEN code IS NULL THEN 'no code' END AS reason"
    return f"SELECT *, {why} FROM ({' UNION ALL '.join(queries)})"


def _select(file: _File) -> str:
    """SQL for the columns of a file in our words and types."""
    own = {word: quoted(name) for word, name in file.columns.items()}
    code = f"nullif({own['code']}::VARCHAR, '')"
    for old, new in RENAMED.items():
        code = f"CASE WHEN {own['code']}::VARCHAR = {literal(old)} THEN {literal(new)} ELSE {code} END"
    time = f"{own['time']}::TIMESTAMP"
    if file.types[file.columns["time"]] == pl.Date:  # known by the end of the day; but a birth opens its day
        time = f"CASE WHEN {code} = {literal(BIRTH)} THEN {time} ELSE {time} + INTERVAL 86399 SECOND END"
    value = own.get("numeric_value", "NULL")
    return (
        f"{own['subject_id']}::BIGINT AS subject_id, {time} AS time, {code} AS code, "
        f"CASE WHEN abs({value}::DOUBLE) <= {LARGEST} THEN {value}::FLOAT END AS numeric_value, "
        f"{own.get('text_value', 'NULL')}::VARCHAR AS text_value, "
        f"nullif({own.get('media', 'NULL')}::VARCHAR, '') AS media, {own.get('unit', 'NULL')}::VARCHAR AS unit"
    )


def _account(
    con: duckdb.DuckDBPyConnection, spill: Spill, files: list[_File], folder: Path, rows: int
) -> tuple[Read, frozenset[str]]:
    """What was read, and which of the columns `PAYLOAD` any event has."""
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
    used = {own for file in files for own in file.columns.values()}
    left = sorted({column for file in files for column in file.types} - used)
    facts = {"columns_left_out": left} if left else {}
    names = tuple(path.path.relative_to(folder).as_posix() for path in files)
    return Read(names, rows, (Ruled(1, "code", rows, dropped),), facts), payload


def _check_media(con: duckdb.DuckDBPyConnection, rows: str, files: list[_File]) -> None:
    """No path leads out of the dataset's folder."""
    sql = f"SELECT min(position) FROM {rows} WHERE regexp_matches({MEDIA}, {literal(OUTSIDE)})"
    position = con.sql(sql).fetchall()[0][0]
    if position is not None:
        number, row = divmod(position, ROWS_A_FILE)
        raise outside_error(f"{files[number].path}, row {row}")


def _write_splits(con: duckdb.DuckDBPyConnection, spill: Spill, files: list[_File], folder: Path) -> bool:
    """Spill whose split is whose, by the table in metadata/ or by folders named after splits; False without both."""
    table = next((path for name in SPLIT_FILES if (path := folder / "metadata" / name).exists()), None)
    if table is not None:
        types = schema_of(table)
        own = next((name for name in COLUMNS["subject_id"] if name in types), None)
        if own is None or "split" not in types:
            raise InputError(f"{table} needs the columns subject_id and split: mend it, or take it away.")
        rows = f"read_parquet({literal(str(table))}, {PLAIN})"
        source = f"SELECT {quoted(own)}::BIGINT AS subject_id, split::VARCHAR AS split FROM {rows}"
    else:
        top = folder / DATA
        top = top if top.is_dir() else folder
        parts = [file.path.relative_to(top).parts[0] for file in files]
        if not set(parts) <= set(SPLITS):
            return False
        source = " UNION ALL ".join(
            f"SELECT {quoted(file.columns['subject_id'])}::BIGINT AS subject_id, {literal(part)} AS split "
            f"FROM read_parquet({literal(str(file.path))}, {PLAIN})"
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
            f"{table or folder}: {twice} patients are in two splits; keep each of them in one, or take the splits away."
        )
    return True


def _codes(folder: Path) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Code -> description, and code -> parent codes, of metadata/codes.parquet."""
    path = folder / "metadata" / "codes.parquet"
    types = schema_of(path) if path.exists() else {}
    if "code" not in types:
        return {}, {}
    wanted = [column for column in ("code", "description", "parent_codes") if column in types]
    table = pl.read_parquet(path, columns=wanted).with_columns(pl.col("code").cast(pl.String))
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
        said = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON: mend it, or take it away.") from error
    said = said if isinstance(said, dict) else {}
    kept = {
        key: value
        for key, value in said.items()
        if key not in NOT_OURS and (key not in TEXTS or isinstance(value, str))
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
        raise InputError(
            f"{folder}: its Parquet files cannot be read as MEDS; copy or make them again (a file that is cut short, a "
            "number that is too large, a time beyond reason)."
        ) from error
