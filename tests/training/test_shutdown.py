"""A run that is cut short, in whatever way, ends with the weights of one that was not."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sequela.record.dataset import write_dataset
from sequela.record.worlds.markov import MarkovWorld
from sequela.serve.stages.train import train
from sequela.tokens.ehr.tokenize import tokenize
from sequela.training.settings import TrainSettings
from sequela.training.shutdown import Interrupted, stopping

ROOT = Path(__file__).parents[2]
SIZES = {"depth": 1, "context": 64, "row_tokens": 64, "batch_tokens": 512, "epochs": 4, "checks": 1}
SETTINGS = TrainSettings(**SIZES, ignore_spikes=True)
FLAGS = [f"--{name.replace('_', '-')}={value}" for name, value in SIZES.items()] + ["--ignore-spikes"]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    write_dataset(MarkovWorld.known().events(200, seed=0), folder / "meds", name="known world", metadata={})
    (folder / "corpus").mkdir()
    tokenize(folder / "meds", folder / "corpus")
    return folder / "corpus"


@pytest.fixture(scope="module")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights of a run that nobody disturbs."""
    out = tmp_path_factory.mktemp("whole") / "model"
    train(corpus, out, settings=SETTINGS)
    return (out / "model.safetensors").read_bytes()


class Started:
    """`python -m sequela train`, saving itself after every step, so that it nearly always writes a checkpoint."""

    def __init__(self, corpus: Path, out: Path, *launcher: str):
        self.out = out
        self.before = self.checkpoints()
        here = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        command = [
            sys.executable,
            *launcher,
            "-m",
            "sequela",
            "train",
            corpus,
            out,
            *FLAGS,
            "--checkpoint-minutes=0",
        ]
        self.process = subprocess.Popen(
            command, env=here, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def checkpoints(self) -> set[str]:
        """Names of those that are there, or being written or removed."""
        return {
            path.name for path in self.out.parent.glob(f".{self.out.name}.unfinished-*/checkpoints/*step-*")
        }

    def under_way(self) -> None:
        """Wait until it has saved a step of its own."""
        self.wait_until(lambda: bool(self.checkpoints() - self.before))

    def wait_until(self, happened: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not happened():
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.002)

    def end(self, how: signal.Signals | None = None) -> tuple[int, str]:
        """Its exit code and what it said last on stderr."""
        if how is not None:
            self.process.send_signal(how)
        said = self.process.communicate(timeout=120)[1]
        return self.process.returncode, (said.splitlines() or [""])[-1]


def weights(out: Path) -> bytes:
    assert not list(out.parent.glob(f".{out.name}.*")), "nothing is left over"
    assert not (out / "checkpoints").exists()
    return (out / "model.safetensors").read_bytes()


def test_stopped_interrupted_killed_and_run_to_the_end(corpus, whole, tmp_path):
    out = tmp_path / "model"
    again = "run the same command again to continue."
    for how, code, last in (
        (signal.SIGTERM, 0, again),
        (signal.SIGINT, 130, again),
        (signal.SIGKILL, -9, ""),
    ):
        run = Started(corpus, out)
        run.under_way()
        found, said = run.end(how)
        assert found == code and said.endswith(last)
        assert run.checkpoints() and not out.exists()
    assert not train(corpus, out, settings=SETTINGS)["skipped"]
    assert weights(out) == whole


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_killed_at_any_moment(corpus, whole, tmp_path, seed):
    moments = random.Random(seed)
    out = tmp_path / "model"
    for _ in range(5):
        run = Started(corpus, out)
        run.under_way()
        time.sleep(moments.random() * 0.5)
        run.end(signal.SIGKILL)
        if out.exists():  # it was done before
            break
    train(corpus, out, settings=SETTINGS)
    assert weights(out) == whole


@pytest.mark.slow
def test_a_worker_of_torchrun_is_killed_and_torchrun_stopped(corpus, tmp_path):
    assert Started(corpus, tmp_path / "whole", *TORCHRUN).end()[0] == 0
    out = tmp_path / "model"
    run = Started(corpus, out, *TORCHRUN)
    run.under_way()
    workers = Path(f"/proc/{run.process.pid}/task/{run.process.pid}/children").read_text().split()
    os.kill(int(workers[-1]), signal.SIGKILL)
    assert run.end()[0] != 0, "torchrun's own code"
    run = Started(corpus, out, *TORCHRUN)
    run.under_way()
    run.process.send_signal(signal.SIGTERM)
    said = run.process.communicate(timeout=120)[1]
    assert said.count("run the same command again to continue.") == 1
    assert Started(corpus, out, *TORCHRUN).end()[0] == 0
    assert weights(out) == weights(tmp_path / "whole")


@pytest.mark.parametrize("resume", [True, False])
def test_taken_up_again_or_begun_anew(corpus, whole, tmp_path, resume):
    out, said = tmp_path / "model", []

    def in_the_middle(done: float, total: float, **facts: object) -> None:
        if done > total / 2:
            terminate()

    with pytest.raises(Interrupted, match=r"stopped after .* run the same command again"):
        train(corpus, out, settings=SETTINGS, progress=in_the_middle)
    train(corpus, out, settings=SETTINGS, resume=resume, say=said.append)
    assert bool([line for line in said if "resumes after" in line]) == resume
    assert weights(out) == whole


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_ends_the_run_with_a_sentence():
    with pytest.raises(Interrupted, match="run the same command again"), stopping() as stop:
        terminate()
    assert stop.requested


def test_held_it_waits_for_a_good_moment():
    with stopping() as stop:
        with stop.deferred():
            terminate()
            assert stop.requested
        with pytest.raises(Interrupted):
            terminate()


def test_afterwards_the_signal_means_what_it_meant():
    before = signal.getsignal(signal.SIGTERM)
    with stopping():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_thread_that_gets_no_signals_can_train_too():
    seen = []

    def body() -> None:
        with stopping() as stop:
            seen.append(stop.requested)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [False]
