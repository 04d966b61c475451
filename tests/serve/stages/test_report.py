"""The report of a demo can be written again from its folder."""

from pathlib import Path

from sequela.serve.stages.report import report


def test_a_report_can_be_made_again(small_demo: Path, tmp_path: Path) -> None:
    report(small_demo, tmp_path / "report")
    assert (tmp_path / "report" / "report.html").read_text() == (small_demo / "report.html").read_text()
