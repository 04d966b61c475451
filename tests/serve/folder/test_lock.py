import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sequela.serve.folder.lock import STALE, agreed, lock, try_lock


def test_a_piece_of_work_is_claimed_once_and_given_back(tmp_path):
    path = tmp_path / "run.lock"
    with try_lock(path) as first:
        with try_lock(path) as second:
            assert (first, second) == (True, False)
        assert path.exists(), "a claim that was refused takes away nobody's"
    assert not path.exists()
    with try_lock(path) as again:
        assert again


def test_an_error_gives_it_back(tmp_path):
    with pytest.raises(RuntimeError), try_lock(tmp_path / "run.lock"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_of_many_at_once_one_gets_it(tmp_path):
    def attempt(_: int) -> bool:
        with try_lock(tmp_path / "run.lock") as mine:
            time.sleep(0.3)
            return mine

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(8))) == 1


@pytest.mark.parametrize("beats", [STALE - 5, STALE + 5])
def test_what_nobody_touches_any_more_is_taken_over(tmp_path, beats):
    path = tmp_path / "run.lock"
    killed = (
        "import sys, os; from pathlib import Path; from sequela.serve.folder.lock import try_lock\n"
        "with try_lock(Path(sys.argv[1])): os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", killed, str(path)], check=False)
    past = time.time() - beats * 2.0
    os.utime(path, (past, past))
    with try_lock(path, beat=2.0) as mine:
        assert mine == (beats > STALE)


def test_an_owner_at_work_keeps_it(tmp_path):
    path = tmp_path / "run.lock"
    with try_lock(path, beat=0.05):
        time.sleep(0.05 * STALE * 2)
        with try_lock(path, beat=0.05) as other:
            assert not other


def test_all_who_ask_get_what_one_of_them_made(tmp_path):
    made = []

    def make(number: int) -> dict:
        time.sleep(0.05)
        made.append(number)
        return {"number": number}

    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda n: agreed(tmp_path / "said.json", lambda: make(n)), range(8)))
    assert len(made) == 1 and got == [{"number": made[0]}] * 8
    assert [path.name for path in tmp_path.iterdir()] == ["said.json"]


def test_a_claim_that_was_taken_over_is_not_given_back_twice(tmp_path):
    path = tmp_path / "run.lock"
    with try_lock(path):
        path.rename(tmp_path / "gone")
        path.write_text("another process")
    assert path.read_text() == "another process"


def test_waiting_for_work_that_another_has(tmp_path):
    order = []

    def work(number: int) -> None:
        with lock(tmp_path / "run.lock"):
            order.append((number, "in"))
            time.sleep(0.05)
            order.append((number, "out"))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert all(order[i][0] == order[i + 1][0] for i in range(0, 8, 2)), order
