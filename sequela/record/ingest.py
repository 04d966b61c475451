"""Raw files to a MEDS dataset, by a mapping, with an account of every row."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import duckdb
import numpy as np
import polars as pl

from sequela.record.codes import BIRTH, FOLLOW_UP_END
from sequela.record.errors import InputError
from sequela.record.mapping import FileTable, Mapping, QueryTable, RowTable
from sequela.record.mapping_file import load_mapping
from sequela.record.progress import Progress, silent
from sequela.record.raw import Loaded, literal, load_files, load_rows, quoted
from sequela.record.rule import Found, find_events, run_sql
from sequela.record.store import split_of, write_dataset

EVENT = ["subject_id", "time", "code", "numeric_value", "text_value"]


def ingest(
    source: str | Path,
    raw: Path,
    out: Path,
    *,
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    progress: Progress = silent,
) -> dict:
    """Make a MEDS dataset in the folder `out` from the raw files in the folder `raw`.

    Args:
        source: the name of a shipped mapping ("nafld", "physionet2012", "mimic4") or the path of a mapping file.
        fractions: shares of the patients in the splits train, tuning and held_out.

    Returns:
        The report, also written to `out`/ingest.json. For every rule of the mapping
        `rows_in == events_out + sum(dropped.values())`.

    Raises:
        InputError: where the mapping or the raw files are not as they should be.
    """
    mapping = load_mapping(source)
    raw, out = Path(raw), Path(out)
    steps = len(mapping.tables) + len(mapping.rules) + 2
    loaded: dict[str, Loaded] = {}
    found: list[Found] = []
    with tempfile.TemporaryDirectory() as spill:
        con = duckdb.connect(config={"temp_directory": spill, "autoinstall_known_extensions": "false"})
        for name, table in mapping.tables.items():
            progress(len(loaded), steps, stage=f"read {name}")
            loaded[name] = _load(con, name, table, raw, f"{mapping.path}, table '{name}'")
        # From here on the mapping's SQL sees the tables and nothing else: no other files, no network.
        con.execute("SET enable_external_access = false")
        for number, rule in enumerate(mapping.rules, 1):
            progress(len(loaded) + number - 1, steps, stage=f"events from {rule.table}")
            found.append(find_events(con, rule, loaded[rule.table], f"{mapping.path}, events {number}"))
        con.close()
    if not any(one.events.height for one in found):
        raise InputError(f"{raw}: no row of it makes an event by {mapping.path}; compare the two.")
    progress(steps - 2, steps, stage="sort")
    events, late = _settle(found)
    report = _report(mapping, loaded, found, events, late, fractions)
    progress(steps - 1, steps, stage="write")
    events = events.select(column for column in EVENT if column != "text_value" or events[column].count())
    meanings = {code: text for rule in found for code, text in rule.meanings.items()}
    write_dataset(
        events, out, name=mapping.name, fractions=fractions, descriptions=meanings, metadata=mapping.metadata
    )
    (out / "ingest.json").write_text(json.dumps(report, indent=2) + "\n")
    progress(steps, steps, stage="done")
    return report


def _load(
    con: duckdb.DuckDBPyConnection, name: str, table: FileTable | RowTable | QueryTable, raw: Path, place: str
) -> Loaded:
    if isinstance(table, FileTable):
        return load_files(con, name, table, raw)
    if isinstance(table, RowTable):
        load_rows(con, name, table)
    else:
        numbered = f"row_number() OVER () - 1 AS _row, {literal(name)} AS _file, false AS _unreadable"
        run_sql(con, f"CREATE TABLE {quoted(name)} AS SELECT {numbered}, * FROM ({table.sql})", place)
    return Loaded((), con.execute(f"SELECT count(*) FROM {quoted(name)}").fetchall()[0][0], {})


def _settle(found: list[Found]) -> tuple[pl.DataFrame, dict[int, dict[str, int]]]:
    """Sort the events and drop those that other events of the same patient rule out.

    Returns the events with the column `rule` (an index into `found`), and rule -> reason -> how many were dropped.
    """
    events = pl.concat(
        one.events.with_columns(rule=pl.lit(index, pl.Int32)) for index, one in enumerate(found)
    )
    # Integers in place of codes: sorting and comparing them is what takes the time
    code = events["code"].cast(pl.Enum(events["code"].unique().sort()))
    events = events.with_columns(code=code, _code=code.to_physical())
    events = events.sort(
        "subject_id", "time", "rule", "_code", "numeric_value", "text_value", nulls_last=False
    )
    time = pl.col("time")
    bounds = events.group_by("subject_id").agg(
        _birth=time.filter(pl.col("code") == BIRTH).min(),
        _end=time.filter(pl.col("code") == FOLLOW_UP_END).min(),
    )
    same = [column if column != "code" else "_code" for column in EVENT if events[column].count()]
    judged = events.join(bounds, on="subject_id", maintain_order="left").with_columns(
        _reason=pl.when(~pl.struct(same).is_first_distinct())
        .then(pl.lit("duplicate"))
        .when(time < pl.col("_birth"))
        .then(pl.lit("before birth"))
        .when(time > pl.col("_end"))
        .then(pl.lit("after follow-up end"))
    )
    late: dict[int, dict[str, int]] = {index: {} for index in range(len(found))}
    for index, reason, count in (
        judged.drop_nulls("_reason").group_by("rule", "_reason").len().sort("_reason").rows()
    ):
        late[index][reason] = count
    kept = judged.filter(pl.col("_reason").is_null())
    return kept.select(pl.col(EVENT), "rule").with_columns(pl.col("code").cast(pl.String)), late


def _report(
    mapping: Mapping,
    loaded: dict[str, Loaded],
    found: list[Found],
    events: pl.DataFrame,
    late: dict[int, dict[str, int]],
    fractions: tuple[float, float, float],
) -> dict:
    """The account of every row, as `ingest` returns and writes it."""
    made = dict(events["rule"].value_counts().rows())
    tables = {}
    for name, table in loaded.items():
        read = np.zeros(table.rows, dtype=bool)
        rules = []
        for index, (rule, one) in enumerate(zip(mapping.rules, found, strict=True)):
            if rule.table != name:
                continue
            read[one.selected] = True
            aside = table.rows - len(one.selected)
            dropped = ({"not selected": aside} if aside else {}) | one.dropped | late[index]
            account = {"rows_in": table.rows, "events_out": made.get(index, 0), "dropped": dropped}
            rules.append({"rule": index + 1, "code": rule.code, **account})
        unreadable = {
            column: {"rows": count, "first": where} for column, (count, where) in table.unreadable.items()
        }
        tables[name] = {
            "files": list(table.files),
            "rows": table.rows,
            "unreadable_times": unreadable,
            "rules": rules,
        }
        if rules:
            tables[name]["rows_without_rule"] = int((~read).sum())
    patients = events["subject_id"].unique()
    splits = pl.Series("split", split_of(patients.to_numpy(), fractions)).value_counts().sort("split")
    return {
        "source": mapping.name,
        "patients": len(patients),
        "patients_by_split": dict(splits.rows()),
        "events": events.height,
        "tables": tables,
    }
