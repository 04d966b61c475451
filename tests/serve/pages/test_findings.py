"""A page of findings shows each of them, and no code of a source as markup."""

from pathlib import Path

from sequela.record.finding import Finding
from sequela.serve.pages.findings import write_findings


def test_every_finding_is_shown_as_text(tmp_path: Path) -> None:
    findings = [
        Finding(3, "patients", "no birth, so no age", "Map their births.", of=60),
        Finding(2, "codes", "no token for LAB//<b>", "Lower `min_patients`."),
    ]
    write_findings(tmp_path / "look.html", "Tokens of my <data>", findings)
    page = (tmp_path / "look.html").read_text(encoding="utf-8")
    assert "3 of 60 patients (5.0%): no birth, so no age. Map their births." in page
    assert page.count("<li>") == 2
    assert "LAB//&lt;b&gt;" in page and "<b>" not in page and "<data>" not in page
