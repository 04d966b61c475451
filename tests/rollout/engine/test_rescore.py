"""Rollouts told again from their tokens come out as the engine told them; and so do their hazards."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sequela.model.config import ModelConfig
from sequela.model.decoder import Decoder
from sequela.rollout.budget import FixedBudget
from sequela.rollout.clock.minutes import TokenClock
from sequela.rollout.engine.decoding import DecodingBatch
from sequela.rollout.engine.engine import Engine
from sequela.rollout.engine.rescore import Rescorer, replay
from sequela.rollout.engine.rollouts import Prompts, Rollouts
from sequela.rollout.engine.sampling import Sampling, keys
from sequela.rollout.grammar_constraint import GrammarConstraint
from sequela.rollout.tracker import OutcomeTracker, StopRule, WatchedOutcomes
from sequela.tokens.ehr.grammar.fit import load_grammar
from sequela.tokens.ehr.settings import TokenSettings
from sequela.tokens.ehr.tokenize import tokenize
from sequela.tokens.ehr.tokenizer import EhrTokenizer
from sequela.tokens.ragged import Ragged

CONTEXT, LIMIT = 24, 40  # rollouts of several windows
FEW = 5


class Case:
    """A random, sharpened model of the known world's tokens, prompts of its patients, and outcomes of all sorts."""

    def __init__(self, corpus):
        tokenizer = EhrTokenizer.load(corpus)
        self.grammar = load_grammar(corpus, tokenizer)
        self.time = TokenClock.of(tokenizer)
        size = len(tokenizer.vocabulary)
        config = ModelConfig(
            size, hidden_size=32, heads=4, kv_heads=2, head_dim=8, intermediate_size=64, context=CONTEXT
        )
        self.model = Decoder(config).initialize(0)
        with torch.no_grad():
            for weight in self.model.parameters():
                if weight.dim() > 1:
                    weight.mul_(5)
        self.model.eval()
        random = np.random.default_rng(0)
        starts = np.flatnonzero((tokenizer.place == 0) | (tokenizer.place == 1))
        ids = Ragged.of([random.choice(starts, random.integers(1, 30)) for _ in range(FEW)])
        first = np.ones((FEW, size), bool)
        first[2, ::2] = False
        self.prompts = Prompts(
            ids, keys(0, np.arange(FEW), np.zeros(FEW, np.int64)), first, self.grammar.states(ids)[1],
            clock=np.array([0, -3, -500, 0, 0]),
        )  # fmt: skip
        outcome = random.random((3, size)) < 0.08
        ends = random.random((3, size)) < 0.01
        pair = self.grammar.pair_key[random.choice(len(self.grammar.pair_key), 4)]
        after = np.stack([*np.divmod(pair, size), np.array([0, 1, 2, 2])], 1)
        self.watch = WatchedOutcomes(
            outcome, ends, np.array([100_000, 10**9, 10**6]), after, np.array([False, True, False])
        )
        self.stop = StopRule(random.random(size) < 0.02, 10**6, LIMIT)

    def engine(self, well_formed=True):
        return Engine(self.model, constraint=GrammarConstraint(self.grammar, masks=well_formed))

    def tracker(self, avoid=False):
        return OutcomeTracker(self.stop, self.watch, self.time, avoid=avoid)

    def extend(self, engine, n, avoid=False, **options):
        return engine.extend(self.prompts, FixedBudget(n), self.tracker(avoid), Sampling(**options))

    def step(self, engine, **options):
        return engine.token_step(self.tracker(), Sampling(**options))

    def rescorer(self, engine):
        room = min(LIMIT, CONTEXT // 2)
        return Rescorer(
            engine.model, engine.precision, lambda ids: engine.window.cut(ids, CONTEXT - room), CONTEXT + 1
        )


@pytest.fixture(scope="module")
def case(world_meds, tmp_path_factory):
    """Codes and values apart, so that some tokens follow certain others alone."""
    corpus = tmp_path_factory.mktemp("apart")
    tokenize(world_meds, corpus, TokenSettings(fused=False))
    return Case(corpus)


@pytest.mark.parametrize("well_formed", [True, False])
@pytest.mark.parametrize("avoid", [False, True])
def test_the_engines_own_tokens_give_its_own_account(case, well_formed, avoid, monkeypatch):
    nodes, bring = {}, DecodingBatch._bring

    def spied(batch, place, reason):
        row, state = batch.rows[place], batch.state
        nodes[row.assignment.index, row.number] = int(state.node[place]), state.bits[place].tolist()
        bring(batch, place, reason)

    monkeypatch.setattr(DecodingBatch, "_bring", spied)
    engine = case.engine(well_formed=well_formed)
    out = case.extend(engine, 12, avoid)
    assert (
        len(set(out.reason)) > 1 and out.windows.max() > 1 and (avoid or out.account["happened"].any(0).all())
    )

    state, reason = replay(case.step(engine), case.prompts, out.prompt, out.number, out.tokens)
    assert reason.tolist() == out.reason.tolist()
    for name in ("clock", "happened", "watched"):
        assert (state.columns[name].numpy() == out.account[name]).all(), name
    assert (state.step.numpy() == out.tokens.lengths).all()
    told = zip(state.node.tolist(), state.bits.tolist(), strict=True)
    assert list(told) == [nodes[p, n] for p, n in zip(out.prompt, out.number, strict=True)]


def test_what_comes_after_the_end_does_not_count_and_what_is_cut_goes_on(case):
    engine = case.engine()
    out = case.extend(engine, 6)
    longer = Ragged.of([[*row, *range(5)] for row in map(out.tokens.__getitem__, range(len(out.prompt)))])
    state, reason = replay(case.step(engine), case.prompts, out.prompt, out.number, longer)
    assert (state.step.numpy() == out.tokens.lengths).all() and (reason == out.reason).all()
    shorter = Ragged.of([out.tokens[row][: max(1, n - 1)] for row, n in enumerate(out.tokens.lengths)])
    state, reason = replay(case.step(engine), case.prompts, out.prompt, out.number, shorter)
    assert ((reason == -1) == (out.tokens.lengths > 1)).all()
    assert (state.step.numpy() == shorter.lengths).all()


def test_another_clock_is_seen(case):
    """Negative control: other prompts, another account."""
    engine = case.engine()
    out = case.extend(engine, 6)
    wrong = replace(case.prompts, clock=case.prompts.clock + 700)
    state, _ = replay(case.step(engine), wrong, out.prompt, out.number, out.tokens)
    assert (state.columns["clock"].numpy() != out.account["clock"]).any()


@pytest.mark.parametrize("temperature", [1.0, 1.5])
@pytest.mark.parametrize("well_formed", [True, False])
@pytest.mark.parametrize("avoid", [False, True])
def test_one_pass_over_the_tokens_gives_the_engines_hazards(
    case, well_formed, avoid, temperature, monkeypatch
):
    engine = case.engine(well_formed=well_formed)
    out = case.extend(engine, 8, avoid, temperature=temperature)
    assert out.windows.max() > 1 and (out.account["removed"].max() > 0) == well_formed
    monkeypatch.setattr("sequela.rollout.engine.rescore.AT_ONCE", 100)  # a few rows of a prompt at a time
    rescorer, step = case.rescorer(engine), case.step(engine, temperature=temperature)
    for p in range(FEW):
        rows = np.flatnonzero(out.prompt == p)
        again = rescorer.rollouts(step, case.prompts, p, out.number[rows], out.tokens.take(rows))
        for name in ("hazard", "reached", "removed"):
            assert again.account[name] == pytest.approx(out.account[name][rows], abs=1e-4)
        assert (again.account["clock"] == out.account["clock"][rows]).all()
        for name in ("number", "windows", "reason"):
            assert (getattr(again, name) == getattr(out, name)[rows]).all(), name
        for one, row in enumerate(rows):
            assert again.tokens[one].tolist() == out.tokens[row].tolist()


def test_what_may_come_is_weighed_when_what_may_not_is_far_likelier(case):
    """At a low temperature, all that may come underflowed beside it, and a token behind the last one was drawn."""
    step = case.step(case.engine(), temperature=0.02)
    state = step.start(case.prompts, np.arange(FEW), torch.zeros(FEW, dtype=torch.int64))
    may = torch.ones(FEW, len(case.grammar.base))
    step.constraint.mask(may, state.node, state.bits)
    logits = torch.where(may > 0, torch.linspace(0, 1, may.shape[1]), 5.0)
    mass = step.weigh(logits.clone(), state, None)
    assert (may == 0).any(1).all() and (mass[may == 0] == 0).all()
    wanted = (logits / 0.02).masked_fill(may == 0, -torch.inf).softmax(-1)
    torch.testing.assert_close(mass / mass.sum(-1, keepdim=True), wanted)


def test_another_model_or_other_windows_are_seen(case):
    """Negative controls of the test above."""
    engine = case.engine()
    out = case.extend(engine, 8)
    rescorer, other = case.rescorer(engine), Decoder(case.model.config).initialize(1).eval()
    for wrong in (replace(rescorer, model=other), replace(rescorer, reach=CONTEXT)):
        again = Rollouts.joined([
            wrong.rollouts(case.step(engine), case.prompts, p, out.number[rows], out.tokens.take(rows))
            for p in range(FEW)
            for rows in [np.flatnonzero(out.prompt == p)]
        ])  # fmt: skip
        assert np.abs(again.account["hazard"] - out.account["hazard"]).max() > 1e-3


def test_the_minutes_of_all_tokens_lead_to_the_trackers_clock(case):
    out = case.extend(case.engine(), 6)
    moves = Ragged(case.time.moves_of(case.prompts, out), out.tokens.offsets)
    passed = np.array([moves[row].sum() for row in range(len(out))])
    assert (case.prompts.clock[out.prompt] + passed == out.account["clock"]).all()
    other = replace(case.prompts, key=case.prompts.key + 1)  # negative control: another stream
    assert (case.time.moves_of(other, out) != moves.flat).any()
