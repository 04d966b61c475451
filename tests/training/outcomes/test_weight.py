"""Outcomes that count more leave the hazards what they are; without the offset they would not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sequela.errors import InputError
from sequela.record.schema import DEATH
from sequela.tokens.corpus import Corpus
from sequela.tokens.ehr.settings import TokenSettings
from sequela.tokens.ehr.tokenize import tokenize
from sequela.training.data import token_counts
from sequela.training.loop import train
from sequela.training.objectives.next_token import NextToken, cross_entropy
from sequela.training.outcomes.weight import class_weights, outcome_tokens
from sequela.training.parallel import ProcessGroup
from sequela.training.run import Run, RunPlan
from sequela.training.settings import TrainSettings
from tests.tokens.byte_text import ByteTokenizer

WEIGHT, SOME, DAY = 10, 8000, "TIME//1d-3d"


@pytest.fixture(scope="module")
def world(world_corpus):
    return Corpus.load(world_corpus, "train")


def hazard_of_death(world, loss):
    """Of the model of pairs of tokens with the least `loss`: the probability that death follows a day."""
    size = len(world.tokenizer.vocabulary)
    ids = world.tokens.parts[0].flat[:SOME].astype(np.int64)
    table = torch.zeros(size, size, requires_grad=True)
    solver = torch.optim.LBFGS([table], max_iter=60, line_search_fn="strong_wolfe")
    before, targets = torch.eye(size)[ids[:-1]], torch.from_numpy(ids[1:])

    def closure():
        solver.zero_grad()
        nats = loss(before, table, targets) / len(ids)
        nats.backward()
        return nats

    solver.step(closure)
    index = world.tokenizer.vocabulary.index
    return float(table.detach().t()[index[DAY]].softmax(0)[index[DEATH]])


def test_hazards_of_weighted_training_are_those_of_plain_training_and_true(world):
    """On the known world; `bench/rare_events.py` shows the same of whole runs."""
    weights = torch.from_numpy(class_weights(world, TrainSettings(outcome_weight=WEIGHT)))

    def wrong(hidden, table, targets):
        return F.cross_entropy(hidden @ table.t(), targets, weights, reduction="sum")

    plain = hazard_of_death(world, lambda *x: cross_entropy(*x)[0])
    weighted = hazard_of_death(world, lambda *x: cross_entropy(*x, weights.log())[0])
    ids, index = world.tokens.parts[0].flat[:SOME], world.tokenizer.vocabulary.index
    day = np.flatnonzero(ids[:-1] == index[DAY])
    truth = (ids[day + 1] == index[DEATH]).mean()
    assert plain == pytest.approx(truth, rel=0.01) and weighted == pytest.approx(truth, rel=0.01)
    # The planted offence
    assert hazard_of_death(world, wrong) > 0.7 * WEIGHT * truth


def test_what_is_shown_of_a_weighted_run_is_the_plain_loss(world_corpus, tmp_path):
    settings = TrainSettings(depth=1, context=64, batch_tokens=512, tokens=2000, outcome_weight=1000.0, checks=0)
    plan = RunPlan.of(world_corpus, settings)
    about = train(world_corpus, tmp_path, settings)
    objective = Run(plan, ProcessGroup()).objective
    batch = objective.collate(plan.windows, np.arange(5))
    with torch.no_grad():
        loss = objective(batch)
        plain = NextToken(objective.decoder, replace(objective.setup, class_weights=None))(batch)
    assert loss.parts[objective.unit] == pytest.approx(float(plain.total), rel=1e-5)
    assert float(loss.total) != pytest.approx(float(plain.total), rel=0.01)
    first = loss.parts[objective.unit] / batch.weight / np.log(2)
    assert about["curve_bits_per_token"][0] == pytest.approx(float(first), rel=0.05)


def test_outcomes_are_all_tokens_of_their_kinds(world_meds, world_corpus, world, tmp_path):
    names = np.array(world.tokenizer.vocabulary.tokens)
    assert names[outcome_tokens(world.tokenizer, ("diagnosis", "death"))].tolist() == [DEATH]
    for fused, count in ((False, 1), (True, 11)):
        (tmp_path / str(fused)).mkdir()
        tokenize(world_meds, tmp_path / str(fused), TokenSettings(fused=fused))
        tokenizer = Corpus.load(tmp_path / str(fused), "train").tokenizer
        found = np.flatnonzero(outcome_tokens(tokenizer, ("lab",)))
        assert len(found) == count
        assert all(tokenizer.vocabulary.tokens[token].startswith("LAB//CREATININE") for token in found)
    assert not outcome_tokens(ByteTokenizer(), ("diagnosis",)).any()
    for wrong in ("deaht", "time"):
        with pytest.raises(InputError, match=f"`outcomes` names '{wrong}'.*choose among demographic, death"):
            RunPlan.of(world_corpus, TrainSettings(outcomes=(wrong,)))


def test_class_weights_have_a_mean_of_one_over_the_training_tokens(world):
    weights, counts = class_weights(world, TrainSettings(outcome_weight=WEIGHT)), token_counts(world)
    assert weights @ counts == pytest.approx(counts.sum(), rel=1e-6)
    death = world.tokenizer.vocabulary.index[DEATH]
    assert weights[death] == pytest.approx(WEIGHT * weights[0]) and len(np.unique(weights)) == 2
    assert counts.sum() == world.tokens.lengths.sum()
    assert class_weights(world, TrainSettings()) is None
    assert class_weights(world, TrainSettings(outcome_weight=WEIGHT, outcomes=())) is None
