"""Code maps: other spellings and other code systems, applied to the distinct codes before anything is counted."""

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

BUILT_IN = ("gem", "mimic-meds")
STAR = "*"
UNMAPPED_SHOWN = 10
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class CodeMap:
    """What each code becomes. Codes are found without regard to case, and ICD codes with or without dots.

    `rows`: pairs (from, to) of whole codes, `ICD9CM//25000`, `ICD10CM//E119`. Several rows with one `from` make several
    events. A `*` behind a head stands for any text, and in `to` for the same text; the longest `from` that fits counts.
    """

    name: str
    rows: tuple[tuple[str, str], ...]

    def targets(self, code: str) -> tuple[str, ...] | None:
        """The codes that `code` becomes, or None where this map does not know it."""
        exact = self._exact.get(_key(code))
        if exact is not None:
            return exact
        for before, behind in self._lengths:
            end = len(code) - behind
            if end > before:
                found = self._patterns.get((code[:before].upper(), code[end:].upper()))
                if found is not None:
                    return tuple(to.replace(STAR, code[before:end], 1) for to in found)
        return None

    @cached_property
    def systems(self) -> frozenset[str]:
        """The heads that this map is about, in upper case."""
        return frozenset(_system(source) for source, _ in self.rows)

    @cached_property
    def identity(self) -> str:
        """First 16 hex digits of the SHA-256 of the rows: changes when any row does."""
        return hashlib.sha256(json.dumps(self.rows).encode()).hexdigest()[:16]

    def save(self, path: Path) -> None:
        """Write the rows as Parquet, which `load_map` reads again."""
        columns = {"from": [source for source, _ in self.rows], "to": [to for _, to in self.rows]}
        pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String)).write_parquet(path)

    @cached_property
    def _exact(self) -> dict[str, tuple[str, ...]]:
        return _grouped([(_key(source), to) for source, to in self.rows if STAR not in source])

    @cached_property
    def _starred(self) -> list[tuple[str, str, str]]:
        """What stands before and behind the star, and the target."""
        return [(*source.split(STAR, 1), to) for source, to in self.rows if STAR in source]

    @cached_property
    def _patterns(self) -> dict[tuple[str, str], tuple[str, ...]]:
        return _grouped([((before.upper(), behind.upper()), to) for before, behind, to in self._starred])

    @cached_property
    def _lengths(self) -> list[tuple[int, int]]:
        """Lengths of the texts before and behind the star, longest together first."""
        lengths = {(len(before), len(behind)) for before, behind, _ in self._starred}
        return sorted(lengths, key=lambda pair: (-sum(pair), -pair[0]))


def load_map(source: str | Path) -> CodeMap:
    """A map that comes with Sequela, by its name, or the CSV or Parquet file at a path, with columns from and to.

    "gem": ICD-9-CM diagnoses to ICD-10-CM; "mimic-meds": how MEDS-Extract spells the codes of MIMIC-IV.
    Raises InputError where `source` is neither.
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
    """Raise InputError when two maps have one name, whatever the case: each is a file of its own in the result."""
    seen: set[str] = set()
    for one in maps:
        if one.name.casefold() in seen:
            raise InputError(f"Two code maps are called {one.name!r}: rename the file of one of them.")
        seen.add(one.name.casefold())


def translate(
    codes: Sequence[str], maps: Sequence[CodeMap], events: Sequence[int] | None = None
) -> tuple[list[tuple[str, ...]], dict[str, dict[str, dict]]]:
    """What each of the distinct `codes` [N] becomes, one map after the other; a code that no map knows stays as it is.

    Returns the codes [N] (several of a tuple are several events at the same time, each once), and an account: map ->
    head of the codes that reach it -> codes, codes_mapped; with `events` [N] (how often each code occurs) also
    events, events_mapped, and the most frequent codes that stay, under "unmapped". Heads that a map is not about
    are left out. Raises InputError when two maps have one name.
    """
    check_names(maps)
    out: list[tuple[str, ...]] = [(code,) for code in codes]
    account: dict[str, dict[str, dict]] = {}
    for code_map in maps:
        reached: dict[str, int] = {}
        for now, count in zip(out, events or [0] * len(codes), strict=True):
            for code in now:
                reached[code] = reached.get(code, 0) + count
        about = [code for code in reached if _system(code) in code_map.systems]
        found = {code: code_map.targets(code) for code in about}
        account[code_map.name] = _account(found, reached, with_events=events is not None)
        becomes = {code: targets for code, targets in found.items() if targets is not None}
        out = [_each_once(now, becomes) for now in out]
    return out, account


def _account(found: dict[str, tuple[str, ...] | None], events: dict[str, int], *, with_events: bool) -> dict:
    """Per head: how many codes and events this map knew, and the most frequent ones that it did not."""
    account: dict[str, dict] = {}
    for code, targets in found.items():
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
            rest = [code for code, targets in found.items() if targets is None and _system(code) == head]
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
            table = pl.read_parquet(path).cast(pl.String)
        else:
            table = pl.read_csv(path, infer_schema=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(
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
    """What is wrong with one row, in words, or None."""
    if not source or not to:
        return "an empty cell; delete the row, or write a code into both columns"
    if source.count(STAR) > 1 or STAR in source.partition("/")[0]:
        return "from may hold one *, behind the first slash, as in DIAGNOSIS//ICD//10//*"
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
    """Under which a whole code is looked up."""
    upper = code.upper()
    return upper.replace(".", "") if upper.startswith("ICD") else upper


def _system(code: str) -> str:
    """What stands before the first slash, as in `sequela.tokens.ehr.code`."""
    return code.partition("/")[0].upper()
