"""The engine against the naive loop, and its estimates against exact sums over all futures."""

import itertools

import numpy as np
import pytest
import torch

from sequela.model.config import ModelConfig
from sequela.model.decoder import Decoder
from sequela.rollout.engine import REASONS, Prompts, Stop, Watch, extend
from sequela.rollout.sampling import sample, seeds, uniform
from sequela.tokens.ragged import Ragged

V = 12
MINUTES = np.array([0, 0, 10, 30, 0, 0, 0, 0, 0, 0, 0, 0])
DEATH, OUTCOME = 11, 10


def model(seed=0, scale=6.0):
    """A random decoder, sharpened so that its choices differ from place to place."""
    decoder = Decoder(
        ModelConfig(V, hidden_size=32, heads=4, kv_heads=2, head_dim=8, intermediate_size=64)
    ).initialise(seed)
    with torch.no_grad():
        for weight in decoder.parameters():
            if weight.dim() > 1:
                weight.mul_(scale)
    return decoder.eval()


def prompts(count=7, seed=0, clock=0):
    random = np.random.default_rng(seed)
    rows = [np.append(1, random.integers(2, V, random.integers(1, 12))) for _ in range(count)]
    return Prompts(Ragged.of(rows), np.full(count, -clock), np.ones((count, V), bool))


def flags(*tokens):
    out = np.zeros(V, bool)
    out[list(tokens)] = True
    return out


STOP = Stop(flags(DEATH), horizon=120, limit=24)
WATCH = Watch(flags(OUTCOME)[None], flags(DEATH)[None], np.array([60]))


def run(decoder, asked, n=6, stop=STOP, watch=WATCH, **options):
    key = seeds(0, np.arange(len(asked.ids)), np.zeros(len(asked.ids), np.int64), n)
    return extend(decoder, asked, key, MINUTES, stop, watch, **options)


def naive(decoder, ids, clock, first, key, stop, watch, greedy):
    """One rollout, the whole sequence through the model for every token; the oracle."""
    ids, new, hazard, watching = list(ids), [], 0.0, True
    for step in range(stop.limit):
        with torch.inference_mode():
            logits = decoder.logits(torch.tensor([ids]))[:, -1]
        if step == 0:
            logits = logits.masked_fill(~torch.from_numpy(first), -torch.inf)
        probability = logits.softmax(-1)
        token = int(probability.argmax(-1) if greedy else sample(probability, uniform(key[None], step)))
        hazard += float(probability[0, torch.from_numpy(watch.outcome[0])].sum()) * watching
        ids.append(token)
        new.append(token)
        clock += int(MINUTES[token])
        clock = max(clock, 0) if step == 0 else clock
        watching = watching and not (watch.outcome | watch.ends)[0, token] and clock <= watch.horizon[0]
        if stop.tokens[token]:
            return new, clock, "token", hazard
        if clock > stop.horizon:
            return new, clock, "horizon", hazard
    return new, clock, "limit", hazard


@pytest.mark.parametrize("greedy", [True, False])
def test_every_rollout_equals_the_naive_loop(greedy):
    decoder, asked = model(), prompts()
    asked.first[2, :6] = False
    out = run(decoder, asked, n=4, greedy=greedy, rows=12)
    key = seeds(0, np.arange(7), np.zeros(7, np.int64), 4)
    seen = set()
    for p, r in itertools.product(range(7), range(4)):
        tokens, clock, reason, hazard = naive(
            decoder, asked.ids[p], 0, asked.first[p], key[p, r], STOP, WATCH, greedy
        )
        row = p * 4 + r
        assert out.tokens[row].tolist() == tokens
        assert (out.clock[row], REASONS[out.reason[row]]) == (clock, reason)
        assert out.hazard[row, 0] == pytest.approx(hazard, abs=1e-5)
        seen.add(reason)
    if not greedy:
        assert seen == {"token", "horizon", "limit"} or len(seen) >= 2


def test_a_rollout_depends_on_its_own_seed_alone():
    decoder, asked = model(), prompts(20)
    key = seeds(0, np.arange(20), np.zeros(20, np.int64), 8)
    whole = extend(decoder, asked, key, MINUTES, STOP, WATCH, rows=160)
    order = np.random.default_rng(1).permutation(20)
    shuffled = Prompts(asked.ids.take(order), asked.clock[order], asked.first[order])
    half = extend(decoder, shuffled, key[order][:, :3], MINUTES, STOP, WATCH, rows=7)
    for place, p in enumerate(order):
        for r in range(3):
            assert half.tokens[place * 3 + r].tolist() == whole.tokens[p * 8 + r].tolist()
    other = extend(decoder, asked, key + 1, MINUTES, STOP, WATCH)
    assert any(other.tokens[i].tolist() != whole.tokens[i].tolist() for i in range(160))  # negative control


def test_a_rollout_ends_when_its_clock_passes_the_horizon_not_when_it_reaches_it():
    decoder = model()
    only = np.zeros(V)
    only[2] = 50.0  # the token of 10 minutes, always
    bias = torch.nn.Linear(32, V)
    bias.weight.data.zero_()
    bias.bias.data = torch.tensor(only, dtype=torch.float32)
    decoder.head = bias
    out = run(decoder, prompts(1), n=1, stop=Stop(flags(DEATH), horizon=30, limit=24))
    assert out.tokens[0].tolist() == [2, 2, 2, 2] and out.clock.tolist() == [40]
    out = run(decoder, prompts(1, clock=25), n=1, stop=Stop(flags(DEATH), horizon=30, limit=24))
    assert (
        out.clock.tolist() == [40] and len(out.tokens[0]) == 5
    )  # 25 minutes ago: the first step leads to 0, not to -15
    out = run(decoder, prompts(1), n=1, stop=Stop(flags(2), horizon=30, limit=24))
    assert REASONS[out.reason[0]] == "token"
    out = run(decoder, prompts(1), n=1, stop=Stop(flags(DEATH), horizon=10**6, limit=5))
    assert REASONS[out.reason[0]] == "limit" and len(out.tokens[0]) == 5


def exact(decoder, ids, stop, watch):
    """Probability of the outcome within its horizon, and of each token at the second place: sums over all futures."""
    risk, second = 0.0, np.zeros(V)
    futures = [([], 1.0, 0, True)]
    for step in range(stop.limit):
        with torch.inference_mode():
            logits = decoder.logits(torch.tensor([[*ids, *new] for new, *_ in futures]))[:, -1]
        probability = logits.softmax(-1).double().numpy()
        grown = []
        for (new, mass, clock, watching), row in zip(futures, probability, strict=True):
            for token in range(V):
                p, now = mass * row[token], clock + int(MINUTES[token])
                if step == 1:
                    second[token] += p
                if watching and watch.outcome[0, token] and clock <= watch.horizon[0]:
                    risk += p
                if not stop.tokens[token] and now <= stop.horizon:
                    go_on = (
                        watching and not (watch.outcome | watch.ends)[0, token] and now <= watch.horizon[0]
                    )
                    grown.append(([*new, token], p, now, go_on))
        futures = grown
    return risk, second


def test_samples_and_hazards_agree_with_the_sum_over_all_futures():
    decoder, asked = model(scale=5.0), prompts(1, seed=3)
    stop = Stop(flags(DEATH), horizon=35, limit=4)
    watch = Watch(flags(OUTCOME)[None], flags(DEATH)[None], np.array([30]))
    risk, second = exact(decoder, asked.ids[0].tolist(), stop, watch)
    n = 20_000
    out = run(decoder, asked, n=n, stop=stop, watch=watch, rows=n)
    scope = out.hazard[:, 0]
    assert abs(scope.mean() - risk) < 4 * scope.std() / n**0.5
    drawn = (
        np.bincount([row[1] for row in map(out.tokens.__getitem__, range(n)) if len(row) > 1], minlength=V)
        / n
    )
    error = 4 * np.sqrt(second * (1 - second) / n) + 1e-9
    assert (np.abs(drawn - second) < error).all()
    # Negative controls: another model's samples and hazards are rejected.
    other = run(model(seed=1, scale=5.0), asked, n=n, stop=stop, watch=watch, rows=n)
    assert abs(other.hazard[:, 0].mean() - risk) > 4 * scope.std() / n**0.5
    wrong = (
        np.bincount([row[1] for row in map(other.tokens.__getitem__, range(n)) if len(row) > 1], minlength=V)
        / n
    )
    assert (np.abs(wrong - second) > error).any()
