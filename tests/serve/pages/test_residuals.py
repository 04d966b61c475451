"""What came over what a model expected is found behind predictions, and told in a few lines."""

import json
from pathlib import Path

import pytest

from sequela.serve.folder.work import make_folder
from sequela.serve.pages.report import write_report
from sequela.serve.pages.residuals import COLUMNS, print_residuals, residuals, rows, sentence

DIABETES = {"outcome": "DIABETES", "observed": 49, "expected": 21.1, "ratio": 2.322, "low": 1.718, "high": 3.07}
COMPARED = {
    "patients": 1758,
    "comparisons": 394,
    "outcomes": [DIABETES | {"p": 0.01, "off": False}, DIABETES | {"outcome": "STROKE", "p": 1e-9, "off": True}],
    "groups": [DIABETES | {"group": "NAFLD before", "elsewhere": 1.06, "p": 1e-6, "off": True}] * 9,
}
EMPTY = {"tasks": {}, "simulation": {"answers": {}, "futures": []}}
NONE = {**COMPARED, "outcomes": COMPARED["outcomes"][:1], "groups": [COMPARED["groups"][0] | {"off": False}]}


def test_the_strongest_are_shown_and_nothing_where_nothing_is_off() -> None:
    assert rows(COMPARED)[0] == ("STROKE", "all", "49", "21.1", "2.32 [1.72, 3.07]", "")
    assert rows(COMPARED)[1] == ("DIABETES", "NAFLD before", "49", "21.1", "2.32 [1.72, 3.07]", "1.06")
    assert len(rows(COMPARED)) == 6 and {len(row) for row in rows(COMPARED)} == {len(COLUMNS)}
    assert rows(NONE) == [] and "none of 394" in sentence(NONE)


def test_they_are_printed_in_a_few_lines(capsys: pytest.CaptureFixture[str]) -> None:
    print_residuals(COMPARED)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("On 1,758 tuning patients, 10 of 394") and len(lines) < 14
    print_residuals(NONE)
    assert len(capsys.readouterr().out.splitlines()) <= 2


def test_they_are_found_behind_predictions_and_shown_on_the_page(tmp_path: Path) -> None:
    made = tmp_path / "model", tmp_path / "simulated", tmp_path / "predictions"
    make_folder(made[0], "train", {}, {}, lambda work: {"residuals": COMPARED, "tokens": 3})
    make_folder(made[1], "simulate", {}, {"model": made[0]}, lambda work: {})
    make_folder(made[2], "predict", {}, {"simulated": made[1]}, lambda work: {})
    assert residuals([made[2]]) == json.loads(json.dumps(COMPARED))
    assert residuals([tmp_path]) is None
    for metrics, folders in (({"residuals": COMPARED}, []), ({}, [made[2]])):
        write_report(EMPTY | metrics, folders, tmp_path / "p.html")
        page = (tmp_path / "p.html").read_text()
        assert "What the model expected" in page and "NAFLD before" in page and sentence(COMPARED) in page
    write_report(EMPTY, [], tmp_path / "p.html")
    assert "What the model expected" not in (tmp_path / "p.html").read_text()
