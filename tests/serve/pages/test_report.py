"""The report holds what metrics.json says, needs nothing else, and says where simulation loses."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from sequela.errors import InputError
from sequela.serve.pages.report import read_metrics, write_report
from sequela.serve.pages.terminal import interval
from sequela.serve.presets import preset


class Checker(HTMLParser):
    """Collects text and every address, and fails on tags that do not close."""

    VOID = ("meta", "br", "hr", "img", "link", "line", "rect", "circle", "polyline")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [str(value) for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def read(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    return checker


def test_report_of_the_small_demo(small_demo: Path) -> None:
    page = (small_demo / "report.html").read_text()
    checker = read(page)
    words = " ".join(" ".join(checker.words).split())
    metrics = read_metrics(small_demo)
    assert checker.addresses == []
    assert "url(" not in page
    for task in metrics["tasks"].values():
        for scores in task["models"].values():
            assert interval(scores["auroc"]) in words
        assert f"{task['undecidable']:,} censored" in words
        assert task["verdict"] in words
    assert metrics["comparisons"]["words"] in words and "There is one training run" in words
    for sentence in preset("nafld").limits:
        assert sentence in words
    assert "For research only" in words
    assert (
        "in " + f"{round(100 * metrics['tasks']['death_5y']['models']['sequela']['auroc']['value'])} of 100"
        in words
    )
    assert page.count("<svg") == 2 * len(metrics["tasks"]) + 4
    assert words.count("Simulation takes the mean of summed hazards (scope); 6 futures and") == 4
    assert re.search(r"1,710 futures of 285 histories, \d+ tokens each: \d+ % passed the horizon", words)
    assert re.search(r"The grammar removed [\d.]+ % of the probability.* 0 of [\d,]+ multi-token events", words)
    assert re.search(r"train \d+ s [\d,]+ MB", words)


def test_what_cannot_be_found_is_left_out(small_demo: Path, tmp_path: Path) -> None:
    shutil.copytree(small_demo / "predictions", tmp_path / "predictions")
    (tmp_path / "predictions" / "manifest.json").unlink()
    write_report(read_metrics(small_demo), [tmp_path / "predictions"], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    read(page)
    assert "Some futures" not in page
    assert page.count("<svg") == 8
    write_report(read_metrics(small_demo), [], tmp_path / "report.html")
    assert "<svg" not in (tmp_path / "report.html").read_text()


def test_undefined_scores_are_dashes(tmp_path: Path) -> None:
    nothing = {"value": None, "low": None, "high": None}
    task = {
        "kind": "binary",
        "n": 3,
        "positives": 0,
        "decidable": 0,
        "undecidable": 3,
        "rollouts": {},
        "verdict": "<b>nothing</b> to say",
        "models": {"theirs": {"auroc": nothing, "oe": nothing}},
    }
    write_report({"tasks": {"my_task": task}}, [], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    read(page)
    assert "No simulation was scored here" in page
    assert "<td>-</td><td>-</td>" in page
    assert "&lt;b&gt;nothing&lt;/b&gt; to say" in page


@pytest.mark.parametrize(
    ("kind", "heading", "counts", "headline"),
    [
        ("time", "mean error, days", "without the outcome in time", "off by 2.5 days on average"),
        ("count", "mean error", None, "off by 2.50 on average"),
        ("value", "mean error, unit of the value", "without a value in time", "off by 2.50 (in the unit"),
    ],
)
def test_numbers_are_told_in_their_unit(
    tmp_path: Path, kind: str, heading: str, counts: str | None, headline: str
) -> None:
    score = {"value": 2.5, "low": 2.0, "high": 3.0}
    models = {"sequela": {"mae": score} | ({"rmsle": score} if kind == "count" else {})}
    task = {
        "kind": kind,
        "n": 1300,
        "positives": None,
        "decidable": 50,
        "undecidable": 3,
        "without": 1247 if counts else 0,
        "rollouts": {},
        "verdict": "",
        "models": models,
    }
    write_report({"tasks": {"my_task": task}}, [], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    words = " ".join(" ".join(read(page).words).split())
    assert f"<th>{heading}</th>" in page and ("<th>RMSLE</th>" in page) == (kind == "count")
    assert (f"1,247 {counts}, who are left out" in words) if counts else "left out of the scores" not in words
    assert headline in words
    assert "The futures" not in words and ("days" in words) == (kind == "time")


def test_no_metrics(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"metrics\.json cannot be read: give a folder that `sequela evaluate` wrote"
    ):
        read_metrics(tmp_path)
    (tmp_path / "metrics.json").write_text(json.dumps({})[:1])
    with pytest.raises(InputError, match=r"metrics\.json is not JSON"):
        read_metrics(tmp_path)
