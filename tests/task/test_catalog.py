import pytest

from sequela.errors import InputError
from sequela.record.duration import DAY, MINUTE
from sequela.task.catalog import CATALOG, catalog, load_task, load_tasks

YAML = """
name: mine
title: Mine
dataset: made
kind: binary
at: {after: "ENTRY", offset: 1 day}
outcome: [MEDS_DEATH]
"""


def test_the_catalog_holds_tasks_under_their_own_names():
    tasks = catalog()
    names = [task.name for task in tasks]
    assert names == [path.stem for path in sorted(CATALOG.glob("*.yaml"))]
    assert {task.dataset for task in tasks} == {"nafld", "physionet2012", "inspect", "oncology"}
    bundled = {task.name for task in tasks if task.dataset in ("nafld", "physionet2012")}
    assert bundled == {
        "death_5y",
        "new_diabetes_5y",
        "new_hypertension_5y",
        "new_cardiovascular_5y",
        "in_hospital_death",
        "remaining_stay",
    }


def test_five_years_are_of_mean_length():
    assert load_task("death_5y").horizon == round(5 * 365.25 * DAY)
    assert load_task("in_hospital_death").horizon is None
    assert load_task("in_hospital_death").cohort.offset == MINUTE


def test_the_tasks_of_inspect_and_of_a_cancer_registry():
    days = {task.name: task.horizon / DAY for task in catalog() if task.dataset in ("inspect", "oncology")}
    assert days == {
        "inspect_death_30d": 30, "inspect_death_180d": 180, "inspect_death_365d": 365,
        "inspect_readmission_30d": 30, "inspect_readmission_180d": 180, "inspect_readmission_365d": 365,
        "inspect_pulmonary_hypertension_365d": 365,
        "cancer_progression_180d": 180, "cancer_regimen_change_365d": 365, "cancer_toxicity_90d": 90,
    }  # fmt: skip
    assert all(load_task(name).cohort.occurrence == "all" and load_task(name).cohort.offset == 0 for name in days)


def test_a_task_file_is_read_by_its_path(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(YAML)
    assert load_task(path) == load_task(str(path))
    assert load_task(path).outcome == ("MEDS_DEATH",)


def test_an_unknown_task_names_the_nearest_and_all_others():
    with pytest.raises(InputError, match="did you mean 'death_5y'") as error:
        load_task("deth_5y")
    assert all(task.name in str(error.value) for task in catalog())


def test_an_unknown_task_far_from_all_gets_no_guess():
    with pytest.raises(InputError) as error:
        load_task("zzz")
    assert "did you mean" not in str(error.value)


def test_a_task_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="is not there"):
        load_task(tmp_path / "none.yaml")


def write(path, text: str):
    path.write_text(text)
    return path


def test_a_task_named_twice_is_one(tmp_path):
    path = write(tmp_path / "mine.yaml", YAML)
    copy = write(tmp_path / "copy.yml", "# the same\n" + YAML)
    assert load_tasks([path, "death_5y", str(path), copy, "death_5y"]) == load_tasks([path, "death_5y"])
    assert [task.name for task in load_tasks(["remaining_stay", "death_5y"])] == [
        "remaining_stay",
        "death_5y",
    ]


def test_two_tasks_of_one_name_are_refused(tmp_path):
    one = write(tmp_path / "one.yaml", YAML)
    for text in (YAML + "horizon: 1 year", YAML.replace("name: mine", "name: MINE")):
        with pytest.raises(InputError, match=r"are two tasks of one name, .*: give one of them another name"):
            load_tasks([one, write(tmp_path / "two.yaml", text)])
    with pytest.raises(InputError, match=r"death_5y and .*two\.yaml are two tasks of one name"):
        load_tasks(["death_5y", write(tmp_path / "two.yaml", YAML.replace("name: mine", "name: death_5y"))])
