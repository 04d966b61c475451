"""The example patients: chosen by rank, drawn as observed beside simulated."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import polars as pl
import pytest

from sequela.serve.pages.futures import PATIENTS, SHOWN_ROLLOUTS, examples, plain
from sequela.task.catalog import load_task
from sequela.task.kinds import KINDS
from sequela.tokens.maps.code_map import CodeMap
from sequela.tokens.maps.recode import save_maps


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
        assert 1 <= sum(str(name).startswith("simulated") for name in lanes) <= SHOWN_ROLLOUTS
    assert examples(*folders, tasks) == (shown, kinds), "the same pictures every time"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("time", "2.3 days predicted, 2.0 observed"),
        ("count", "2.33 predicted, 2 observed"),
        ("value", "2.33 predicted, 2 observed"),
    ],
)
def test_numbers_are_no_risks(small_demo: Path, tmp_path: Path, kind: str, words: str) -> None:
    table = pl.read_parquet(small_demo / "predictions" / "death_5y" / "sequela.parquet")
    number = table.with_columns(float_value=pl.lit(2.0), predicted_float_value=pl.lit(7 / 3))
    (tmp_path / "death_5y").mkdir()
    number.write_parquet(tmp_path / "death_5y" / "sequela.parquet")
    task = replace(load_task("death_5y"), asks=KINDS[kind])
    shown, _ = examples(small_demo / "simulated", small_demo / "meds", tmp_path, [task])
    assert len(shown) == PATIENTS
    assert all(one.words.endswith(f": {words}.") for one in shown)


def test_futures_that_avoid_an_outcome_are_no_examples(small_demo: Path, tmp_path: Path) -> None:
    shutil.copytree(small_demo / "simulated", tmp_path / "simulated")
    for file in (tmp_path / "simulated" / "data").iterdir():
        file.unlink()
    folders = (tmp_path / "simulated", small_demo / "meds", small_demo / "predictions")
    assert examples(*folders, [load_task("death_5y")]) == ([], {})


def test_nobody_with_an_answer_is_no_example(small_demo: Path, tmp_path: Path) -> None:
    (tmp_path / "death_5y").mkdir()
    table = pl.read_parquet(small_demo / "predictions" / "death_5y" / "sequela.parquet")
    unknown = table.with_columns(boolean_value=pl.lit(None, pl.Boolean))
    unknown.write_parquet(tmp_path / "death_5y" / "sequela.parquet")
    shown, _ = examples(small_demo / "simulated", small_demo / "meds", tmp_path, [load_task("death_5y")])
    assert shown == []


def test_observed_events_are_told_in_the_codes_that_the_model_speaks(
    small_demo: Path, tmp_path: Path
) -> None:
    """The same record with other codes for the diagnoses, and a model whose maps know them."""
    shutil.copytree(small_demo / "meds", tmp_path / "meds")
    shutil.copytree(small_demo / "simulated", tmp_path / "simulated")
    diagnosis = pl.col("code").str.replace("^DIAGNOSIS//", "OLD//")
    for path in (tmp_path / "meds" / "data").rglob("*.parquet"):
        pl.read_parquet(path).with_columns(diagnosis).write_parquet(path)
    task = [load_task("death_5y")]
    told = [
        examples(folder / "simulated", meds / "meds", small_demo / "predictions", task)
        for folder, meds in ((small_demo, small_demo), (tmp_path, tmp_path))
    ]
    assert told[0] != told[1]  # negative control: these maps know nothing of OLD//
    maps = save_maps((CodeMap("old", (("OLD//*", "DIAGNOSIS//*"),)),), tmp_path / "simulated")
    (tmp_path / "simulated" / "simulate.json").write_text(json.dumps({"maps": maps}))
    assert told[0] == examples(tmp_path / "simulated", tmp_path / "meds", small_demo / "predictions", task)


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
