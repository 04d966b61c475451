from dataclasses import replace

import pytest

from sequela.record.duration import DAY
from sequela.record.timeline import Timeline, timelines
from tests.task.conftest import at_day, make_events, make_task

AT = at_day(1)


def one(*rows) -> Timeline:
    """The timeline of patient 1 from (day, code[, number])."""
    return next(timelines(make_events([(1, *row) for row in rows])))


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
        assert [task.counted == "first", task.has_hazard, task.asks.numeric] == facts


def test_an_imagined_future_is_read_like_a_real_one():
    whole = one((0, "ENTRY"), (0.5, "STROKE"), (4, "STROKE"), (30, "FOLLOW_UP//END"))
    history = whole.until(AT)
    imagined = replace(whole.since(AT), end=at_day(30))
    assert make_task().label(history.then(imagined), AT) == make_task().label(whole, AT) == 1
    nothing = replace(whole.since(at_day(29)), end=at_day(12))
    assert make_task().label(history.then(nothing), AT) == 0
    assert make_task().label(history.then(replace(nothing, end=at_day(6))), AT) is None  # out of tokens
