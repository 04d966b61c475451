"""What the stages took, read from the manifests along the way back from a result to the raw data."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from sequela.serve.folder import manifest


def spent(folders: Iterable[Path]) -> dict[str, dict]:
    """Per stage, first stage first: seconds, peak_rss_mb and what it counted (events, tokens, FLOPs).

    Starts at `folders` and follows the inputs that their manifests name; a folder without a manifest ends the way.
    """
    found: dict[str, dict] = {}

    def visit(folder: Path) -> None:
        facts = manifest.read(folder) if folder.is_dir() else None
        if facts is None or facts["stage"] in found:
            return
        for role in facts["inputs"]:
            before = manifest.source(folder, role)
            if before is not None:
                visit(before)
        found[facts["stage"]] = counted(facts)

    for folder in folders:
        visit(folder)
    return found


def counted(facts: dict) -> dict[str, float]:
    """The numbers of one manifest: seconds, peak_rss_mb and the stage's own counts, summed over splits."""
    numbers = {"seconds": facts["seconds"], "peak_rss_mb": facts["peak_rss_mb"]}
    result = facts["result"]
    for part in (result, *result.get("splits", {}).values()):
        for name, value in part.items():
            if (
                isinstance(value, int | float)
                and not isinstance(value, bool)
                and name not in ("seconds", "peak_rss_mb")
            ):
                numbers[name] = numbers.get(name, 0) + value
    return numbers


def in_words(facts: dict) -> str:
    """The counts of one manifest in a few words.

    >>> in_words({"seconds": 1.0, "peak_rss_mb": 9, "result": {"events": 1200, "tokens": 3400, "x": 0.5}})
    '1,200 events, 3,400 tokens'
    """
    counts = counted(facts)
    wanted = ("patients", "events", "tokens", "parameters", "rollouts")
    words = [f"{counts[name]:,.0f} {name}" for name in wanted if name in counts]
    if counts.get("quarantined"):
        words.append(f"{counts['quarantined']:,.0f} unreadable rows put aside")
    return ", ".join(words)
