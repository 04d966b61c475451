import pytest

from sequela.errors import InputError
from sequela.record.duration import DAY, MINUTE
from sequela.task.catalog import CATALOG, catalog, load_task

YAML = """
name: mine
title: Mine
dataset: made
kind: binary
at: {after: "ENTRY", offset: 1 day}
outcome: [MEDS_DEATH]
"""


def test_the_catalog_holds_the_six_tasks_under_their_own_names():
    names = [task.name for task in catalog()]
    assert names == [path.stem for path in sorted(CATALOG.glob("*.yaml"))]
    assert set(names) == {
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


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("kind: binary", "kind: ternary", "kind is 'ternary'"),
        ("outcome: [MEDS_DEATH]", "outcome: MEDS_DEATH", "give a list of codes"),
        ("outcome: [MEDS_DEATH]", "outcome: []", "outcome is empty"),
        ("outcome: [MEDS_DEATH]", "outcome: [FOLLOW_UP//END]", "not an event"),
        ("outcome: [MEDS_DEATH]", "outcome: [MEDS_DEATH]\nends: [MEDS_DEATH]", "an outcome and an end"),
        ("outcome: [MEDS_DEATH]", "outcome: [MEDS_DEATH]\nhorizon: 5", "horizon is '5'"),
        ("outcome: [MEDS_DEATH]", "outcome: [MEDS_DEATH]\nhorizon: 5 aeons", "such as '5 years'"),
        ("outcome: [MEDS_DEATH]", "outcome: [MEDS_DEATH]\nhorizon: -5 days", "such as '5 years'"),
        ("kind: binary", "kind: count", "kind count needs a horizon"),
        ("kind: binary", "kind: value", "kind value needs a horizon"),
        ("kind: binary", "kind: count\nhorizon: 1 year\nat_least: 2", "kinds binary and time; leave it out"),
        ("kind: binary", "kind: binary\nat_least: 0", "'at_least' is 0"),
        ("kind: binary", "kind: binary\nat_least: 1.5", "'at_least' is 1.5"),
        ("kind: binary", "kind: binary\nabove: high", "'above' is 'high'"),
        ("kind: binary", "kind: binary\nbelow: .nan", "'below' is nan"),
        ("kind: binary", "kind: binary\nabove: 7\nbelow: 7", "no number is above 7.0 and below 7.0"),
        ("offset: 1 day", "offset: one day", "offset is 'one day'"),
        ("after:", "before:", "write at as"),
        ("offset: 1 day", "offset: 1 day, occurrence: last", "occurrence is 'last'; it is one of first, all"),
        ("title: Mine", "titel: Mine", "'titel' is not a field of a task (did you mean 'title'?)"),
        ("title: Mine", "", "'title' is None"),
        ("name: mine", "name: ../mine", "must be usable as a folder name"),
        ("name: mine", "name: [", "is not YAML"),
    ],
)
def test_a_bad_task_file_says_what_to_mend(tmp_path, old, new, words):
    path = tmp_path / "mine.yaml"
    assert old in YAML
    path.write_text(YAML.replace(old, new))
    with pytest.raises(InputError) as error:
        load_task(path)
    assert words in str(error.value)
    assert str(path) in str(error.value)


def test_a_task_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="is not there"):
        load_task(tmp_path / "none.yaml")


def test_the_fields_of_a_condition_are_read(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(YAML + "at_least: 2\nabove: 6.5\nbelow: 14\n")
    task = load_task(path)
    assert (task.event.at_least, task.event.above, task.event.below) == (2, 6.5, 14.0)
    path.write_text(YAML)
    assert (load_task(path).event.at_least, load_task(path).event.above) == (1, None)


def test_a_task_may_ask_at_every_occurrence(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(YAML.replace("offset: 1 day", "offset: 1 day, occurrence: all"))
    assert load_task(path).cohort.occurrence == "all"
    path.write_text(YAML)
    assert load_task(path).cohort.occurrence == "first"
