"""Several processes make what one makes, share it evenly, and say so when one of them cannot go on."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from sequela.errors import InputError
from sequela.rollout.budget import AdaptiveBudget, FixedBudget
from sequela.rollout.engine import processes as module
from sequela.rollout.engine.engine import Engine
from sequela.rollout.engine.processes import EngineProcesses
from sequela.rollout.engine.sampling import Sampling
from sequela.rollout.tracker import StopRule
from tests.rollout.engine.test_engine import ALONE, flags, model, prompts, tracked


def make(context=1024):
    return Engine(model(context=context))


def make_none():
    raise InputError("there is no such model")


def broken():
    engine = make()

    def batch(*_, **__):
        return 1 // 0

    engine.batch = batch
    return engine


def never():
    time.sleep(120)


def same(one, other):
    assert one.tokens.flat.tolist() == other.tokens.flat.tolist()
    for name in ("prompt", "number", "reason", "windows"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    names = ["clock", "hazard", "reached", "happened", "watched", "removed"]
    assert list(one.account) == list(other.account) == names
    for name in names:
        assert np.array_equal(one.account[name], other.account[name]), name


@pytest.fixture(scope="module")
def processes():
    with EngineProcesses(partial(make, context=32), 2) as several:
        yield several


@pytest.mark.parametrize("rows", [1, 5, 128])
@pytest.mark.parametrize("count", [1, 9])
def test_the_same_rollouts_as_one_process(processes, rows, count):
    """With histories longer than a window, and rollouts that fill it; and several runs, one after the other."""
    asked, told = prompts(count, longest=40), []
    out = processes.extend(
        asked,
        FixedBudget(7),
        tracked(),
        Sampling(rows=rows),
        progress=lambda done, total, **facts: told.append(done),
    )
    same(out, make(context=32).extend(asked, FixedBudget(7), tracked(), Sampling(rows=rows)))
    assert out.windows.any() and told == sorted(told) and told[-1] == count


def test_a_plan_that_asks_for_more_gets_it(processes):
    """A process with nothing to do waits for what the others' results make the plan ask for."""
    plan = AdaptiveBudget("reach", 0.05, None, pilot=2, cap=100)
    asked = prompts(6)
    out = processes.extend(asked, plan, tracked(watch=ALONE, avoid=True))
    same(out, make(context=32).extend(asked, plan, tracked(watch=ALONE, avoid=True)))
    assert len(set(np.bincount(out.prompt))) > 1  # not every prompt got as many
    nobody = processes.extend(prompts(0), FixedBudget(3), tracked())
    assert len(nobody.number) == 0


@pytest.fixture
def taken(monkeypatch):
    """How many rollouts were handed out at once, in order."""
    found = []

    class Spied(module.Queue):
        def take(self, most):
            got = super().take(most)
            if got is not None:
                found.append(len(got.numbers))
            return got

    monkeypatch.setattr(module, "Queue", Spied)
    return found


LONG = StopRule(flags(), 10**9, 300)  # no rollout ends before the other process asks


def test_the_rollouts_of_one_prompt_are_shared_evenly(processes, taken):
    processes.extend(prompts(1), FixedBudget(64), tracked(LONG))
    assert taken == [32, 32]


def test_a_process_without_work_waits_for_what_the_results_of_others_ask_for(processes, taken):
    class Two:
        def more(self, question, numbers, scores):
            return np.arange(len(numbers), {0: 2, 2: 42}.get(len(numbers), len(numbers)))

    processes.extend(prompts(1), Two(), tracked(LONG))
    assert taken == [1, 1, 20, 20]


def test_what_a_process_raises_is_raised_here():
    with EngineProcesses(make_none, 2) as several, pytest.raises(InputError, match="there is no such model"):
        several.extend(prompts(), FixedBudget(2), tracked())
    with (
        EngineProcesses(broken, 2) as several,
        pytest.raises(RuntimeError, match=r"(?s)in batch.*ZeroDivisionError"),
    ):
        several.extend(prompts(), FixedBudget(2), tracked())


def test_a_process_that_dies_is_an_error_not_a_wait():
    with EngineProcesses(make, 2) as several:
        several.extend(prompts(), FixedBudget(2), tracked())
        os.kill(several.processes[1].pid, signal.SIGKILL)
        several.processes[1].wait()
        with pytest.raises(InputError, match="a process of the simulation died"):
            several.extend(prompts(), FixedBudget(2), tracked())
        assert all(process.returncode is not None for process in several.processes)


def test_a_process_that_dies_in_the_midst_of_a_run_is_an_error_too():
    with EngineProcesses(make, 2) as several:

        def killing(*_, **__):
            several.processes[1].kill()

        with pytest.raises(InputError, match="a process of the simulation died"):
            several.extend(prompts(20), FixedBudget(40), tracked(), Sampling(rows=4), progress=killing)


def test_processes_end_with_their_owner():
    """Closed, forgotten, or interrupted in the midst of something: none is left behind."""
    several = EngineProcesses(make, 1)
    (process,) = several.processes
    several.close()
    assert process.returncode is not None

    several = EngineProcesses(make, 1)
    (process,) = several.processes
    del several
    assert process.returncode is not None

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    several = EngineProcesses(make, 1)
    with pytest.raises(KeyboardInterrupt):
        several.extend(prompts(), FixedBudget(20), tracked(), Sampling(rows=2), progress=interrupted)
    assert several.processes[0].returncode is not None


def test_a_process_in_the_midst_of_something_is_not_waited_for():
    several = EngineProcesses(never, 1)
    begun = time.monotonic()
    several.close()
    assert time.monotonic() - begun < 60


def test_an_interrupted_terminal_is_for_who_asks():
    """Ctrl-C goes to every process of the group in front; the processes leave it to the one that started them."""
    with EngineProcesses(make, 1) as several:
        assert os.getpgid(several.processes[0].pid) != os.getpgrp()


def test_a_script_without_a_main_guard_is_not_run_again(tmp_path):
    """As in a notebook, or a script of a few lines."""
    script = tmp_path / "script.py"
    script.write_text(
        "from tests.rollout.engine.test_processes import *\n"
        "with open('ran', 'a') as f: f.write('x')\n"
        "with EngineProcesses(make, 2) as several:\n"
        "    print(len(several.extend(prompts(), FixedBudget(2), tracked()).number))\n"
    )
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("14\n", 0), done.stderr
    assert (tmp_path / "ran").read_text() == "x"


def test_a_file_that_happens_to_lie_here_is_not_imported(tmp_path, monkeypatch):
    (tmp_path / "queue.py").write_text("raise RuntimeError('not this one')")
    monkeypatch.chdir(tmp_path)
    with EngineProcesses(make, 1) as several:
        assert len(several.extend(prompts(1), FixedBudget(2), tracked()).number) == 2
