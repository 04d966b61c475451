"""Codes that tasks name and a dataset does not hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from sequela.errors import closest, coming_near
from sequela.record.dataset import codes_of
from sequela.record.spelling import canonical, matches_code
from sequela.task.task import Task
from sequela.tokens.maps.code_map import CodeMap, translate

SHOWN = 3  # codes that come near, and patterns of one task
MOST = 20_000  # codes among which near ones are sought: the search takes a second


def unmatched(tasks: Sequence[Task], meds: Path, maps: tuple[CodeMap, ...] = ()) -> list[str]:
    """A sentence for each task with patterns that no code of the dataset matches, whoever has it and in which split.

    Args:
        maps: applied to the codes of the dataset first.
    """
    codes = held(meds, maps)
    lines = []
    for task in tasks:
        named = {
            "after": (task.cohort.after,),
            "exclude": task.cohort.exclude,
            "outcome": task.outcome,
            "ends": task.ends,
        }
        missing = [
            f"`{field}` {pattern}{near(pattern, codes)}"
            for field, patterns in named.items()
            for pattern in patterns
            if not any(matches_code(code, (pattern,)) for code in codes)
        ]
        if missing:
            more = f", and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
            lines.append(
                f"Task {task.name} names codes that {meds} does not hold: {', '.join(missing[:SHOWN])}{more}. "
                "Correct them if they should be there."
            )
    return lines


def held(meds: Path, maps: tuple[CodeMap, ...] = ()) -> list[str]:
    """The distinct codes of a dataset after the maps, sorted."""
    return sorted({target for targets in translate(codes_of(meds), maps)[0] for target in targets})


def near(pattern: str, codes: Iterable[str]) -> str:
    """The hint " (near it: A, B)" at codes similar to a pattern; empty if there are none."""
    wanted = canonical(pattern.removesuffix("*"))
    by_head: dict[str, list[str]] = {}
    for code in codes:
        by_head.setdefault(code.partition("/")[0], []).append(code)
    heads = closest(wanted.partition("/")[0], by_head, 2, cutoff=0.7)
    similar = closest(wanted, [code for head in heads for code in by_head[head]][:MOST], SHOWN, cutoff=0.5)
    return coming_near(similar)
