"""The loop around vLLM, with a sampler of our own in its place; and vLLM itself where it is installed."""

from dataclasses import replace
from datetime import datetime
from importlib.util import find_spec

import numpy as np
import polars as pl
import pytest
import torch

from sequela.errors import InputError
from sequela.model import checkpoint
from sequela.model.config import ModelConfig
from sequela.model.decoder import Decoder
from sequela.record.dataset import read_events
from sequela.record.schema import DEATH as DEATH_CODE
from sequela.rollout.budget import FixedBudget
from sequela.rollout.clock.minutes import TokenClock
from sequela.rollout.engine.engine import Engine
from sequela.rollout.engine.rollouts import REASONS, Prompts
from sequela.rollout.engine.sampling import Sampling, keys
from sequela.rollout.engine.vllm import CHUNK, VllmEngine, vllm_sampler
from sequela.rollout.grammar_constraint import GrammarConstraint
from sequela.rollout.parts import simulate
from sequela.rollout.request import Request
from sequela.rollout.settings import SimulateSettings
from sequela.rollout.tracker import OutcomeTracker, StopRule, WatchedOutcomes
from sequela.tokens.ragged import Ragged
from sequela.training.loop import train
from sequela.training.settings import TrainSettings
from tests.tokens.ehr.grammar.test_grammar import told

V = 12
MINUTES = np.array([0, 0, 10, 30, 0, 0, 0, 0, 0, 0, 0, 0])
DEATH, OUTCOME = 11, 10
N = 300


def tracked(stop, watch, avoid=False):
    return OutcomeTracker(stop, watch, TokenClock.constant(MINUTES), avoid=avoid)


def flags(*tokens):
    out = np.zeros(V, bool)
    out[list(tokens)] = True
    return out


STOP = StopRule(flags(DEATH), horizon=120, limit=24)
WATCH = WatchedOutcomes(flags(OUTCOME)[None], flags(DEATH)[None], np.array([60]))
LONG = WatchedOutcomes(flags()[None], flags()[None], np.array([10**9]))  # never settled


def model(context=64):
    config = ModelConfig(
        V, hidden_size=64, heads=2, kv_heads=2, head_dim=32, intermediate_size=64, context=context
    )
    decoder = Decoder(config).initialize(0)
    with torch.no_grad():
        for weight in decoder.parameters():
            if weight.dim() > 1:
                weight.mul_(5)
    return decoder.eval()


def prompts(longest=12):
    random = np.random.default_rng(0)
    rows = [np.append(1, random.integers(2, V, random.integers(1, longest))) for _ in range(3)]
    first = np.ones((3, V), bool)
    first[1, :6] = False
    key = keys(0, np.arange(3), np.zeros(3, np.int64))
    return Prompts(Ragged.of(rows), key, first)


class Sampler:
    """Does what vLLM is asked for."""

    def __init__(self, decoder):
        self.decoder, self.asked = decoder, []

    def __call__(self, asks, temperature, stops):
        self.asked += asks
        rows, context = [list(ask.ids) for ask in asks], self.decoder.config.context
        assert all(ask.most >= 1 and len(ask.ids) + ask.most <= context for ask in asks)
        random = [torch.Generator().manual_seed(ask.seed) for ask in asks]
        live = range(len(asks))
        while live:
            longest = max(len(rows[row]) for row in live)
            ids = torch.tensor([rows[row] + [0] * (longest - len(rows[row])) for row in live])
            with torch.inference_mode():
                logits = self.decoder.logits(ids)
            for own, row in zip(logits, live, strict=True):
                rows[row].append(self.drawn(own[len(rows[row]) - 1], temperature, random[row]))
            live = [
                row
                for row in live
                if rows[row][-1] not in stops and len(rows[row]) < len(asks[row].ids) + asks[row].most
            ]
        return [row[len(ask.ids) :] for row, ask in zip(rows, asks, strict=True)]

    def drawn(self, logits, temperature, random):
        mass = (logits / (temperature or 1)).softmax(-1)
        return int(mass.argmax() if temperature == 0 else torch.multinomial(mass, 1, generator=random))


def differ(ours, theirs, name):
    """By how many standard errors the means of each prompt differ."""
    means, errors = [], []
    for out in (ours, theirs):
        rows = out.account[name].reshape(3, N).astype(float)
        means.append(rows.mean(1))
        errors.append(rows.var(1) / N)
    return np.abs(means[0] - means[1]) / np.sqrt(errors[0] + errors[1] + 1e-12)


def test_futures_that_another_samples_are_those_of_the_model():
    decoder = model()
    own = Engine(decoder)
    theirs = VllmEngine(own, Sampler(decoder)).extend(prompts(), FixedBudget(N), tracked(STOP, WATCH))
    ours = own.extend(prompts(), FixedBudget(N), tracked(STOP, WATCH))
    assert theirs.prompt.tolist() == ours.prompt.tolist() and theirs.number.tolist() == ours.number.tolist()
    for name in ("hazard", "happened", "clock"):
        assert (differ(ours, theirs, name) < 4).all(), name
    firsts = [theirs.tokens[row][0] for row in np.flatnonzero(theirs.prompt == 1)]
    assert min(firsts) >= 6
    assert (theirs.reason == REASONS.index("end")).any() and (theirs.reason == REASONS.index("settled")).any()
    died = [DEATH in theirs.tokens[row] for row in range(len(theirs.prompt))]
    assert died == (theirs.reason == REASONS.index("end")).tolist()
    late = VllmEngine(own, Sampler(decoder)).extend(
        replace(prompts(), clock=np.full(3, 61)), FixedBudget(N), tracked(STOP, WATCH)
    )
    assert (differ(ours, late, "hazard") > 4).any()  # negative control: no time is left


def test_greedy_futures_are_the_engines_own():
    decoder, long = model(context=16), replace(STOP, limit=100, horizon=10**9)
    own = Engine(decoder)
    ours = own.extend(prompts(), FixedBudget(1), tracked(replace(long, limit=6), LONG), Sampling(greedy=True))
    theirs = VllmEngine(own, Sampler(decoder)).extend(
        prompts(), FixedBudget(1), tracked(replace(long, limit=6), LONG), Sampling(greedy=True)
    )
    assert theirs.tokens.flat.tolist() == ours.tokens.flat.tolist()
    assert theirs.account["hazard"] == pytest.approx(ours.account["hazard"], abs=1e-5)


def test_more_windows_and_chunks_than_one():
    decoder, long = model(context=16), StopRule(flags(), horizon=10**9, limit=100)
    sampler = Sampler(decoder)
    own = Engine(decoder)
    out = VllmEngine(own, sampler).extend(prompts(longest=40), FixedBudget(2), tracked(long, LONG))
    assert (out.tokens.lengths == 100).all() and out.windows.min() > 2
    assert len({ask.seed for ask in sampler.asked}) == len(sampler.asked)  # no random numbers twice
    wide, sampler = model(context=256), Sampler(model(context=256))
    VllmEngine(Engine(wide), sampler).extend(prompts(), FixedBudget(2), tracked(long, LONG))
    assert max(ask.most for ask in sampler.asked) == CHUNK


def test_a_plan_gets_the_scores():
    class Doubling:
        def more(self, question, numbers, scores):
            assert scores.shape == (len(numbers), 1) and len(numbers) < 9
            return (
                np.arange(len(numbers), 2 * len(numbers) or 2)
                if len(numbers) < 8 and question
                else numbers[:0]
            )

    decoder = model()
    out = VllmEngine(Engine(decoder), Sampler(decoder)).extend(prompts(), Doubling(), tracked(STOP, WATCH))
    assert np.bincount(out.prompt, minlength=3).tolist() == [0, 8, 8]
    assert out.number[:8].tolist() == list(range(8))


def test_what_vllm_cannot_do_is_refused():
    own = Engine(model())
    with pytest.raises(InputError, match="`engine` to own"):
        VllmEngine(own, Sampler(own.model)).extend(
            prompts(), FixedBudget(1), tracked(STOP, WATCH, avoid=True)
        )
    constrained = Engine(model(), constraint=GrammarConstraint(told([["LAB//A"]])[1]))
    with pytest.raises(InputError, match="`engine` to own"):
        VllmEngine(constrained, Sampler(own.model)).extend(prompts(), FixedBudget(1), tracked(STOP, WATCH))
    for wrong in ({"estimator": "reach", "well_formed": False}, {}):
        with pytest.raises(ValueError, match="`engine` to own"):
            SimulateSettings(engine="vllm", **wrong)
    with pytest.raises(ValueError, match="choose one of own, vllm"):
        SimulateSettings(engine="theirs")


def test_a_simulation_with_it(world_meds, world_corpus, tmp_path, monkeypatch):
    trained, started = tmp_path / "model", []
    train(world_corpus, trained, TrainSettings(depth=1, context=256, batch_tokens=2048, epochs=0.2))

    def sampler(folder, precision, context):
        started.append((folder, precision, context))
        return Sampler(checkpoint.load(folder))

    monkeypatch.setattr("sequela.rollout.forecast.vllm_sampler", sampler)
    ids = read_events(world_meds, "held_out")["subject_id"].unique().sort().head(8)
    times = pl.DataFrame({"subject_id": ids}).with_columns(
        prediction_time=pl.lit(datetime(2000, 1, 5)).cast(pl.Datetime("us"))
    )
    asked = [Request(name, times, (DEATH_CODE,), (), 7 * 1440) for name in ("one", "two")]
    settings = SimulateSettings(rollouts=3, limit=40, engine="vllm", well_formed=False)
    about = simulate(trained, world_meds, tmp_path, asked, settings)
    assert started == [(trained, "fp32", 256)]
    assert about["rollouts"] == 24 and about["settings"]["engine"] == "vllm"
    rollouts = pl.read_parquet(tmp_path / "rollouts.parquet")
    known = rollouts.filter(pl.col("reason") != "limit")
    assert known["scope//one"].is_between(0, 40).all() and known["scope//one"].equals(known["scope//two"])
    with pytest.raises(InputError, match="auto for a single task"):
        simulate(trained, world_meds, tmp_path, asked[:1], replace(settings, estimator="auto", rollouts=4))


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_the_way_out_is_named(tmp_path):
    with pytest.raises(InputError, match="pip install"):
        vllm_sampler(tmp_path, "fp32", 64)


@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed: pip install vllm")
def test_vllm_itself(tmp_path):
    decoder = model()
    checkpoint.save(decoder, tmp_path)
    generate = vllm_sampler(tmp_path, "fp32", 64)
    own = Engine(decoder)
    engine = VllmEngine(own, generate)
    ours = own.extend(prompts(longest=40), FixedBudget(N), tracked(STOP, WATCH))
    theirs = engine.extend(prompts(longest=40), FixedBudget(N), tracked(STOP, WATCH))
    for name in ("hazard", "happened", "clock"):
        assert (differ(ours, theirs, name) < 4).all(), name
    assert set(theirs.reason) == set(ours.reason)
    assert min(theirs.tokens[row][0] for row in np.flatnonzero(theirs.prompt == 1)) >= 6
    short = replace(STOP, limit=6)
    greedy = [
        one.extend(prompts(), FixedBudget(1), tracked(short, LONG), Sampling(greedy=True))
        for one in (own, engine)
    ]
    assert greedy[0].tokens.flat.tolist() == greedy[1].tokens.flat.tolist()
    long = StopRule(flags(), horizon=10**9, limit=150)
    assert (engine.extend(prompts(), FixedBudget(2), tracked(long, LONG)).tokens.lengths == 150).all()
