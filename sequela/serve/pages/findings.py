"""What a stage noticed about the data, as a page of its own."""

from __future__ import annotations

from pathlib import Path

from sequela.record.finding import Finding
from sequela.serve.pages.page import render


def write_findings(path: Path, title: str, findings: list[Finding]) -> None:
    """Write a page with each of the findings."""
    path.write_text(render("look.html", title=title, findings=findings), encoding="utf-8")
