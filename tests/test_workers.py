import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from sequela.errors import InputError
from sequela.record import shards
from sequela.tokens.ehr import tokenize
from sequela.workers import Workers, cores, run

ENCODE = tokenize.encode_job  # before a test puts another in its place


def square(x):
    return x * x


def fails_at(bad, x):
    if x in bad:
        raise InputError(f"item {x}")
    return x


def encode_and_die_once(folder: Path, job: tokenize.ShardJob) -> dict:
    """The second pass over one shard; the worker that gets the third one kills itself, the first time."""
    mark = folder / "killed"
    if job.number == 2 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return ENCODE(job)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def process(_):
    time.sleep(0.2)
    return os.getpid()


def killed_once(folder: Path, x: int) -> int:
    """The worker that gets item 3 kills itself, the first time."""
    mark = folder / "killed"
    if x == 3 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return x * x


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_the_order_of_the_items(processes):
    shown = []
    results = run(
        square,
        range(7),
        Workers(processes=processes),
        progress=lambda done, total: shown.append((done, total)),
    )
    assert results == [n * n for n in range(7)] and shown == [(n, 7) for n in range(1, 8)]
    assert run(square, [], Workers(processes=processes)) == []


def test_two_processes_are_two_and_neither_is_ours():
    found = set(run(process, range(8), Workers(processes=2)))
    assert len(found) == 2 and os.getpid() not in found
    assert set(run(process, range(2), Workers(processes=1))) == {os.getpid()}  # negative control


@pytest.mark.parametrize("processes", [1, 2])
def test_the_first_failure_is_raised(processes):
    with pytest.raises(InputError, match="item 2"):
        run(partial(fails_at, {2, 5}), range(7), Workers(processes=processes))


@pytest.mark.parametrize("wrong", [{"executor": "spark"}, {"processes": -1}, {"processes": 10**6}])
def test_unknown_workers_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Workers(**wrong)


@pytest.fixture(scope="module")
def cluster():
    """A real Ray cluster with two worker processes."""
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'sequela[ray]'")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield Workers(executor="ray")
    ray.shutdown()


@pytest.mark.slow
def test_a_ray_worker_that_is_killed_costs_nothing_but_time(cluster, tmp_path):
    assert run(partial(killed_once, tmp_path), range(6), cluster) == [n * n for n in range(6)]
    assert (tmp_path / "killed").exists()


def test_ray_works_in_other_processes(cluster):
    found = set(run(process, range(6), cluster))
    assert found and os.getpid() not in found


def test_what_a_function_raises_on_ray_is_raised_here(cluster):
    with pytest.raises(InputError, match=r"^item 2$"):
        run(partial(fails_at, {2}), range(4), cluster)


def test_a_corpus_made_on_ray_with_a_killed_worker_is_the_same_to_the_byte(
    cluster, world_meds, tmp_path, monkeypatch
):
    """The whole tokenization in small shards; one worker dies in the middle of the second pass."""
    out = {name: tmp_path / name for name in ("local", "ray")}
    for folder in out.values():
        folder.mkdir()
    cut = shards.shards_of
    monkeypatch.setattr(tokenize, "shards_of", lambda folder: cut(folder, rows=300))
    tokenize.tokenize(world_meds, out["local"], workers=Workers(processes=1))
    monkeypatch.setattr(tokenize, "encode_job", partial(encode_and_die_once, tmp_path))
    tokenize.tokenize(world_meds, out["ray"], workers=cluster)
    assert (tmp_path / "killed").exists()
    assert bytes_of(out["local"]) == bytes_of(out["ray"])


def test_a_process_that_dies_gets_a_sentence(tmp_path):
    with pytest.raises(InputError, match="worker process died, possibly because memory ran out"):
        run(partial(killed_once, tmp_path), range(6), Workers(processes=2))


def test_a_cluster_that_is_not_there_is_named():
    with pytest.raises(InputError, match=r"no Ray cluster at 127\.0\.0\.1:1"):
        run(square, [1, 2], Workers(executor="ray", address="127.0.0.1:1"))


PROGRAM = """
import os, sys, time
from pathlib import Path
from sequela.workers import Workers, cores, run

def work(seconds):
    Path(f"pid-{os.getpid()}").touch()
    time.sleep(seconds)

if __name__ == "__main__":
    try:
        run(work, [100, 100], Workers(processes=2))
    except KeyboardInterrupt:
        sys.exit(7)
"""


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 7), (signal.SIGKILL, -signal.SIGKILL)])
def test_worker_processes_end_with_the_one_that_started_them(number, code, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "program.py"]
    # As a shell starts it in the foreground, also where these tests run in the background
    foreground = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, cwd=tmp_path, preexec_fn=foreground)
    deadline = time.monotonic() + 60
    while len(pids := [int(path.name[4:]) for path in tmp_path.glob("pid-*")]) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(30) == code
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(pids) == 2 and not any(map(alive, pids))


def alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_cores_are_counted_where_the_system_does_not_tell_which_may_be_used(monkeypatch):
    assert cores() == len(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cores() == os.cpu_count()
