"""How often an arm is ahead: the share, and an interval that knows how few tasks there are."""

import numpy as np
import pytest

from sequela.task.probing.wins import win_rate

DRAW = np.random.default_rng(0)


def cell(task: str, gain: float, spread: float = 0.0) -> tuple[str, float, np.ndarray]:
    return task, gain, gain + spread * DRAW.normal(size=400)


def test_the_share_of_wins_and_the_mean_gain() -> None:
    found = win_rate([cell("a", 0.1), cell("a", 0.2), cell("b", -0.1), cell("c", 0.0)], seed=0)
    assert (found["cells"], found["tasks"]) == (4, 3)
    assert found["win_rate"]["value"] == pytest.approx(0.625)  # a tie is half a win
    assert found["mean_gain"]["value"] == pytest.approx(0.05)
    assert found["win_rate"]["low"] < 0.625 < found["win_rate"]["high"]


def test_an_arm_that_always_wins_does_so_whatever_is_drawn() -> None:
    found = win_rate([cell(str(task), 0.3) for task in range(5)], seed=0)
    assert found["win_rate"]["low"] == found["win_rate"]["value"] == found["win_rate"]["high"] == 1


def test_landmarks_of_one_task_are_not_as_many_tasks() -> None:
    """Ten cells of two tasks say less than ten of ten: the negative control of a bootstrap over cells."""

    def width(tasks: int) -> float:
        gains = [cell(f"{number % tasks}", 0.1 if number % 2 else -0.1) for number in range(10)]
        rate = win_rate(gains, seed=0)["win_rate"]
        return rate["high"] - rate["low"]

    assert width(2) > 1.3 * width(10) > 0


def test_patients_move_it_too() -> None:
    sure, unsure = (win_rate([cell("a", 0.1, spread)], seed=0)["win_rate"] for spread in (0.0, 0.3))
    assert sure["high"] - sure["low"] == 0 and unsure["high"] - unsure["low"] == 1
