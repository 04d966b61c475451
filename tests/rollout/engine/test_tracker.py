"""Plain text through the engine: log-probabilities, stop texts, and a constraint of the test's own."""

import re

import numpy as np
import pytest
import torch

from sequela.model.config import ModelConfig
from sequela.model.decoder import Decoder
from sequela.rollout.budget import FixedBudget
from sequela.rollout.engine.engine import Engine
from sequela.rollout.engine.processes import EngineProcesses
from sequela.rollout.engine.rollouts import REASONS, Prompts
from sequela.rollout.engine.sampling import Sampling, keys
from sequela.rollout.engine.tracker import PlainTracker, no_rollouts, text_search
from sequela.tokens.ragged import Ragged

PIECES = [
    *(bytes([byte]) for byte in range(256)),
    b"ab",
    b"abc",
    b"cab",
    b"\n\n",
    b"",
]  # and one that is no text
V, END = len(PIECES), len(PIECES) - 1
DIGITS = np.array([piece.isdigit() for piece in PIECES])


def model(seed=0, context=128):
    config = ModelConfig(
        V, hidden_size=32, heads=2, kv_heads=1, head_dim=16, intermediate_size=64, context=context
    )
    decoder = Decoder(config).initialize(seed)
    with torch.no_grad():
        for weight in decoder.parameters():
            if weight.dim() > 1:
                weight.mul_(4)
    return decoder.eval()


def engine(constraint=None):
    return Engine(model(), constraint=constraint)


def prompts(*texts):
    ids = Ragged.of([list(text) for text in texts])
    return Prompts(ids, keys(0, np.arange(len(texts)), np.zeros(len(texts), np.int64)))


TEXTS = prompts(b"the heart of the matter", b"x", b"1 + 1 = ", b"chest pain since")


def tracker(limit=40, stop_texts=(), ends=()):
    stops = np.zeros(V, bool)
    stops[list(ends)] = True
    return PlainTracker(limit, stops, stop_texts, PIECES)


class OnlyDigits:
    """A constraint: a digit first, then digits; a bit says that a 7 came, after which only a 7 may come."""

    masks = True

    def __init__(self):
        self.digits, self.seven = torch.from_numpy(DIGITS), torch.arange(V) == ord("7")

    def mask(self, mass, node, bits):
        before = mass.sum(-1)
        mass *= torch.where(node[:, None] == 1, self.seven, self.digits)
        return 1 - mass.sum(-1) / before

    def advance(self, node, bits, token):
        return node | (token == ord("7")), bits


def text_of(rollouts, row):
    return b"".join(PIECES[token] for token in rollouts.tokens[row])


def naive_log_probabilities(decoder, rollouts, asked, temperature=1.0, allowed=None):
    """Each token's, by one forward pass over everything before it."""
    out = []
    for row in range(len(rollouts)):
        whole, of_row = list(asked.ids[rollouts.prompt[row]]), []
        for token in rollouts.tokens[row].tolist():
            with torch.inference_mode():
                logits = decoder.logits(torch.tensor([whole]))[0, -1].double() / temperature
            if allowed is not None:
                logits = logits.masked_fill(~torch.from_numpy(allowed), -torch.inf)
            of_row.append(float(logits.log_softmax(-1)[token]))
            whole.append(token)
        out.append(of_row)
    return out


@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_log_probabilities_are_those_of_the_whole_text(temperature):
    rules = tracker(limit=12, ends=range(97, 107))
    out = engine().extend(TEXTS, FixedBudget(3), rules, Sampling(temperature, rows=5))
    naive = naive_log_probabilities(model(), out, TEXTS, temperature)
    assert set(out.account) == {"log_probability", "log_probabilities"} and len(set(out.tokens.lengths)) > 2
    for row, expected in enumerate(naive):
        of_row = out.account["log_probabilities"][row]
        np.testing.assert_allclose(of_row[: len(expected)], expected, atol=2e-5)
        assert np.isnan(of_row[len(expected) :]).all()
        assert out.account["log_probability"][row] == pytest.approx(sum(expected), abs=2e-4)
    assert {REASONS[reason] for reason in out.reason} == {"limit", "end"}
    wrong = naive_log_probabilities(model(seed=1), out, TEXTS, temperature)  # negative control: another model
    assert abs(sum(wrong[0]) - out.account["log_probability"][0]) > 0.1


def test_a_stop_text_ends_a_rollout_however_it_is_split_into_tokens():
    free = engine().extend(TEXTS, FixedBudget(8), tracker(60))
    pieces = re.compile(rb"(?s)..")
    stops = {pieces.search(text_of(free, row)[9:]).group() for row in (0, 9, 17, 25)}
    out = engine().extend(TEXTS, FixedBudget(8), tracker(60, tuple(stops)))
    ended = 0
    for row in range(len(out)):
        text = text_of(free, row)
        found = [text.find(stop) + len(stop) for stop in stops if stop in text]
        cut, tokens = (min(found) if found else len(text)), []
        for token in free.tokens[row]:  # whole tokens, up to and with the one that completes the text
            if sum(map(len, tokens)) >= cut:
                break
            tokens.append(PIECES[token])
        assert text_of(out, row) == b"".join(tokens)
        assert (REASONS[out.reason[row]] == "end") == bool(found)
        ended += bool(found)
    assert 4 <= ended < len(out)
    # The text spans tokens: no token alone is it
    assert not any(piece in stops for piece in PIECES)


def test_the_prompt_is_no_part_of_a_stop_text():
    """A text that begins in the prompt would end the rollout at its first token."""
    out = engine().extend(prompts(b"a"), FixedBudget(1), tracker(4))
    first = text_of(out, 0)[:1]
    again = engine().extend(prompts(b"a"), FixedBudget(1), tracker(4, (b"a" + first,)))
    assert len(again.tokens[0]) == 4


def test_a_constraint_of_ones_own_is_kept():
    out = engine(OnlyDigits()).extend(TEXTS, FixedBudget(6), tracker(30))
    texts = [text_of(out, row) for row in range(len(out))]
    assert all(re.fullmatch(rb"[0-689]*7*", text) for text in texts)
    assert any(b"7" in text for text in texts) and any(b"7" not in text for text in texts)
    free = engine().extend(TEXTS, FixedBudget(6), tracker(30))  # negative control
    assert not any(text_of(free, row).isdigit() for row in range(len(free)))
    short = engine(OnlyDigits()).extend(TEXTS, FixedBudget(2), tracker(1))
    naive = naive_log_probabilities(model(), short, TEXTS, allowed=DIGITS)
    np.testing.assert_allclose(short.account["log_probability"], [sum(row) for row in naive], atol=2e-5)


def test_a_budget_decides_on_log_probabilities():
    class UntilLikely:
        def more(self, question, numbers, scores):
            enough = len(numbers) >= 12 or (len(numbers) and scores[:, 0].max() > -20)
            return np.arange(len(numbers), len(numbers) + 3) if not enough else numbers[:0]

    out = engine().extend(TEXTS, UntilLikely(), tracker(8))
    for prompt in range(len(TEXTS)):
        of_prompt = out.account["log_probability"][out.prompt == prompt]
        assert len(of_prompt) == 12 or of_prompt[-3:].max() > -20 >= of_prompt[:-3].max(initial=-np.inf)


def test_other_processes_track_alike():
    rules = tracker(20, (b"7", b"ab"))
    with EngineProcesses(engine, 2) as processes:
        out = processes.extend(TEXTS, FixedBudget(5), rules)
    here = engine().extend(TEXTS, FixedBudget(5), rules)
    assert out.tokens.flat.tolist() == here.tokens.flat.tolist()
    for name, x in here.account.items():
        np.testing.assert_array_equal(out.account[name], x)
    assert tracker(20, (b"7", b"ab")).key == rules.key != tracker(20, (b"7",)).key


def test_the_search_finds_what_a_plain_search_finds():
    random = np.random.default_rng(0)
    letters = [b"a", b"b", b"c", b"ab", b"bca", b""]
    for _ in range(300):
        texts = {
            bytes(random.choice(list(b"abc"), random.integers(1, 5))) for _ in range(random.integers(1, 4))
        }
        table, state, text = text_search(tuple(texts), letters), 0, b""
        for token in random.integers(len(letters), size=12):
            state, text = table[state, token], text + letters[token]
            assert (state == len(table)) == any(stop in text for stop in texts), (texts, text)
            if state == len(table):
                break


def test_what_cannot_be_searched_is_refused():
    with pytest.raises(ValueError, match="at least one byte"):
        text_search([b"a", b""], PIECES)
    with pytest.raises(ValueError, match=f"bytes of all {V} tokens, not 3"):
        PlainTracker(3, np.zeros(V, bool), [b"a"], [b"a", b"b", b"c"])


def test_no_rollouts_have_the_columns_of_some():
    none, out = no_rollouts(tracker(7), TEXTS), engine().extend(TEXTS, FixedBudget(1), tracker(7))
    assert len(none) == 0 and {name: (x.dtype, x.shape[1:]) for name, x in none.account.items()} == {
        name: (x.dtype, x.shape[1:]) for name, x in out.account.items()
    }
    assert len(engine().extend(prompts(), FixedBudget(3), tracker(7))) == 0
