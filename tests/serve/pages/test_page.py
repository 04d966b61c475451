"""Pages are whole, escaped, and complain of what is missing."""

import jinja2
import pytest

import sequela
from sequela.serve.pages.page import TEMPLATES, render

FACTS = {
    "headline": "<b>",
    "note": "",
    "compared": "",
    "expected": None,
    "sections": [],
    "futures": [],
    "examples": [],
    "kinds": {},
    "stages": [],
    "limits": ["a & b"],
}


def test_texts_are_escaped_and_the_style_is_inside():
    page = render("report.html", **FACTS)
    assert "<h1>&lt;b&gt;</h1>" in page and "a &amp; b" in page and sequela.__version__ in page
    assert (TEMPLATES / "style.css").read_text().splitlines()[0] in page and "{%" not in page


def test_a_missing_fact_is_an_error():
    with pytest.raises(jinja2.UndefinedError):
        render("report.html", **{name: fact for name, fact in FACTS.items() if name != "limits"})
