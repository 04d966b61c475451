"""Rates of outcomes against those of single events, and outcomes that no head can tell."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from sequela.errors import InputError
from sequela.model.hazards import ForeseenEvents, Hazards
from sequela.record.dataset import read_events
from sequela.rollout.outcomes import Outcomes
from sequela.rollout.request import Request
from sequela.rollout.values.head import ValueHead
from tests.rollout.test_outcomes import LIVED
from tests.rollout.values.conftest import EDGES, with_head
from tests.tokens.ehr.grammar.test_grammar import told

NOBODY = pl.DataFrame(schema={"subject_id": pl.Int64, "prediction_time": pl.Datetime("us")})
DEATH = Request("death", NOBODY, ("MEDS_DEATH",), (), 7 * 1440)


@pytest.fixture(scope="module")
def head(headed):
    return ValueHead.load(headed)


@pytest.fixture(scope="module")
def read(head, world_meds):
    events = read_events(world_meds, "held_out")
    asked = events.drop_nulls("time").filter(pl.col("code") == "COHORT//ENTRY").head(9)
    return head.states(events, asked.select("subject_id", prediction_time="time").sort("subject_id"))


def test_a_state_tells_the_rates_of_its_outcome_and_of_death(head, read):
    known, states = read
    assert states.shape == (9, 32) == (len(known), 32)
    with torch.no_grad():
        each = head.hazards(torch.from_numpy(states)).exp().numpy()
    death = head.rates(states, DEATH)
    np.testing.assert_allclose(death.outcome, each[:, :, 0], rtol=1e-6)
    assert (death.end == 0).all() and death.edges.tolist() == list(EDGES)
    alone = head.hazards.risk(torch.from_numpy(states), 7.0)[:, 0].detach().numpy()
    np.testing.assert_allclose(death.incidence(np.array([7.0]))[:, 0], alone, rtol=1e-5)
    entry = head.rates(states, replace(DEATH, outcome=("COHORT//ENTRY",)))
    np.testing.assert_allclose(entry.outcome, each[:, :, 1], rtol=1e-6)
    np.testing.assert_allclose(entry.end, each[:, :, 0], rtol=1e-6)  # death ends every wait
    assert states.std(0).min() > 0 and death.outcome.std() > 0  # negative control: patients differ


def test_an_outcome_of_several_events_comes_at_their_sum(head, read):
    with torch.no_grad():
        each = head.hazards(torch.from_numpy(read[1])).exp().numpy()
    lab = head.rates(read[1], replace(DEATH, outcome=("LAB//*",), ends=("COHORT//*", "MEDS_DEATH")))
    np.testing.assert_allclose(lab.outcome, each[:, :, 2:].sum(2), rtol=1e-5)
    np.testing.assert_allclose(lab.end, each[:, :, :2].sum(2), rtol=1e-5)
    both = head.rates(read[1], replace(DEATH, outcome=("MEDS_DEATH", "COHORT//ENTRY"), ends=("MEDS_DEATH",)))
    np.testing.assert_allclose(both.outcome, each[:, :, :2].sum(2), rtol=1e-6)
    assert (both.end == 0).all()  # what is the outcome is no end


def test_an_event_that_is_the_whole_set_goes_before_its_parts(head):
    """Read as it was trained, not as a sum."""
    vocabulary = head.sets.shape[1]
    tokens = np.flatnonzero(head.sets[2:].any(0))
    whole = np.zeros((1, vocabulary), bool)
    whole[0, tokens] = True
    more = replace(head, sets=np.concatenate([head.sets, whole]))
    assert more._columns(replace(DEATH, outcome=("LAB//CREATININE",)))[0] == [len(head.sets)]
    assert head._columns(replace(DEATH, outcome=("LAB//CREATININE",)))[0] == list(range(2, len(head.sets)))


def test_what_the_head_cannot_tell_is_refused(head):
    for counted in ("all", "none"):
        with pytest.raises(InputError, match="Task death: the value head tells when something first comes, not how"):
            head.rates(np.zeros((1, 32), np.float32), replace(DEATH, counted=counted))
    few = replace(head, sets=head.sets[:4])
    with pytest.raises(InputError, match=r"does not foresee LAB//CREATININE=Q2, .* and others: simulate it"):
        few.rates(np.zeros((1, 32), np.float32), replace(DEATH, outcome=("LAB//CREATININE",)))
    with pytest.raises(InputError, match="no token matches 'LAB//SODIUM'"):
        head.rates(np.zeros((1, 32), np.float32), replace(DEATH, ends=("LAB//SODIUM",)))
    ended_by_a_lab = replace(DEATH, ends=("LAB//*",))
    assert few.can(DEATH) and not few.can(ended_by_a_lab) and head.can(ended_by_a_lab)


def test_the_head_of_another_model_is_refused(rough, tmp_path):
    with pytest.raises(InputError, match="has no value head"):
        ValueHead.load(rough)
    other = with_head(rough, tmp_path / "other")
    Hazards(32, 1, (0.0,)).save(other, ForeseenEvents(("death",), ((3,),), "another"))
    with pytest.raises(InputError, match="the value head is that of another model"):
        ValueHead.load(other)
    assert not ValueHead.kept_in(rough) and ValueHead.kept_in(other)


def test_a_code_of_several_tokens_is_refused(head):
    tokenizer, grammar = told(LIVED)
    other = replace(head, outcomes=Outcomes(tokenizer, grammar), sets=np.zeros((1, len(tokenizer.vocabulary)), bool))
    with pytest.raises(InputError, match=r"'ICD10CM//E1165' takes more than one token, which the value head cannot"):
        other._tokens(("ICD10CM//E1165",), "death")
    assert other._tokens(("ICD10CM//E11*",), "death").sum() == 1  # a whole category is one token
