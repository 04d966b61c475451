"""Folders become arms and seeds; what cannot be compared is refused in one sentence."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sequela.errors import InputError
from sequela.task.probing.arms import read_arms, reference_of
from tests.task.conftest import START
from tests.task.probing.conftest import write_arm

QUESTIONS = pl.DataFrame({"subject_id": [1, 2, 3], "prediction_time": [START] * 3})


def made(folder: Path, *, width: int = 2, objective: str = "next_token") -> Path:
    return write_arm(folder, QUESTIONS, np.arange(3.0 * width).reshape(3, width), objective)


def test_arms_are_called_like_their_folders_and_seeds_are_numbered(tmp_path: Path) -> None:
    names = ("next_token-seed1", "next_token-seed2", "state_jepa", "run/embeddings", "icu_48")
    arms = read_arms([made(tmp_path / name, objective="time_to_event") for name in names])
    assert [(arm.name, arm.seed) for arm in arms] == [
        ("next_token", 1), ("next_token", 2), ("state_jepa", None), ("time_to_event", None), ("icu_48", None),
    ]  # fmt: skip
    assert [arm.model for arm in arms][:3] == ["next_token-seed1", "next_token-seed2", "state_jepa"]
    assert reference_of(arms, "") == "next_token" and reference_of(arms, "icu_48") == "icu_48"
    with pytest.raises(InputError, match=r"`reference` is 'x': choose one of the arms, next_token, state_jepa"):
        reference_of(arms, "x")


def test_vectors_come_in_the_order_of_the_questions(tmp_path: Path) -> None:
    (arm,) = read_arms([made(tmp_path / "a")])
    np.testing.assert_array_equal(arm.of(QUESTIONS[[2, 0]]), [[4, 5], [0, 1]])
    other = pl.concat([QUESTIONS, QUESTIONS.with_columns(subject_id=pl.lit(9, pl.Int64))])
    with pytest.raises(InputError, match=r"a has no vector of patient 9 at 2000-01-01 00:00:00 \(3 of 6 such"):
        arm.of(other)


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ("x/arm", "y/arm", r"are both called 'arm'"),
        ("arm", "arm-seed2", r"are one arm, and one of them names no seed"),
        ("trees", "arm", r"an arm called 'trees', which is what other answers are called"),
        ("sequela", "arm", r"an arm called 'sequela'"),
        ("last_values", "arm", r"an arm called 'last_values'"),
        ("strong", "arm", r"an arm called 'strong'"),
        ("arm_cox", "arm", r"an arm called 'arm_cox'"),
    ],
)
def test_names_that_would_be_confused_are_refused(tmp_path: Path, first: str, second: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_arms([made(tmp_path / first), made(tmp_path / second)])


def test_seeds_of_other_widths_are_no_seeds(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"of other widths: embed both with the same settings"):
        read_arms([made(tmp_path / "arm-seed1"), made(tmp_path / "arm-seed2", width=3)])
    assert len(read_arms([made(tmp_path / "arm-seed3"), made(tmp_path / "other", width=3)])) == 2
