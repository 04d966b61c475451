"""The example patients: chosen by rank, drawn as observed beside imagined."""

import re
from pathlib import Path
from xml.etree import ElementTree

import polars as pl
import pytest

from sequela.serve.futures import PATIENTS, SHOWN_ROLLOUTS, examples, plain
from sequela.tasks.task import load_task


def test_examples_of_the_small_demo(small_demo: Path) -> None:
    tasks = [load_task("death_5y"), load_task("new_diabetes_5y")]
    folders = (small_demo / "simulated", small_demo / "meds", small_demo / "predictions")
    shown, kinds = examples(*folders, tasks)
    assert len(shown) == PATIENTS
    assert set(kinds) <= {"death", "diabetes", "other diagnosis", "measurement or visit"}
    risks = [float(re.search(r"risk ([\d.]+) %", one.words)[1]) for one in shown]
    assert risks == sorted(risks)
    for one in shown:
        assert re.match(r"(Man|Woman), \d+ years", one.words)
        assert "it happened" in one.words or "it did not happen" in one.words
        lanes = [node.text for node in ElementTree.fromstring(one.picture).iter("text")]
        assert lanes[0] == "observed"
        assert 1 <= sum(str(name).startswith("imagined") for name in lanes) <= SHOWN_ROLLOUTS
    assert examples(*folders, tasks) == (shown, kinds), "the same pictures every time"


def test_nobody_with_an_answer_is_no_example(small_demo: Path, tmp_path: Path) -> None:
    (tmp_path / "death_5y").mkdir()
    table = pl.read_parquet(small_demo / "predictions" / "death_5y" / "sequela.parquet")
    unknown = table.with_columns(boolean_value=pl.lit(None, pl.Boolean))
    unknown.write_parquet(tmp_path / "death_5y" / "sequela.parquet")
    shown, _ = examples(small_demo / "simulated", small_demo / "meds", tmp_path, [load_task("death_5y")])
    assert shown == []


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("DIAGNOSIS//HEART_FAILURE", "heart failure"),
        ("MEDS_DEATH", "meds death"),
        ("LAB//50912//mg/dL", "50912 mg/dl"),
    ],
)
def test_codes_in_words(code: str, words: str) -> None:
    assert plain(code) == words
