"""The bench of coverage: its chains are the known world, and it sees intervals that do not cover."""

import json
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sequela.record.worlds.markov import MarkovWorld
from sequela.rollout.estimators import answers

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    return SimpleNamespace(**runpy.run_path(str(BENCH / "coverage.py")))


def test_chains_have_the_exact_risk(bench):
    pools = {(pool.name, pool.estimator): pool for pool in bench.chains(60, 60)}
    often = pools["chain x 1", "scope"]
    world = MarkovWorld.known()
    assert often.truth[:3] == pytest.approx([world.risk(level, bench.DAYS) for level in range(3)])
    for pool in pools.values():
        error = pool.scores.mean(1) - pool.truth
        assert abs(error.mean()) < 4 * error.std() / np.sqrt(len(error))
    row = bench.row(often, 10)
    assert 0.9 < row["coverage"] <= 1 and row["effect"] < 1.1
    halved = bench.Pool("", "scope", 0.5 * often.scores, often.truth)
    assert bench.row(halved, 10)["coverage"] < 0.7  # negative control: scores of half the risk


def test_the_worst_is_furthest_out(bench):
    assert bench.worst([0.95, 0.94, 0.985]) == 0.985
    assert bench.worst([0.95, 0.9, 1.0]) == 0.9
    low, high = bench.hall(answer := answers(np.array([[0.3, 0.4, 0.5, 0.6, 0.7]])), np.zeros((1, 5)), "mc")
    assert low[0] < answer.value[0] < high[0]


@pytest.mark.slow
def test_a_quick_run():
    done = subprocess.run(
        [sys.executable, BENCH / "coverage.py", "--quick"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["name"] == "coverage" and found["ok"] and len(found["rows"]) == 44
