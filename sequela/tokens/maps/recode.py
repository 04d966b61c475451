"""Code maps at work: on events, and kept in the folder of what was made with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import polars as pl

from sequela.errors import InputError
from sequela.record.events import Events
from sequela.tokens.maps.code_map import CodeMap, load_map, translate


def recoded(columns: Events, maps: tuple[CodeMap, ...]) -> Events:
    """The events after all maps, one after the other; `columns` itself where no code is concerned."""
    if not _concerned(columns.names, maps):
        return columns
    known = _translated(tuple(one.identity for one in maps))
    new = [name for name in columns.names if name not in known]
    known.update(zip(new, translate(new, maps)[0], strict=True))
    return columns.recoded([known[name] for name in columns.names])


@lru_cache(maxsize=4)
def _translated(_identities: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """What was already translated by the maps of these identities: shards share most of their codes."""
    return {}


def recoded_events(events: pl.DataFrame, maps: tuple[CodeMap, ...]) -> pl.DataFrame:
    """`recoded` for a frame with a column `code`: rows and columns keep their order, and a code with several targets
    becomes several rows that differ in nothing else. `events` itself where no code is concerned."""
    names = events["code"].unique().drop_nulls().cast(pl.String).sort().to_list()
    if not _concerned(names, maps):
        return events
    targets = translate(names, maps)[0]
    becomes = {name: several for name, several in zip(names, targets, strict=True) if several != (name,)}
    if not becomes:
        return events
    code = pl.col("code").cast(pl.String)
    if all(len(several) == 1 for several in becomes.values()):
        return events.with_columns(code.replace({name: several[0] for name, several in becomes.items()}))
    table = pl.DataFrame(
        {"code": names, "_several": [list(several) for several in targets]},
        schema={"code": pl.String, "_several": pl.List(pl.String)},
    )
    found = events.with_columns(code).join(table, on="code", how="left", maintain_order="left")
    return found.with_columns(code="_several").drop("_several").explode("code", empty_as_null=False)


def save_maps(maps: tuple[CodeMap, ...], folder: Path) -> dict[str, str]:
    """Write each map to a file of its own in `folder`; returns name -> identity, in the order of the maps."""
    for one in maps:
        one.save(_file(folder, one.name))
    return {one.name: one.identity for one in maps}


def load_maps(names: tuple[str, ...], folder: Path) -> tuple[CodeMap, ...]:
    """Read what `save_maps` wrote.

    Raises:
        InputError: where a file is missing or is no code map.
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
    """Read what `save_maps` wrote, given what it returned.

    Raises:
        InputError: where a file is missing or was edited since.
    """
    maps = load_maps(tuple(identities), folder)
    for one in maps:
        if one.identity != identities[one.name]:
            raise InputError(f"{_file(folder, one.name)} was edited: make the folder again.")
    return maps


def _file(folder: Path, name: str) -> Path:
    return Path(folder) / f"map-{name}.parquet"


def _concerned(names: list[str] | tuple[str, ...], maps: tuple[CodeMap, ...]) -> bool:
    """Whether any of the codes has a head that the maps are about."""
    systems = frozenset().union(*(one.systems for one in maps))
    return bool(systems) and any(name.partition("/")[0].upper() in systems for name in names)
