"""Stages as data: what is read, and what is refused in a sentence."""

import pytest
import torch

from sequela.training.objectives.stages import PRESETS, Schedule, stages_of

TERMS = ("futures", "waits")
WRITTEN = [
    {"share": 0.6, "tokens": 1},
    {"share": 0.05, "tokens": 1, "futures": 1, "only_heads": True, "synced": True},
    {"share": 0.35, "tokens": 0.2, "futures": 1, "waits": 0.5},
]


def test_stages_are_tables_or_names_of_them():
    first, second, third = stages_of(WRITTEN, TERMS)
    assert (first.tokens, first.weight("futures"), first.only_heads) == (1, 0, False)
    assert second.only_heads and second.synced and not second.frozen
    assert (third.tokens, third.weight("waits")) == (0.2, 0.5)
    assert stages_of("curriculum", ("futures",))[:2] == stages_of(WRITTEN, ("futures", "waits"))[:2]
    settle = stages_of("settled", TERMS, ("rollouts",))[-1]
    assert settle.frozen and settle.synced and settle.weights == {"futures": 1, "waits": 1, "rollouts": 1}
    for name in PRESETS:
        assert sum(stage.share for stage in stages_of(name, TERMS)) == pytest.approx(1)


@pytest.mark.parametrize(
    ("stages", "why"),
    [
        ("all", "must be one of curriculum, settled"),
        ([], "must be one of"),
        (3, "must be one of"),
        ([3], "stage 1 of `stages` is 3: write a table"),
        ([{"share": 0.6, "tokens": 1}, {"share": 0.3, "tokens": 1}], "add up to 0.9: make them add up to 1"),
        ([{"share": 1, "futurs": 1}], r"has no 'futurs' \(did you mean 'futures'\?\): there are share, tokens"),
        ([{"share": 1, "tokens": 0}], "has nothing to learn: give one of tokens, futures, waits"),
        ([{"share": 1}], "has nothing to learn"),
        ([{"tokens": 1}], "has no share"),
        ([{"share": 1, "tokens": -1}], "has tokens = -1: give a number of 0 or more"),
        ([{"share": 1, "tokens": float("nan")}], "give a number"),
        ([{"share": 1, "tokens": True}], "give a number"),
        ([{"share": 1, "tokens": 1, "synced": 1}], "has synced = 1: give true or false"),
        ([{"share": 1, "tokens": 1, "only_heads": True}], "trains only heads, but none counts"),
    ],
)
def test_what_are_no_stages_is_refused(stages, why):
    with pytest.raises(ValueError, match=why):
        stages_of(stages, TERMS)


def test_a_schedule_goes_on_and_never_back():
    schedule = Schedule(stages_of(WRITTEN, TERMS))
    assert not schedule.advance(0.59) and int(schedule.number) == 0
    assert schedule.advance(0.6) and schedule.stage.only_heads
    assert not schedule.advance(0.61)  # only once
    assert not schedule.advance(0.65) and int(schedule.number) == 2
    assert not schedule.advance(0.3) and int(schedule.number) == 2
    other = Schedule(stages_of(WRITTEN, TERMS))
    other.load_state_dict(schedule.state_dict())
    assert int(other.number) == 2
    jumped = Schedule(stages_of(WRITTEN, TERMS))
    assert jumped.advance(0.9)  # a run that ends early leaves stages out, but not their copying
    assert torch.equal(jumped.number, schedule.number)


def test_a_term_that_comes_late_has_its_own_clock():
    schedule = Schedule(stages_of(WRITTEN, TERMS))
    assert schedule.late(["futures"], 0.5) == 0
    assert schedule.late(["futures"], 0.8) == pytest.approx(0.5)
    assert schedule.late(["waits"], 0.825) == pytest.approx(0.5)
    assert schedule.late(["waits"], 1.0) == pytest.approx(1)
