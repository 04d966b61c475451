"""Every benchmark explains itself, and the last line of a tiny run is the JSON object that others read."""

import json
import os
import runpy
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from sequela.record.dataset import read_events

BENCH = Path(__file__).resolve().parents[2] / "bench"
# the older ones know no --help: they start to work
WITH_HELP = [
    "tokenization.py", "memory.py", "ingest.py", "dial.py", "training.py", "choices.py", "rollouts.py", "cohort.py",
    "schemes.py", "evaluate.py", "muon.py", "coverage.py", "risks.py", "decompose.py", "recalibration.py", "jepa.py",
    "embed.py", "world_model.py",
]  # fmt: skip


def last_line(script: str, *arguments: str) -> dict:
    done = subprocess.run(
        [sys.executable, BENCH / script, *arguments], capture_output=True, text=True, check=True, timeout=200
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def measure(monkeypatch):
    """The modules that the benchmarks share."""
    monkeypatch.syspath_prepend(BENCH)
    from measure import process, synthetic

    return process, synthetic


@pytest.mark.parametrize("script", WITH_HELP)
def test_help(script, monkeypatch, capsys):
    monkeypatch.syspath_prepend(BENCH)
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(BENCH / script), run_name="__main__")
    assert ended.value.code == 0 and "--quick" in capsys.readouterr().out


@pytest.mark.parametrize("able", [True, False])
def test_rows_that_this_processor_cannot_have_are_left_out_and_named(measure, monkeypatch, capsys, able):
    monkeypatch.setattr("sequela.model.precision.has_bf16", lambda device: able)
    process, _ = measure
    assert process.computable(["bf16", "fp32"]) == (["bf16", "fp32"] if able else ["fp32"])
    assert ("rows in bf16 are left out" in capsys.readouterr().out) != able
    assert process.computable(["fp32"]) == ["fp32"] and not capsys.readouterr().out


def test_tokenization_without_peers(tmp_path):
    found = last_line(
        "tokenization.py",
        "--patients",
        "40",
        "--repeats",
        "1",
        "--peers",
        str(tmp_path),
        "--work",
        str(tmp_path),
    )
    assert (found["name"], found["target"], found["ratio"], found["ok"]) == ("tokenization", 20, None, False)
    assert 0 < found["scan_share"] < 1
    assert not list(tmp_path.iterdir())


def test_memory(tmp_path):
    found = last_line("memory.py", "--patients", "20", "40", "--work", str(tmp_path))
    assert found["name"] == "memory" and found["ok"] == (found["slope"] <= 1.1)
    assert [run["patients"] for run in found["runs"]] == [20, 40]
    assert 0.05 < found["runs"][0]["process_gb"] <= found["ratio"] + 0.05
    assert not list(tmp_path.iterdir())


def test_evaluate(tmp_path):
    found = last_line("evaluate.py", "--questions", "300", "--work", str(tmp_path))
    assert found["name"] == "evaluate" and found["ok"] and found["failed"] is None
    assert found["runs"][0]["questions"] == 300 and found["runs"][0]["plain_seconds"] > 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_ingest(tmp_path, form):
    found = last_line("ingest.py", "--patients", "20", "40", "--form", form, "--work", str(tmp_path))
    assert found["name"] == "ingest" and found["form"] == form and found["failed"] is None
    assert [run["patients"] for run in found["runs"]] == [20, 40]
    assert all(run["events"] > run["rows"] > 38 * run["patients"] for run in found["runs"])
    assert 0.05 < found["runs"][0]["process_gb"] <= found["ratio"] + 0.05
    assert not list(tmp_path.iterdir())


def test_a_synthetic_omop_is_repeatable_and_keeps_its_promises(measure, tmp_path):
    from measure import omop

    made = omop.write(tmp_path / "a", 50)
    assert omop.write(tmp_path / "b", 50) == made
    omop.write(tmp_path / "c", 50, seed=1)
    tables = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(tables) == 8 and made["rows"] >= 50 * 39
    same, other = ([pl.read_parquet(tmp_path / "a" / name).equals(pl.read_parquet(tmp_path / folder / name))
                    for name in tables if name != "concept.parquet"] for folder in "bc")  # fmt: skip
    assert all(same) and not any(other)
    rows = pl.read_parquet(tmp_path / "a/measurement.parquet")
    known = pl.read_parquet(tmp_path / "a/concept.parquet")["concept_id"]
    assert rows["measurement_id"].is_unique().all() and rows["measurement_concept_id"].is_in(known.implode()).all()
    visits = pl.read_parquet(tmp_path / "a/visit_occurrence.parquet")
    within = rows.join(visits, on=["visit_occurrence_id", "person_id"])
    assert within.height == rows.height == 50 * 14
    after = within["measurement_datetime"] - within["visit_start_datetime"]
    assert after.min().total_seconds() >= 0 and after.max().days < 3


def test_time_over_patients(measure):
    """Four times the time for ten times the patients, then ten times."""
    from measure.growth import fitted, slope

    rows = [{"patients": 10**n, "seconds": seconds} for n, seconds in ((2, 1), (3, 4), (4, 40))]
    assert slope(rows) == pytest.approx(1) and slope(rows[:1]) is None
    assert fitted(rows) == pytest.approx(0.801, abs=1e-3) and fitted(rows[:1]) is None


def test_synthetic_data_are_valid_and_repeatable(measure, tmp_path):
    synthetic = measure[1]
    about = synthetic.write(tmp_path / "a", 60, seed=3, patients_a_shard=20)
    synthetic.write(tmp_path / "b", 60, seed=3, patients_a_shard=20)
    synthetic.write(tmp_path / "c", 60, seed=4, patients_a_shard=20)
    paths = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.parquet"))
    assert about["shards"] == 5 == len(paths) - 2
    same = [(tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes() for path in paths]
    other = [(tmp_path / "a" / path).read_bytes() == (tmp_path / "c" / path).read_bytes() for path in paths]
    assert all(same) and not all(other)
    events = pl.concat([read_events(tmp_path / "a", split) for split in ("train", "tuning", "held_out")])
    assert events["subject_id"].n_unique() == 60 and len(events) == about["events"]
    assert events.filter(pl.col("code") == "MEDS_BIRTH").height == 60
    gaps = events.drop_nulls("time").select(pl.col("time").diff().over("subject_id"))["time"].drop_nulls()
    assert gaps.min().total_seconds() >= 0
    assert {"LOINC", "VITAL", "ICD10CM", "ATC", "CPT4"} <= set(events["code"].str.split("//").list[0])


def test_memory_of_children_counts(measure):
    """A child of a child that holds 200 MB is seen; without it, it is not (the negative control)."""
    process = measure[0]
    hold = "import time; held = b'x' * 200_000_000; time.sleep(0.7)"
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])"
    with_child = process.run([sys.executable, "-c", nested])
    without = process.run([sys.executable, "-c", "import time; time.sleep(0.3)"])
    assert 200e6 < with_child.process_bytes < 260e6 and with_child.tree_bytes > 200e6
    assert without.tree_bytes < 100e6


def test_a_failure_is_told(measure):
    process = measure[0]
    with pytest.raises(process.Failed, match="exit code 3"):
        process.run([sys.executable, "-c", "import sys; print('words'); sys.exit(3)"])
    runs, failed = process.in_turn(
        {"bad": lambda: process.run(["false"]), "good": lambda: process.run(["true"])}, 2
    )
    assert list(failed) == ["bad"] and len(runs["good"]) == 2 and "bad" not in runs


def test_the_median_pair_is_a_pair_that_ran(measure):
    process = measure[0]

    def spent(seconds: float):
        return process.Spent(seconds, 0, 0, 0, "")

    own, their = process.median_pair([spent(1), spent(2), spent(1)], [spent(5), spent(2), spent(30)])
    assert (own.seconds, their.seconds) == (1, 5)


def test_time_is_that_of_the_whole_process(measure):
    process = measure[0]
    start = time.perf_counter()
    spent = process.run([sys.executable, "-c", "import time; time.sleep(0.4)"])
    assert 0.4 <= spent.seconds <= time.perf_counter() - start
    assert os.times().children_user >= spent.cpu_seconds - os.times().children_system


def test_the_reason_of_a_failure_is_its_telling_line(measure):
    process = measure[0]
    assert process.Failed("exit code 1 of x:\nKilled\nRuntimeError: stage\nhint: set FULL=1").reason == (
        "killed by the system, most likely for memory: RuntimeError: stage"
    )
    assert process.Failed("exit code 1 of x:\nonly this").reason == "only this"


def test_muon():
    found = last_line("muon.py", "--quick")
    assert found["name"] == "muon" and found["ok"] == (found["ratio"] >= 1) and found["ms"] > 0
