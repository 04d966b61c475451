from dataclasses import replace

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sequela.errors import InputError
from sequela.record.duration import DAY, MINUTE
from sequela.record.timeline import Timeline, timelines
from sequela.task.task import CATALOG, catalog, load_task, matches, matches_code
from tests.task.conftest import at_day, make_events, make_task

AT = at_day(1)
YAML = """
name: mine
title: Mine
dataset: made
kind: binary
at: {after: "ENTRY", offset: 1 day}
outcome: [MEDS_DEATH]
"""


def one(*rows) -> Timeline:
    """The timeline of patient 1 from (day, code[, number])."""
    return next(timelines(make_events([(1, *row) for row in rows])))


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
    assert load_task("in_hospital_death").offset == MINUTE


def test_a_task_file_is_read_by_its_path(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(YAML)
    assert load_task(path) == load_task(str(path))
    assert load_task(path).outcome == ("MEDS_DEATH",)


def test_an_unknown_task_names_the_nearest_and_all_others():
    with pytest.raises(InputError, match="Did you mean 'death_5y'") as error:
        load_task("deth_5y")
    assert all(task.name in str(error.value) for task in catalog())


def test_an_unknown_task_far_from_all_gets_no_guess():
    with pytest.raises(InputError) as error:
        load_task("zzz")
    assert "Did you mean" not in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("kind: binary", "kind: ternary", "kind is 'ternary'"),
        ("outcome: [MEDS_DEATH]", "outcome: MEDS_DEATH", "give a list of codes"),
        ("outcome: [MEDS_DEATH]", "outcome: []", "outcome is empty"),
        ("outcome: [MEDS_DEATH]", "outcome: [FOLLOW_UP//END]", "no event"),
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
        ("title: Mine", "titel: Mine", "'titel' is no field"),
        ("title: Mine", "", "'title' is None"),
        ("name: mine", "name: ../mine", "must do as a folder's name"),
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


# The rule of the label, case by case: asked on day 1 with a horizon of 10 days, so until day 11 included.
MOMENT = 1 / DAY  # a microsecond
RULE = [
    ([(1, "STROKE"), (1, "FOLLOW_UP//END")], 1),  # at the prediction time itself
    ([(0.99, "STROKE"), (5, "FOLLOW_UP//END")], None),  # before it: history, and the follow-up too short
    ([(0.99, "STROKE"), (11, "FOLLOW_UP//END")], 0),
    ([(11, "STROKE")], 1),  # exactly at the horizon
    ([(11 + MOMENT, "STROKE")], 0),  # a moment later; followed long enough to know
    ([(5, "MEDS_DEATH"), (6, "STROKE")], 0),  # the dead have no strokes
    ([(5, "MEDS_DEATH"), (5, "STROKE")], 1),  # at the same time: the outcome counts
    ([(5, "STROKE"), (6, "MEDS_DEATH")], 1),
    ([(5, "MEDS_DEATH"), (5, "FOLLOW_UP//END")], 0),
    ([(0.5, "MEDS_DEATH"), (6, "STROKE")], 1),  # an end before the prediction time decides nothing
    ([(11 - MOMENT, "LAB//A"), (11 - MOMENT, "FOLLOW_UP//END")], None),  # a moment too short
    ([(11, "FOLLOW_UP//END")], 0),
    ([(2, "LAB//A"), (30, "LAB//A")], 0),  # without a stated end, the last event is the end
    ([(2, "LAB//A")], None),
    ([(None, "STROKE")], None),  # without a time it happened at none
]


@pytest.mark.parametrize(("rows", "answer"), RULE)
def test_the_rule(rows, answer):
    assert make_task().label(one(*rows), AT) == answer


@pytest.mark.parametrize(
    ("rows", "answer"),
    [
        ([(300, "STROKE")], 1),
        ([(300, "MEDS_DEATH")], 0),
        ([(300, "FOLLOW_UP//END")], None),
    ],
)
def test_without_a_horizon_only_events_decide(rows, answer):
    assert make_task(horizon=None).label(one(*rows), AT) == answer


def test_kind_time_counts_days():
    task = make_task(kind="time", outcome=("STROKE", "MEDS_DEATH"), ends=(), horizon=None)
    assert task.label(one((3.5, "MEDS_DEATH"), (9, "STROKE")), AT) == 2.5
    assert task.label(one((3.5, "LAB//A")), AT) is None


def test_kind_time_within_a_horizon_and_before_death():
    task = make_task(kind="time")  # ten days, and death ends
    assert task.label(one((11, "STROKE")), AT) == 10
    assert task.label(one((12, "STROKE")), AT) is None
    assert task.label(one((3, "MEDS_DEATH"), (4, "STROKE")), AT) is None
    assert task.label(one((3, "MEDS_DEATH"), (3, "STROKE")), AT) == 2


# asked on day 1 for ten days: events with numbers, then the answers of count, value, at_least 2 and above 6.5
OTHER_RULES = [
    ([(2, "STROKE", 5.0), (3, "STROKE", 7.0), (11, "FOLLOW_UP//END")], (2, 5, 1, 1)),
    ([(2, "STROKE"), (3, "STROKE", 7.0), (3, "STROKE", 8.0), (9, "FOLLOW_UP//END")], (None, 7, 1, 1)),
    ([(2, "STROKE", 6.5), (5, "MEDS_DEATH"), (6, "STROKE", 9.0)], (1, 6.5, 0, 0)),
    ([(5, "STROKE"), (5, "MEDS_DEATH")], (1, None, 0, 0)),  # at the moment of the end it counts
    ([(0.9, "STROKE", 7.0), (11.1, "STROKE", 7.0)], (0, None, 0, 0)),  # outside
    ([(None, "STROKE", 7.0), (3, "LAB//A", 7.0)], (None, None, None, None)),
]


@pytest.mark.parametrize(("rows", "answers"), OTHER_RULES)
def test_the_rules_of_counts_values_and_conditions(rows, answers):
    changes = {"kind": "count"}, {"kind": "value"}, {"at_least": 2}, {"above": 6.5}
    assert tuple(make_task(**change).label(one(*rows), AT) for change in changes) == answers


def test_a_bound_is_strict_at_the_precision_of_the_record():
    """6.7 is stored as 6.69999981: it is neither above nor below 6.7."""
    timeline = one((2, "STROKE", 6.7), (11, "FOLLOW_UP//END"))
    changes = {"above": 6.7}, {"below": 6.7}, {"above": 6.69}, {"below": 6.71}, {"above": 6.6, "below": 6.8}
    assert [make_task(**change).label(timeline, AT) for change in changes] == [0, 0, 1, 1, 1]


def test_what_a_simulation_may_stop_at_and_sum():
    expected = [
        ({}, True, True, False),
        ({"kind": "time"}, True, False, True),
        ({"kind": "count"}, False, False, True),
        ({"kind": "value"}, False, False, True),
        ({"at_least": 2}, False, False, False),
        ({"above": 6.5}, False, False, False),
        ({"kind": "time", "below": 6.5}, False, False, True),
    ]
    for change, *facts in expected:
        task = make_task(**change)
        assert [task.at_first_code, task.has_hazard, task.numeric] == facts


def test_the_fields_of_a_condition_are_read(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(YAML + "at_least: 2\nabove: 6.5\nbelow: 14\n")
    task = load_task(path)
    assert (task.at_least, task.above, task.below) == (2, 6.5, 14.0)
    path.write_text(YAML)
    assert (load_task(path).at_least, load_task(path).above) == (1, None)


def test_an_imagined_future_is_read_like_a_real_one():
    whole = one((0, "ENTRY"), (0.5, "STROKE"), (4, "STROKE"), (30, "FOLLOW_UP//END"))
    history = whole.until(AT)
    imagined = replace(whole.since(AT), end=at_day(30))
    assert make_task().label(history.then(imagined), AT) == make_task().label(whole, AT) == 1
    nothing = replace(whole.since(at_day(29)), end=at_day(12))
    assert make_task().label(history.then(nothing), AT) == 0
    assert make_task().label(history.then(replace(nothing, end=at_day(6))), AT) is None  # out of tokens


def test_the_cohort():
    events = make_events(
        [
            (1, 0, "ENTRY"), (1, 5, "ENTRY"),  # asked once, after the first
            (2, 0, "LAB//A"),  # never entered
            (3, 0, "ENTRY"), (3, 0.99, "MI//OLD"),  # excluded by its history
            (4, 0, "ENTRY"), (4, 1, "MI//OLD"),  # at the prediction time: no history
            (5, 0, "ENTRY"), (5, 0.5, "MEDS_DEATH"),  # dead before
            (6, None, "ENTRY"),  # at no time
            (7, 0, "ENTRY"), (7, None, "MI//OLD"),
            (8, 0, "ENTRY"), (8, 0.5, "FOLLOW_UP//END"),  # lost before: asked, undecidable
        ]
    )  # fmt: skip
    cohort = make_task(exclude=("MI//*",)).prediction_times(events)
    assert cohort["subject_id"].to_list() == [1, 4, 8]
    assert cohort["prediction_time"].to_physical().unique().to_list() == [AT]
    assert cohort.schema == {"subject_id": pl.Int64, "prediction_time": pl.Datetime("us")}


@given(
    st.lists(st.text("AB/*.", min_size=1, max_size=4), max_size=6),
    st.lists(
        st.text("AB/.", min_size=1, max_size=3).flatmap(lambda p: st.sampled_from([p, p + "*"])), max_size=3
    ),
)
def test_frames_and_single_codes_match_alike(codes, patterns):
    frame = pl.DataFrame({"code": codes}, schema={"code": pl.String})
    fast = frame.select(matches(tuple(patterns)))["code"].to_list()
    assert fast == [matches_code(code, tuple(patterns)) for code in codes]
