"""The engine against the naive loop, and its estimates against exact sums over all futures."""

import itertools
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sequela.errors import InputError
from sequela.model.config import ModelConfig
from sequela.model.decoder import Decoder
from sequela.model.precision import has_bf16
from sequela.rollout.budget import FixedBudget
from sequela.rollout.clock.minutes import TokenClock
from sequela.rollout.engine import engine as module
from sequela.rollout.engine.engine import Engine
from sequela.rollout.engine.rollouts import REASONS, Prompts
from sequela.rollout.engine.sampling import Sampling, keys, openings, sample, seeds, uniform
from sequela.rollout.tracker import OutcomeTracker, StopRule, WatchedOutcomes
from sequela.tokens.ragged import Ragged

V = 12
MINUTES = np.array([0, 0, 10, 30, 0, 0, 0, 0, 0, 0, 0, 0])
DEATH, OUTCOME = 11, 10


def model(seed=0, scale=6.0, context=1024):
    """A random decoder, sharpened so that its choices differ from place to place."""
    config = ModelConfig(
        V, hidden_size=32, heads=2, kv_heads=1, head_dim=16, intermediate_size=64, context=context
    )
    decoder = Decoder(config).initialize(seed)
    with torch.no_grad():
        for weight in decoder.parameters():
            if weight.dim() > 1:
                weight.mul_(scale)
    return decoder.eval()


def prompts(count=7, seed=0, clock=0, longest=12):
    random = np.random.default_rng(seed)
    rows = [np.append(1, random.integers(2, V, random.integers(1, longest))) for _ in range(count)]
    key = keys(0, np.arange(count), np.zeros(count, np.int64))
    return Prompts(Ragged.of(rows), key, np.ones((count, V), bool), clock=np.full(count, -clock))


def flags(*tokens):
    out = np.zeros(V, bool)
    out[list(tokens)] = True
    return out


STOP = StopRule(flags(DEATH), horizon=120, limit=24)
# Two outcomes: the naive loop follows the first; the other one, never settled, keeps rollouts going
WATCH = WatchedOutcomes(
    np.stack([flags(OUTCOME), flags()]), np.stack([flags(DEATH), flags()]), np.array([60, 10**9])
)
ALONE = WatchedOutcomes(flags(OUTCOME)[None], flags(DEATH)[None], np.array([60]))


def tracked(stop=STOP, watch=WATCH, avoid=False):
    return OutcomeTracker(stop, watch, TokenClock.constant(MINUTES), avoid=avoid)


def run(decoder, asked, n=6, stop=STOP, watch=WATCH, precision="fp32", avoid=False, **options):
    engine = Engine(decoder, precision=precision)
    return engine.extend(asked, FixedBudget(n), tracked(stop, watch, avoid), Sampling(**options))


def seed_of(asked, prompt, number):
    return seeds(torch.tensor(asked.key[[prompt]]), torch.tensor([number]))


def naive(decoder, ids, clock, first, seed, stop, watch, greedy=False, avoid=False, opening=None):
    """One rollout, the whole window through the model for every token; the oracle."""
    whole, new, hazard, spared, watching = list(ids), [], 0.0, 1.0, True
    context = decoder.config.context
    room = min(stop.limit, context // 2)
    window = whole[-(context - room) :]
    happened = 0
    outcome = torch.from_numpy(watch.outcome[0])
    for step in range(stop.limit):
        if len(window) > context:
            window = whole[-(context - room) :]
        with torch.inference_mode():
            logits = decoder.logits(torch.tensor([window]))[:, -1]
        if step == 0:
            logits = logits.masked_fill(~torch.from_numpy(first), -torch.inf)
        probability = logits.softmax(-1)
        h = float(probability[0, outcome].sum())
        hazard += h * watching
        spared *= 1 - h * watching
        if avoid and watching:
            probability = probability.masked_fill(outcome, 0)
        drawn = opening if step == 0 and opening is not None else uniform(seed, torch.tensor([step]))
        token = int(probability.argmax(-1) if greedy else sample(probability, drawn))
        whole.append(token)
        window = [*window, token]
        new.append(token)
        clock += int(MINUTES[token])
        clock = max(clock, 0) if step == 0 else clock
        happened += bool(watch.outcome[0, token]) and watching
        watching = watching and not (watch.outcome | watch.ends)[0, token] and clock <= watch.horizon[0]
        settled = not watching and len(watch.horizon) == 1
        reason = "limit"
        if stop.tokens[token]:
            reason = "end"
        elif clock > stop.horizon:
            reason = "horizon"
        elif settled:
            reason = "settled"
        if reason != "limit":
            break
    return new, clock, reason, hazard, 1 - spared, happened


def same_as_naive(decoder, asked, out, stop, n, watch=WATCH, stratified=False, **options):
    """The reasons that were seen, after every rollout was compared with the naive loop."""
    seen = set()
    for row, (p, r) in enumerate(itertools.product(range(len(asked.ids)), range(n))):
        if stratified:
            options["opening"] = openings(torch.tensor(asked.key[[p]]), torch.tensor([r]))
        tokens, clock, reason, hazard, reached, happened = naive(
            decoder,
            asked.ids[p],
            int(asked.clock[p]),
            asked.first[p],
            seed_of(asked, p, r),
            stop,
            watch,
            **options,
        )
        assert (out.prompt[row], out.number[row]) == (p, r)
        assert out.tokens[row].tolist() == tokens
        assert (out.account["clock"][row], REASONS[out.reason[row]]) == (clock, reason)
        assert out.account["hazard"][row, 0] == pytest.approx(hazard, abs=1e-5)
        assert out.account["reached"][row, 0] == pytest.approx(reached, abs=1e-5)
        assert out.account["happened"][row, 0] == happened
        seen.add(reason)
    return seen


@pytest.mark.parametrize("rows", [1, 12, 128])
@pytest.mark.parametrize(
    "options",
    [{"greedy": True}, {}, {"watch": ALONE}, {"watch": ALONE, "avoid": True}, {"stratified": True}],
    ids=["greedy", "", "alone", "avoid", "stratified"],
)
def test_every_rollout_equals_the_naive_loop(options, rows):
    decoder, asked = model(), prompts()
    asked.first[2, :6] = False
    out = run(decoder, asked, n=4, rows=rows, **options)
    seen = same_as_naive(decoder, asked, out, STOP, 4, **options)
    if options == {"watch": ALONE}:
        assert seen == {"settled", "end"} or len(seen) >= 2
        # What ends a rollout comes at a moment at which the outcome still could
        closed = [REASONS.index("limit"), REASONS.index("end")]
        assert (
            out.account["happened"].any()
            and (out.account["watched"][:, 0] <= np.isin(out.reason, closed)).all()
        )
    if "avoid" in options:
        assert not out.account["happened"].any()


@pytest.mark.parametrize("limit", [3, 9, 40, 100])
def test_a_full_context_goes_on_in_a_new_window(limit):
    """Equal to the naive loop, for prompts longer than the context and rollouts several times as long."""
    decoder, asked = model(context=16), prompts(5, longest=40)
    stop = StopRule(flags(DEATH), horizon=10**9, limit=limit)
    out = run(decoder, asked, n=3, stop=stop, rows=6)
    same_as_naive(decoder, asked, out, stop, 3)
    assert (out.windows.max() > 2) == (limit >= 40) and (limit > 8 or out.windows.max() == 0)
    wrong = run(model(context=18), asked, n=3, stop=stop, rows=6)  # negative control: another window
    assert any(wrong.tokens[i].tolist() != out.tokens[i].tolist() for i in range(15))


def test_an_engine_in_bf16_that_the_processor_lacks_is_refused_in_a_sentence(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    with pytest.raises(InputError, match="no bf16 matrix products"):
        Engine(model(), precision="bf16")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_rollout_depends_on_its_own_seed_alone(precision):
    """Bit for bit: not on neighbours, the order of the cohort, how many rows go at once, or the number of threads."""
    if precision == "bf16" and not has_bf16("cpu"):
        pytest.skip("this processor has no bf16 products")
    decoder, asked = model(), prompts(12)
    order = np.random.default_rng(1).permutation(12)
    threads = torch.get_num_threads()
    runs = []
    try:
        for number, n, rows in ((1, 8, 96), (3, 8, 7), (2, 5, 1)):
            torch.set_num_threads(number)
            runs.append(
                run(decoder, asked.take(order) if n == 5 else asked, n=n, rows=rows, precision=precision)
            )
    finally:
        torch.set_num_threads(threads)
    whole, threaded, half = runs
    assert (whole.tokens.flat == threaded.tokens.flat).all() and (
        whole.account["hazard"] == threaded.account["hazard"]
    ).all()
    for place, p in enumerate(order):
        for r in range(5):
            assert half.tokens[place * 5 + r].tolist() == whole.tokens[p * 8 + r].tolist()
            assert (half.account["hazard"][place * 5 + r] == whole.account["hazard"][p * 8 + r]).all()
    other = run(decoder, replace(asked, key=asked.key + 1), n=8, precision=precision)
    assert any(other.tokens[i].tolist() != whole.tokens[i].tolist() for i in range(96))  # negative control


def test_a_rollout_ends_when_its_clock_passes_the_horizon_not_when_it_reaches_it():
    decoder = model()
    only = np.zeros(V)
    only[2] = 50.0  # the token of 10 minutes, always
    bias = torch.nn.Linear(32, V)
    bias.weight.data.zero_()
    bias.bias.data = torch.tensor(only, dtype=torch.float32)
    decoder.head = bias
    out = run(decoder, prompts(1), n=1, stop=StopRule(flags(DEATH), horizon=30, limit=24))
    assert out.tokens[0].tolist() == [2, 2, 2, 2] and out.account["clock"].tolist() == [40]
    out = run(decoder, prompts(1, clock=25), n=1, stop=StopRule(flags(DEATH), horizon=30, limit=24))
    assert (
        out.account["clock"].tolist() == [40] and len(out.tokens[0]) == 5
    )  # 25 minutes ago: the first step leads to 0, not to -15
    out = run(decoder, prompts(1), n=1, stop=StopRule(flags(2), horizon=30, limit=24))
    assert REASONS[out.reason[0]] == "end"
    out = run(decoder, prompts(1), n=1, stop=StopRule(flags(DEATH), horizon=10**6, limit=5))
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
    stop = StopRule(flags(DEATH), horizon=35, limit=4)
    watch = replace(WATCH, horizon=np.array([30, 10**9]))
    risk, second = exact(decoder, asked.ids[0].tolist(), stop, watch)
    n = 20_000
    out = run(decoder, asked, n=n, stop=stop, watch=watch, rows=2048)
    scope = out.account["hazard"][:, 0]
    assert abs(scope.mean() - risk) < 4 * scope.std() / n**0.5
    happened = out.account["happened"][:, 0]
    assert abs(happened.mean() - risk) < 4 * happened.std() / n**0.5
    reach = run(decoder, asked, n=n, stop=stop, watch=watch, rows=2048, avoid=True).account["reached"][:, 0]
    assert abs(reach.mean() - risk) < 4 * reach.std() / n**0.5
    assert reach.var() <= risk * (1 - risk)
    drawn = (
        np.bincount([row[1] for row in map(out.tokens.__getitem__, range(n)) if len(row) > 1], minlength=V)
        / n
    )
    error = 4 * np.sqrt(second * (1 - second) / n) + 1e-9
    assert (np.abs(drawn - second) < error).all()
    # Negative controls: another model's samples and hazards are rejected.
    other = run(model(seed=1, scale=5.0), asked, n=n, stop=stop, watch=watch, rows=2048)
    assert abs(other.account["hazard"][:, 0].mean() - risk) > 4 * scope.std() / n**0.5
    wrong = (
        np.bincount([row[1] for row in map(other.tokens.__getitem__, range(n)) if len(row) > 1], minlength=V)
        / n
    )
    assert (np.abs(wrong - second) > error).any()


CLINICAL = re.compile(
    r"patient|histor(y|ies)|clinic|hospital|diagnos|disease|death|drug|medic(al|ine)|\b(ehr|icd|meds)\b",
    re.IGNORECASE,
)


def clinical_words(folder):
    """Lines of the modules in a folder that speak of medicine."""
    lines = [(path.name, line) for path in folder.glob("*.py") for line in path.read_text().splitlines()]
    return [(name, line) for name, line in lines if CLINICAL.search(line)]


def test_the_engine_knows_no_clinical_word(tmp_path):
    assert clinical_words(Path(module.__file__).parent) == []
    (tmp_path / "planted.py").write_text("# until the patient dies\n")  # negative control
    assert clinical_words(tmp_path) == [("planted.py", "# until the patient dies")]
