"""Apply code maps to events, and keep the maps in the folder of whatever was made with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import polars as pl

from sequela.errors import InputError
from sequela.record.events import Events
from sequela.record.spelling import spelled
from sequela.tokens.maps.code_map import CodeMap, load_map, translate


def recoded(columns: Events, maps: tuple[CodeMap, ...]) -> Events:
    """The events after all maps, one after the other, in the spelling of tokens; `columns` itself if that is theirs."""
    if not _concerned(columns.names, maps):
        return columns
    known = _translated(tuple(code_map.identity for code_map in maps))
    new = [name for name in columns.names if name not in known]
    known.update(zip(new, translate(new, maps)[0], strict=True))
    return columns.recoded([known[name] for name in columns.names])


@lru_cache(maxsize=4)
def _translated(_identities: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Codes that these maps have translated already: shards share most of their codes."""
    return {}


def recoded_events(events: pl.DataFrame, maps: tuple[CodeMap, ...]) -> pl.DataFrame:
    """`recoded` for a frame with a column `code`.

    Rows and columns keep their order; a code with several targets becomes several rows that differ in nothing else.
    Returns `events` itself if nothing changes.
    """
    names = events["code"].unique().drop_nulls().cast(pl.String).sort().to_list()
    if not _concerned(names, maps):
        return events
    targets = translate(names, maps)[0]
    becomes = {name: codes for name, codes in zip(names, targets, strict=True) if codes != (name,)}
    if not becomes:
        return events
    code = pl.col("code").cast(pl.String)
    if all(len(codes) == 1 for codes in becomes.values()):
        return events.with_columns(code.replace({name: codes[0] for name, codes in becomes.items()}))
    table = pl.DataFrame(
        {"code": names, "_targets": [list(codes) for codes in targets]},
        schema={"code": pl.String, "_targets": pl.List(pl.String)},
    )
    joined = events.with_columns(code).join(table, on="code", how="left", maintain_order="left")
    return joined.with_columns(code="_targets").drop("_targets").explode("code", empty_as_null=False)


def save_maps(maps: tuple[CodeMap, ...], folder: Path) -> dict[str, str]:
    """Write each map to its own file in `folder`; returns name -> identity, in the order of the maps."""
    for code_map in maps:
        code_map.save(_file(folder, code_map.name))
    return {code_map.name: code_map.identity for code_map in maps}


def load_maps(names: tuple[str, ...], folder: Path) -> tuple[CodeMap, ...]:
    """Read what `save_maps` wrote.

    Raises:
        InputError: if a file is missing or is no code map.
    """
    for name in names:
        if not _file(folder, name).exists():
            raise InputError(f"{_file(folder, name)} is missing: make the folder again.")
    paths = [_file(folder, name) for name in names]
    return tuple(_read(name, path, path.stat().st_mtime_ns) for name, path in zip(names, paths, strict=True))


@lru_cache(maxsize=8)
def _read(name: str, path: Path, _written: int) -> CodeMap:
    return replace(load_map(path), name=name)


def load_same_maps(identities: Mapping[str, str], folder: Path) -> tuple[CodeMap, ...]:
    """Read what `save_maps` wrote, checked against the identities it returned.

    Raises:
        InputError: if a file is missing or was edited since.
    """
    maps = load_maps(tuple(identities), folder)
    for code_map in maps:
        if code_map.identity != identities[code_map.name]:
            raise InputError(f"{_file(folder, code_map.name)} was edited: make the folder again.")
    return maps


def _file(folder: Path, name: str) -> Path:
    return Path(folder) / f"map-{name}.parquet"


def _concerned(names: list[str] | tuple[str, ...], maps: tuple[CodeMap, ...]) -> bool:
    """Whether the maps cover the head of any of the codes, or one has another spelling."""
    systems = frozenset().union(*(code_map.systems for code_map in maps))
    spellings = ((name, spelled(name)) for name in names)
    return any(new != name or new.partition("/")[0].upper() in systems for name, new in spellings)
