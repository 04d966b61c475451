"""What the rollouts are asked: the cohort, the codes and the horizon of each task."""

from pathlib import Path

import pytest

from sequela.record.errors import InputError
from sequela.record.store import read_events
from sequela.serve.requests import requests
from sequela.tasks.task import load_task


def test_one_request_a_task_with_its_own_cohort(small_meds: Path) -> None:
    tasks = [load_task("death_5y"), load_task("new_diabetes_5y")]
    death, diabetes = requests(tasks, small_meds, "held_out")
    held_out = set(read_events(small_meds, "held_out")["subject_id"])
    assert set(death.times["subject_id"]) <= held_out
    assert len(diabetes.times) < len(death.times), "those who have diabetes are not asked about a new one"
    assert (death.outcome, death.ends) == (("MEDS_DEATH",), ())
    assert diabetes.ends == ("MEDS_DEATH",)
    assert death.horizon_minutes == round(5 * 365.25 * 1440)


def test_a_few_patients_are_always_the_same(small_meds: Path) -> None:
    tasks = [load_task("death_5y")]
    (some,) = requests(tasks, small_meds, "held_out", 30)
    (again,) = requests(tasks, small_meds, "held_out", 30)
    assert 0 < len(some.times) <= 30
    assert some.times.equals(again.times)


def test_a_task_of_other_data_is_refused(small_meds: Path) -> None:
    with pytest.raises(
        InputError, match=r"nobody belongs to the cohort of the task 'remaining_stay'.*RECORD//48H"
    ):
        requests([load_task("remaining_stay")], small_meds, "held_out")
