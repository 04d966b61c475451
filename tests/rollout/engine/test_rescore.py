"""Rollouts told again from their tokens come out as the engine told them; and so do their hazards."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sequela.model.config import ModelConfig
from sequela.model.decoder import Decoder
from sequela.rollout.budget import FixedBudget
from sequela.rollout.engine.decoding import Lane
from sequela.rollout.engine.engine import Engine
from sequela.rollout.engine.queue import Prompts
from sequela.rollout.engine.rescore import Reader, replay
from sequela.rollout.engine.sampling import keys
from sequela.rollout.tracker import REASONS, Stop, Watch, Watching
from sequela.tokens.ehr.grammar.fit import load_grammar
from sequela.tokens.ehr.tokenizer import EhrTokenizer
from sequela.tokens.ragged import Ragged

CONTEXT, LIMIT = 24, 40  # rollouts of several windows
FEW = 5


class Case:
    """A random, sharpened model of the known world's tokens, prompts of its patients, and outcomes of all sorts."""

    def __init__(self, corpus):
        tokenizer = EhrTokenizer.load(corpus)
        self.grammar = load_grammar(corpus, tokenizer)
        self.minutes = tokenizer.minutes_V
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
            ids, np.array([0, -3, -500, 0, 0]), first, keys(0, np.arange(FEW), np.zeros(FEW, np.int64)),
            self.grammar.states(ids)[1],
        )  # fmt: skip
        outcome = random.random((3, size)) < 0.04
        ends = random.random((3, size)) < 0.01
        pair = self.grammar.pair_key[random.choice(len(self.grammar.pair_key), 4)]
        after = np.stack([*np.divmod(pair, size), np.array([0, 1, 2, 2])], 1)
        self.watch = Watch(
            outcome, ends, np.array([100_000, 10**9, 10**6]), after, np.array([False, True, False])
        )
        self.stop = Stop(random.random(size) < 0.02, 10**6, LIMIT)

    def engine(self, **options):
        return Engine(self.model, self.minutes, grammar=self.grammar, **options)

    def watching(self, engine, **options):
        chosen = {"mask": engine.well_formed, "avoid": False, "temperature": 1.0, "greedy": False} | options
        return Watching(self.stop, self.watch, engine.minutes, engine.automaton, **chosen)

    def reader(self, engine):
        room = min(LIMIT, CONTEXT // 2)
        return Reader(
            engine.model, engine.precision, lambda ids: engine.cut(ids, CONTEXT - room), CONTEXT + 1
        )


@pytest.fixture(scope="module")
def case(world_corpus):
    return Case(world_corpus)


@pytest.mark.parametrize("well_formed", [True, False])
@pytest.mark.parametrize("avoid", [False, True])
def test_the_engines_own_tokens_give_its_own_account(case, well_formed, avoid, monkeypatch):
    nodes, bring = {}, Lane._bring

    def spied(lane, place, reason):
        row, state = lane.rows[place], lane.state
        nodes[row.prompt.place, row.number] = int(state.node[place]), state.bits[place].tolist()
        bring(lane, place, reason)

    monkeypatch.setattr(Lane, "_bring", spied)
    engine = case.engine(well_formed=well_formed)
    out = engine.extend(case.prompts, FixedBudget(12), case.stop, case.watch, avoid=avoid)
    assert len(set(out.reason)) > 1 and out.windows.max() > 1 and (avoid or out.happened.any(0).all())

    state, reason = replay(case.watching(engine), case.prompts, out.prompt, out.tokens)
    assert reason.tolist() == out.reason.tolist()
    for name in ("clock", "happened", "watched"):
        assert (getattr(state, name).numpy() == getattr(out, name)).all(), name
    assert (state.step.numpy() == out.tokens.lengths).all()
    told = zip(state.node.tolist(), state.bits.tolist(), strict=True)
    assert list(told) == [nodes[p, n] for p, n in zip(out.prompt, out.number, strict=True)]


def test_what_comes_after_the_end_does_not_count_and_what_is_cut_goes_on(case):
    engine = case.engine()
    out = engine.extend(case.prompts, FixedBudget(6), case.stop, case.watch)
    longer = Ragged.of([[*row, *range(5)] for row in map(out.tokens.__getitem__, range(len(out.prompt)))])
    state, reason = replay(case.watching(engine), case.prompts, out.prompt, longer)
    assert (state.step.numpy() == out.tokens.lengths).all() and (reason == out.reason).all()
    shorter = Ragged.of([out.tokens[row][: max(1, n - 1)] for row, n in enumerate(out.tokens.lengths)])
    state, reason = replay(case.watching(engine), case.prompts, out.prompt, shorter)
    assert ((reason == -1) == (out.tokens.lengths > 1)).all()
    assert (state.step.numpy() == shorter.lengths).all()


def test_another_clock_is_seen(case):
    """Negative control: other prompts, another account."""
    engine = case.engine()
    out = engine.extend(case.prompts, FixedBudget(6), case.stop, case.watch)
    wrong = replace(case.prompts, clock=case.prompts.clock + 700)
    state, _ = replay(case.watching(engine), wrong, out.prompt, out.tokens)
    assert (state.clock.numpy() != out.clock).any()


@pytest.mark.parametrize("temperature", [1.0, 1.5])
@pytest.mark.parametrize("well_formed", [True, False])
@pytest.mark.parametrize("avoid", [False, True])
def test_one_pass_over_the_tokens_gives_the_engines_hazards(
    case, well_formed, avoid, temperature, monkeypatch
):
    engine = case.engine(well_formed=well_formed)
    out = engine.extend(
        case.prompts, FixedBudget(8), case.stop, case.watch, avoid=avoid, temperature=temperature
    )
    assert out.windows.max() > 1 and (out.removed.max() > 0) == well_formed
    monkeypatch.setattr("sequela.rollout.engine.rescore.AT_ONCE", 100)  # a few rows of a prompt at a time
    reader, watching = case.reader(engine), case.watching(engine, temperature=temperature)
    for p in range(FEW):
        rows = np.flatnonzero(out.prompt == p)
        ended = reader.ended(watching, case.prompts, p, out.number[rows], out.tokens.take(rows))
        for one, row in zip(ended, rows, strict=True):
            assert one.hazard == pytest.approx(out.hazard[row], abs=1e-4)
            assert one.reached == pytest.approx(out.reached[row], abs=1e-4)
            assert one.removed == pytest.approx(out.removed[row], abs=1e-4)
            assert (one.number, one.windows, one.clock) == (out.number[row], out.windows[row], out.clock[row])
            assert REASONS[one.reason] == REASONS[out.reason[row]]
            assert one.tokens == out.tokens[row].tolist()


def test_another_model_or_other_windows_are_seen(case):
    """Negative controls of the test above."""
    engine = case.engine()
    out = engine.extend(case.prompts, FixedBudget(8), case.stop, case.watch)
    reader, other = case.reader(engine), Decoder(case.model.config).initialize(1).eval()
    for wrong in (replace(reader, model=other), replace(reader, reach=CONTEXT)):
        ended = [
            one
            for p in range(FEW)
            for rows in [np.flatnonzero(out.prompt == p)]
            for one in wrong.ended(
                case.watching(engine), case.prompts, p, out.number[rows], out.tokens.take(rows)
            )
        ]
        assert np.abs(np.stack([one.hazard for one in ended]) - out.hazard).max() > 1e-3
