"""Code maps translate other spellings and code systems; they apply to distinct codes, before anything is counted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

import polars as pl

from sequela.errors import InputError, nearest
from sequela.files import system_error
from sequela.record.spelling import canonical, spelled
from sequela.record.validate import AS_NAMED

BUILT_IN = ("gem", "mimic-meds")
STAR = "*"
UNMAPPED_SHOWN = 10
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class CodeMap:
    """What each code becomes. Codes are looked up regardless of case and of spelling (see `canonical`).

    Attributes:
        name: of the map; its file in a folder is named after it.
        rows: pairs (from, to) of whole codes, `ICD9CM//25000`, `ICD10CM//E119`. Several rows with the same `from` make
            several events. A `*` after a head stands for any text, and in `to` for the same text; the longest `from`
            that fits wins.
    """

    name: str
    rows: tuple[tuple[str, str], ...]

    def targets(self, code: str) -> tuple[str, ...] | None:
        """The codes that `code` becomes, or None if this map does not know it."""
        exact = self._exact.get(_key(code))
        if exact is not None:
            return exact
        for before, behind in self._lengths:
            end = len(code) - behind
            if end > before:
                targets = self._patterns.get((code[:before].upper(), code[end:].upper()))
                if targets is not None:
                    return tuple(to.replace(STAR, code[before:end], 1) for to in targets)
        return None

    @cached_property
    def systems(self) -> frozenset[str]:
        """The heads that this map covers, in upper case."""
        return frozenset(_system(source) for source, _ in self.rows)

    @cached_property
    def lists(self) -> frozenset[str]:
        """The heads of which it has whole codes, in upper case: it is meant to know all of theirs."""
        return frozenset(_system(source) for source, _ in self.rows if STAR not in source)

    @cached_property
    def identity(self) -> str:
        """First 16 hex digits of the SHA-256 of the rows."""
        return hashlib.sha256(json.dumps(self.rows).encode()).hexdigest()[:16]

    def save(self, path: Path) -> None:
        """Write the rows as Parquet, for `load_map` to read."""
        columns = {"from": [source for source, _ in self.rows], "to": [to for _, to in self.rows]}
        pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String)).write_parquet(path)

    @cached_property
    def _exact(self) -> dict[str, tuple[str, ...]]:
        return _grouped([(_key(source), to) for source, to in self.rows if STAR not in source])

    @cached_property
    def _starred(self) -> list[tuple[str, str, str]]:
        """The text before and after each star, and the target."""
        return [(*source.split(STAR, 1), to) for source, to in self.rows if STAR in source]

    @cached_property
    def _patterns(self) -> dict[tuple[str, str], tuple[str, ...]]:
        return _grouped([((before.upper(), behind.upper()), to) for before, behind, to in self._starred])

    @cached_property
    def _lengths(self) -> list[tuple[int, int]]:
        """Lengths of the texts before and after the star, longest in total first."""
        lengths = {(len(before), len(behind)) for before, behind, _ in self._starred}
        return sorted(lengths, key=lambda pair: (-sum(pair), -pair[0]))


def load_map(source: str | Path) -> CodeMap:
    """A map that ships with Sequela, by name, or a CSV or Parquet file with columns from and to, by path.

    "gem" translates ICD-9-CM diagnoses to ICD-10-CM; "mimic-meds" the codes that MEDS-Extract writes for MIMIC-IV.

    Raises:
        InputError: if `source` is neither, or the file is not a valid map.
    """
    if str(source) in BUILT_IN:
        text = files("sequela.tokens").joinpath(f"maps/{source}.csv").read_bytes()
        return CodeMap(str(source), _pairs(pl.read_csv(text, infer_schema=False)))
    path = Path(source)
    if not path.is_file():
        raise InputError(
            f"There is no code map {str(source)!r}{nearest(str(source), BUILT_IN)}: "
            f"name a CSV or Parquet file with columns from and to, or one of {', '.join(BUILT_IN)}."
        )
    return CodeMap(path.stem, _rows(path))


def check_names(maps: Sequence[CodeMap]) -> None:
    """Raise InputError if two maps have the same name, ignoring case: each becomes a file of the result."""
    seen: set[str] = set()
    for code_map in maps:
        if code_map.name.casefold() in seen:
            raise InputError(f"Two code maps are called {code_map.name!r}: rename the file of one of them.")
        seen.add(code_map.name.casefold())


def translate(
    codes: Sequence[str], maps: Sequence[CodeMap], events: Sequence[int] | None = None
) -> tuple[list[tuple[str, ...]], dict[str, dict[str, dict]]]:
    """What each of the distinct `codes` [N] becomes after all maps; a code that no map knows is only `spelled` anew.

    Args:
        events: how often each code occurs [N], if known.

    Returns:
        The targets of each code [N] (several targets are several events at the same time), and an account: map name ->
        head -> codes and codes_mapped; with `events` also events, events_mapped and, as "unmapped", the most frequent
        codes that stayed. Heads that a map does not cover are left out.

    Raises:
        InputError: if two maps have the same name.
    """
    check_names(maps)
    out: list[tuple[str, ...]] = [(code,) for code in codes]
    account: dict[str, dict[str, dict]] = {}
    for code_map in maps:
        reached: dict[str, int] = {}
        for now, count in zip(out, events or [0] * len(codes), strict=True):
            for code in now:
                reached[code] = reached.get(code, 0) + count
        targets = {code: code_map.targets(code) for code in reached if _system(code) in code_map.systems}
        account[code_map.name] = _account(targets, reached, with_events=events is not None)
        becomes = {code: to for code, to in targets.items() if to is not None}
        out = [_each_once(now, becomes) for now in out]
    return [tuple(dict.fromkeys(spelled(code) for code in now)) for now in out], account


def _account(mapped: dict[str, tuple[str, ...] | None], events: dict[str, int], *, with_events: bool) -> dict:
    """By head: how many codes and events a map knew, and the most frequent codes that it did not."""
    account: dict[str, dict] = {}
    for code, targets in mapped.items():
        row = account.setdefault(
            _system(code), {"codes": 0, "codes_mapped": 0, "events": 0, "events_mapped": 0}
        )
        row["codes"] += 1
        row["events"] += events[code]
        if targets is not None:
            row["codes_mapped"] += 1
            row["events_mapped"] += events[code]
    for head, row in account.items():
        if with_events:
            rest = [code for code, targets in mapped.items() if targets is None and _system(code) == head]
            row["unmapped"] = sorted(rest, key=lambda code: (-events[code], code))[:UNMAPPED_SHOWN]
        else:
            del row["events"], row["events_mapped"]
    return dict(sorted(account.items()))


def _each_once(codes: tuple[str, ...], becomes: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    if not any(code in becomes for code in codes):
        return codes
    return tuple(dict.fromkeys(target for code in codes for target in becomes.get(code, (code,))))


def _rows(path: Path) -> tuple[tuple[str, str], ...]:
    """The checked rows of a user's file."""
    try:
        if path.suffix == ".parquet":
            table = pl.read_parquet(path, **AS_NAMED).cast(pl.String)
        else:
            table = pl.read_csv(path, infer_schema=False, glob=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise system_error(error, path) or InputError(
            f"{path} cannot be read as a code map ({type(error).__name__}): it must be a CSV or Parquet file "
            "with columns from and to."
        ) from error
    missing = [name for name in ("from", "to") if name not in table.columns]
    if missing:
        raise InputError(f"{path} has no column {missing[0]!r}: a code map has columns from and to.")
    table = table.select(pl.col("from", "to").str.strip_chars().replace("", None))
    doubtful = pl.any_horizontal(
        pl.col("from", "to").is_null() | pl.col("from", "to").str.contains(STAR, literal=True)
    )
    for number, source, to in table.with_row_index(offset=1).filter(doubtful).iter_rows():
        problem = _problem(source, to)
        if problem:
            raise InputError(f"{path}, row {number}: {problem}.")
    return _pairs(table.unique(maintain_order=True))


def _pairs(table: pl.DataFrame) -> tuple[tuple[str, str], ...]:
    return tuple(zip(table["from"].to_list(), table["to"].to_list(), strict=True))


def _problem(source: str | None, to: str | None) -> str | None:
    """What is wrong with a row, in words, or None."""
    if not source or not to:
        return "an empty cell; delete the row, or fill in a code in both columns"
    if source.count(STAR) > 1 or STAR in source.partition("/")[0]:
        return "from may hold one *, after the first slash, as in DIAGNOSIS//ICD//10//*"
    if to.count(STAR) > source.count(STAR):
        return "to may hold a * only where from holds one"
    return None


def _grouped(pairs: list[tuple[Key, str]]) -> dict[Key, tuple[str, ...]]:
    """Key -> its distinct codes, in the order of the rows."""
    out: dict[Key, tuple[str, ...]] = {}
    for key, to in pairs:
        known = out.get(key, ())
        if to not in known:
            out[key] = (*known, to)
    return out


def _key(code: str) -> str:
    """The key under which a whole code is looked up."""
    return canonical(code).upper()


def _system(code: str) -> str:
    """The text before the first slash, as for families in `sequela.tokens.ehr.code`."""
    return spelled(code).partition("/")[0].upper()
