"""The cost of every stage behind a result, read from the manifests on the way back to the raw data."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sequela.serve.folder import manifest

ADDED = ("seconds", "tokens", "flops", "steps", "rollouts")  # over the runs of a stage


def stage_costs(folders: Iterable[Path]) -> dict[str, dict]:
    """By stage, the first stage first: seconds, peak_rss_mb and what it counted (events, tokens, FLOPs).

    Starts at `folders` and follows the inputs in their manifests; a folder without a manifest ends the search. A stage
    that was run more than once, as for several training seeds, has the sums over its `runs`, the highest peak, and
    otherwise the numbers of the first.
    """
    costs: dict[str, dict] = {}
    for record in behind(folders):
        stage, mine = record["stage"], counted(record)
        costs[stage] = _together(costs[stage], mine) if stage in costs else mine
    return costs


def behind(folders: Iterable[Path]) -> list[dict]:
    """The manifests on the way from the raw data to `folders`, theirs included, each once and the first stage first."""
    records: list[dict] = []
    seen: set[Path] = set()

    def visit(folder: Path) -> None:
        record = manifest.read(folder) if folder.is_dir() else None
        if record is None or folder.resolve() in seen:
            return
        seen.add(folder.resolve())
        for role in record["inputs"]:
            before = manifest.source(folder, role)
            if before is not None:
                visit(before)
        records.append(record)

    for folder in folders:
        visit(folder)
    return records


def _together(before: dict[str, float], more: dict[str, float]) -> dict[str, float]:
    both = before | {name: before[name] + more.get(name, 0) for name in ADDED if name in before}
    peak = max(before["peak_rss_mb"], more["peak_rss_mb"])
    return both | {"peak_rss_mb": peak, "runs": before.get("runs", 1) + 1}


def counted(record: dict) -> dict[str, float]:
    """The numbers of one manifest: seconds, peak_rss_mb and the stage's own counts, summed over splits."""
    numbers = {"seconds": record["seconds"], "peak_rss_mb": record["peak_rss_mb"]}
    result = record["result"]
    for part in (result, *result.get("splits", {}).values()):
        for name, value in part.items():
            if (
                isinstance(value, int | float)
                and not isinstance(value, bool)
                and name not in ("seconds", "peak_rss_mb")
            ):
                numbers[name] = numbers.get(name, 0) + value
    return numbers


def in_words(record: dict) -> str:
    """The counts of one manifest in a few words.

    >>> in_words({"seconds": 1.0, "peak_rss_mb": 9, "result": {"events": 1200, "tokens": 3400, "x": 0.5}})
    '1,200 events, 3,400 tokens'
    """
    counts = counted(record)
    wanted = ("patients", "events", "tokens", "parameters", "rollouts")
    words = [f"{counts[name]:,.0f} {name}" for name in wanted if name in counts]
    if counts.get("quarantined"):
        words.append(f"{counts['quarantined']:,.0f} unreadable rows set aside")
    return ", ".join(words)
