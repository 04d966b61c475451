"""Which rollouts serve which requests, and how many each question gets."""

from dataclasses import replace
from datetime import datetime

import numpy as np
import polars as pl
import pytest

from sequela.rollout.budget import AdaptiveBudget
from sequela.rollout.pools import adaptive_budget, asked_by, avoids, budget_of, pools_of
from sequela.rollout.request import Request
from sequela.rollout.settings import SimulateSettings


def times(*patients):
    return pl.DataFrame({"subject_id": list(patients)}, schema={"subject_id": pl.Int64}).with_columns(
        prediction_time=pl.lit(datetime(2000, 1, 1)).cast(pl.Datetime("us"))
    )


def request(name, counted="first", patients=(1, 2, 3)):
    return Request(name, times(*patients), ("A",), (), 60, counted)


DEATH, LABS, RULE = request("death"), request("labs", "all"), request("rule", "none")
SCOPE, REACH, AUTO = (SimulateSettings(estimator=name, rollouts=24) for name in ("scope", "reach", "auto"))
KNOWN = replace(AUTO, overdispersion=0.01)  # scores of other patients varied little, so a pilot may be enough


def named(pools):
    return [(avoided, [one.name for one in served]) for avoided, served in pools]


def test_reach_has_a_pool_for_each_outcome_and_one_for_all_others():
    assert named(pools_of(SCOPE, [DEATH, LABS])) == [(None, ["death", "labs"])]
    assert named(pools_of(REACH, [DEATH])) == [("death", ["death"])]
    stroke = request("stroke")
    assert named(pools_of(REACH, [DEATH, LABS, stroke, RULE])) == [
        (None, ["labs", "rule"]),
        ("death", ["death"]),
        ("stroke", ["stroke"]),
    ]
    assert [avoids(one, [DEATH]) for one in (SCOPE, REACH, AUTO)] == [False, True, True]
    assert not avoids(AUTO, [DEATH, LABS])


def test_only_auto_has_a_budget_that_adapts():
    assert adaptive_budget(SCOPE, [DEATH]) is None and adaptive_budget(AUTO, [LABS, RULE]) is None
    assert adaptive_budget(AUTO, [DEATH]) == AdaptiveBudget("reach", 0.02, None, pilot=8, cap=24)
    assert adaptive_budget(AUTO, [DEATH, LABS]).estimator == "scope"


def test_who_asks():
    asked = asked_by(times(1, 2, 3), [DEATH, request("some", patients=(3,)), request("none", patients=())])
    assert asked.tolist() == [[True, False, False], [True, False, False], [True, True, False]]


@pytest.mark.parametrize("settings", [SCOPE, KNOWN], ids=["scope", "auto"])
def test_a_question_gets_rollouts_for_what_it_asks(settings):
    """None if it asks nothing; as many as its scores need if one of them is judged; otherwise a fixed number."""
    served = [DEATH, LABS]
    asked = np.array([[True, True], [False, True], [False, False]])
    budget, none = budget_of(settings, served, served, asked), (np.zeros(0, np.int64), np.zeros((0, 1)))
    sizes = [len(budget.more(question, *none)) for question in range(3)]
    assert sizes == ([24, 24, 0] if settings is SCOPE else [16, 24, 0])
    if settings is KNOWN:
        numbers, sure = np.arange(16), np.stack([0.3 + np.arange(16) / 1000, np.arange(16) / 16], 1)
        assert len(budget.more(0, numbers, sure)) < 8  # the other column varies, but is not judged
        swapped = budget_of(settings, served[::-1], served[::-1], asked[:, ::-1])
        assert len(swapped.more(0, numbers, sure)) == 8  # negative control: now that one is
