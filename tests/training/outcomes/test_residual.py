"""Observed over expected: right hazards flag nothing, and hazards that ignore something are told what it is."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sequela.model.config import ModelConfig
from sequela.model.decoder import Decoder
from sequela.record.worlds.markov import MarkovWorld
from sequela.tokens.corpus import Corpus
from sequela.tokens.ehr.settings import TokenSettings
from sequela.tokens.ehr.tokenize import tokenize
from sequela.tokens.ragged import Ragged
from sequela.tokens.vocabulary import BOS
from sequela.training.outcomes import residual
from sequela.training.outcomes.residual import Tally, compared, summary
from tests.tokens.byte_text import ByteTokenizer

WORLD = MarkovWorld.known()
SEVERAL = 30


def tallied(seed: int, *, forgets: float = 1.0) -> dict:
    """Of 4,000 positions; hazards are right, but where `forgets` is not 1 they do not know the first group."""
    random = np.random.default_rng(seed)
    hazard = random.random((4000, 3)) * np.array([0.1, 0.05, 0.2])
    member = random.random((4000, 12)) < np.linspace(0.1, 0.6, 12)
    truth = hazard * np.where(member[:, :1], forgets, 1)
    empty = (np.zeros(shape) for shape in (3, 3, (3, 12), (3, 12)))
    tally = Tally(("a", "b", "c"), tuple(f"group {number}" for number in range(12)), *empty)
    for part in np.split(np.arange(4000), 4):
        tally.add(hazard[part].astype(np.float32), random.random(truth[part].shape) < truth[part], member[part])
    return summary(tally, 100)


def off(found: dict) -> list[tuple[str, str]]:
    """What is flagged."""
    return [(one["outcome"], one.get("group", "all")) for one in (*found["outcomes"], *found["groups"]) if one["off"]]


def test_right_hazards_flag_nothing():
    assert sum(bool(off(tallied(seed))) for seed in range(SEVERAL)) <= 0.1 * SEVERAL


def test_what_is_forgotten_is_found():
    found = tallied(0, forgets=2.2)
    assert found["comparisons"] == 3 + 3 * 12
    assert {("a", "group 0"), ("b", "group 0"), ("c", "group 0")} <= set(off(found))
    strongest = found["groups"][0]
    assert strongest["group"] == "group 0" and strongest["low"] < 2.2 < strongest["high"]
    assert strongest["elsewhere"] == pytest.approx(1, abs=0.2)


def test_intervals_are_exact_and_of_what_came():
    none = {"observed": 0, "expected": 2, "ratio": 0, "low": 0, "high": 1.844}
    assert residual._ratio(0, 2.0) == pytest.approx(none, abs=1e-3)
    assert residual._ratio(10, 5.0)["low"] == pytest.approx(4.795 / 5, abs=1e-3)


@dataclass
class Truth:
    """A model of the known world that gives death its true hazard, or the same to everyone."""

    data: Corpus
    blind: bool = False

    def __post_init__(self):
        tokenizer = self.data.tokenizer
        self.config, self.embedding = SimpleNamespace(context=1024), SimpleNamespace(weight=torch.zeros(1))
        centers = tokenizer.bins.centers[0]
        self.level = np.full(len(tokenizer.vocabulary), -1)
        valued = tokenizer.quantile >= 0
        nearest = np.abs(centers[:, None] - WORLD.values).argmin(1)
        self.level[valued] = nearest[tokenizer.quantile[valued]]
        (self.death,) = tokenizer.final

    def hidden(self, ids, positions, attention):
        level, out = -1, []
        for token in ids[0].tolist():
            level = -1 if token == BOS else self.level[token] if self.level[token] >= 0 else level
            moved = self.data.tokenizer.minutes_V[token] > 0
            chance = (0.022 if self.blind else WORLD.deaths[level]) if moved and level >= 0 else 0.0
            out.append(chance)
        return torch.tensor(out)[None, :, None]

    def head(self, hidden):
        logits = torch.full((len(hidden), len(self.level)), -torch.inf)
        logits[:, self.death], logits[:, 0] = hidden[:, 0].log(), (1 - hidden[:, 0]).log()
        return logits


@pytest.fixture(scope="module", params=[False, True], ids=["apart", "fused"])
def data(request, world_meds, tmp_path_factory):
    out = tmp_path_factory.mktemp("corpus")
    tokenize(world_meds, out, TokenSettings(fused=request.param))
    return Corpus.load(out, "train")


def test_the_truth_is_not_off_and_a_model_without_the_value_is(data, monkeypatch):
    found = compared(Truth(data), data, ("death",))
    (death,) = found["outcomes"]
    assert death["outcome"] == "death" and death["low"] < 1 < death["high"] and not off(found)
    monkeypatch.setattr(residual, "ALIVE", 4000)  # the same in parts
    in_parts = compared(Truth(data), data, ("death",))
    for one, other in zip(found["groups"], in_parts["groups"], strict=True):
        assert one["group"] == other["group"] and one["ratio"] == pytest.approx(other["ratio"], rel=1e-4)
    blind = compared(Truth(data, blind=True), data, ("death",))
    worst = {one["group"]: one for one in blind["groups"] if one["off"]}
    assert worst["LAB//CREATININE highest 30 %"]["ratio"] > 1.5 > worst["LAB//CREATININE lowest 30 %"]["ratio"]


def test_each_position_counts_once_up_to_the_first_occurrence(data):
    """Against a plain count, with an untrained model, whose patients are cut into windows or not."""
    lab = data.tokenizer.traits.categories.index("LAB//CREATININE")
    is_lab = data.tokenizer.traits.category == lab
    expected, observed, some = 0.0, 0, np.arange(10)
    for context in (1024, 32):
        model = Decoder(ModelConfig.of_depth(1, len(is_lab), context)).initialize(0)
        groups = residual._Groups.of(data, data.tokenizer.traits, some, is_lab)
        tally = groups.tally()
        residual._add(tally, residual._Reader(model, data, residual.windows_of(data, context)), groups, some)
        if context == 1024:
            for row in some:
                ids = data.tokens[row].astype(np.int64)
                chances = model.logits(torch.from_numpy(ids[None]))[0].softmax(-1).detach().numpy()[:-1, is_lab].sum(1)
                first = np.flatnonzero(is_lab[ids[1:]])[0]
                expected, observed = expected + chances[: first + 1].sum(), observed + 1
        assert tally.expected == pytest.approx([expected], rel=1e-4) and tally.observed == [observed]
        # The groups of time since the start are all positions
        assert tally.expected_in[:, -5:].sum() == pytest.approx(expected, rel=1e-4)


def test_groups_are_what_the_past_says(data):
    """A row of tokens, told by a loop."""
    traits, tokenizer = data.tokenizer.traits, data.tokenizer
    groups = residual._Groups.of(data, traits, np.arange(len(data.patients)), traits.category >= 0)
    rows = Ragged.of([data.tokens[0], data.tokens[1]])
    minutes = residual._minutes(data, rows, np.array([0, 1]))
    found = dict(zip(groups.names, groups.members(rows, minutes).T, strict=True))
    names, entered, last, passed = tokenizer.vocabulary.tokens, False, -1, 0
    for at, token in enumerate(rows.flat):
        if token == BOS:
            entered, last, passed = False, -1, 0
        entered |= names[token] == "COHORT//ENTRY"
        last = tokenizer.quantile[token] if tokenizer.quantile[token] >= 0 else last
        passed += tokenizer.minutes_V[token]
        assert minutes[at] == passed
        assert found["LAB//CREATININE highest 30 %"][at] == (last >= 7)
        assert found["LAB//CREATININE lowest 10 %"][at] == (last == 0)
        assert found["first day"][at] == (passed < 1440)
        if "COHORT//ENTRY before" in found:
            assert found["COHORT//ENTRY before"][at] == entered
    sexes = [found[name][rows.offsets[1:] - 1] for name in ("GENDER//F", "GENDER//M")]
    assert (sexes[0] ^ sexes[1]).all()


def test_without_traits_or_patients_or_outcomes_there_is_nothing_to_compare(data):
    model = Truth(data)
    texts = SimpleNamespace(tokenizer=ByteTokenizer(), patients=np.arange(3))
    assert compared(model, texts, ("death",)) is None
    assert compared(model, data, ("death",), np.zeros(0, np.int64)) is None
    assert compared(model, data, ("diagnosis",)) is None
