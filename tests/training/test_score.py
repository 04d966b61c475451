from dataclasses import replace

import numpy as np
import pytest
import torch

from sequela.model.config import ModelConfig
from sequela.model.decoder import Decoder
from sequela.tokens.corpus import Corpus
from sequela.tokens.ehr.clock import TIME_PREFIX
from sequela.tokens.ehr.scheme import TYPES
from sequela.tokens.ehr.settings import TokenSettings
from sequela.tokens.ehr.tokenize import tokenize
from sequela.tokens.token_types import TokenTypes
from sequela.training.data import windows_of
from sequela.training.outcomes.weight import outcome_tokens
from sequela.training.score import losses, score


def decoder(data: Corpus) -> Decoder:
    """An untrained model, its weights larger than usual so that tokens differ in what they cost."""
    model = Decoder(ModelConfig.of_depth(1, len(data.tokenizer.vocabulary), 256)).initialize(0)
    with torch.no_grad():
        model.embedding.weight.mul_(20)
    return model


@pytest.fixture(scope="module")
def data(world_meds, tmp_path_factory) -> Corpus:
    """With two tokens for a code and its value: each token is of one kind."""
    folder = tmp_path_factory.mktemp("two-tokens")
    tokenize(world_meds, folder, TokenSettings(fused=False))
    return Corpus.load(folder, "tuning")


def alone(model: Decoder, ids: np.ndarray) -> np.ndarray:
    """The oracle: -ln p of every token after the first of one row, by itself."""
    logs = model.logits(torch.from_numpy(ids[None].astype(np.int64)))[0].log_softmax(-1).detach().numpy()
    return -logs[np.arange(len(ids) - 1), ids[1:].astype(np.int64)]


def test_the_score_of_each_patient_is_that_of_its_tokens_alone(data):
    model = decoder(data)
    found = score(model, data)
    assert found.tokens.tolist() == (data.tokens.lengths - 1).tolist()
    expected = [alone(model, data.tokens[row]).sum() for row in range(len(data.patients))]
    np.testing.assert_allclose(found.nats[:, 0], expected, rtol=1e-4)
    assert np.ptp(expected) > 1
    about = losses(model, data)
    bits = sum(expected) / np.log(2)
    assert about["bits_per_token"] == pytest.approx(bits / found.tokens.sum(), rel=1e-4)
    assert about["bits_per_event"] == pytest.approx(bits / data.events, rel=1e-4)


def test_kinds_add_up(data):
    model, vocabulary = decoder(data), data.tokenizer.vocabulary
    time = np.zeros(len(vocabulary), np.int64)
    time[vocabulary.matching(TIME_PREFIX)] = 1
    by_kind, whole = (
        score(model, data, TokenTypes(time, ("other", "time"))),
        score(model, data),
    )
    np.testing.assert_allclose(by_kind.nats.sum(1), whole.nats[:, 0], rtol=1e-6)
    ids = data.tokens[0]
    np.testing.assert_allclose(by_kind.nats[0, 1], alone(model, ids)[time[ids[1:]] == 1].sum(), rtol=1e-4)


def test_a_window_repeats_the_demographics_but_does_not_score_them(data):
    model = decoder(data)
    rows, found = windows_of(data, 32), score(model, data, context=32)
    assert len(rows) > len(data.patients)
    assert found.tokens.tolist() == (data.tokens.lengths - 1).tolist()
    row = int(np.argmax(data.tokens.lengths))
    expected = 0.0
    for window in np.flatnonzero(rows.patient == row):
        front = rows.fronts.lengths[window]
        expected += alone(model, rows[window])[max(front - 1, 0) :].sum()
    np.testing.assert_allclose(found.nats[row, 0], expected, rtol=1e-4)


def test_losses_of_each_kind_are_those_of_its_tokens(data):
    model, kinds = decoder(data), data.tokenizer.types
    some = np.array([3, 8])
    found = losses(model, data, some)
    told = [(alone(model, data.tokens[row]), kinds.token[data.tokens[row]][1:]) for row in some]
    nats, kind = (np.concatenate(part) for part in zip(*told, strict=True))
    assert sum(one["share"] for one in found["kinds"].values()) == pytest.approx(1)
    for name, one in found["kinds"].items():
        own = nats[kind == TYPES.index(name)]
        assert one["events"] == len(own) > 0
        assert one["bits_per_event"] == pytest.approx(own.mean() / np.log(2), rel=1e-4)
    assert len(found["kinds"]) == len(set(kind.tolist()))


def test_the_loss_of_outcomes_counts_where_they_do_not_come(data):
    """-ln p(outcome) where it comes, -ln p(none) elsewhere: hazards that are all too high cost."""
    model, outcome = decoder(data), outcome_tokens(data.tokenizer, ("lab",))
    found = score(model, data, outcome=outcome)
    ids = data.tokens[0].astype(np.int64)
    chances = model.logits(torch.from_numpy(ids[None]))[0].softmax(-1).detach().numpy()[:-1]
    came = outcome[ids[1:]]
    expected = np.where(came, chances[np.arange(len(came)), ids[1:]], chances[:, ~outcome].sum(1))
    assert found.outcome_nats[0] == pytest.approx(-np.log(expected).sum(), rel=1e-4)
    assert found.outcomes[0] == came.sum() > 0
    bits = found.outcome_nats.sum() / found.outcomes.sum() / np.log(2)
    about = losses(model, data, outcome=outcome)
    assert (about["bits_per_outcome"], about["outcomes"]) == (pytest.approx(bits), found.outcomes.sum())
    assert "outcomes" not in losses(model, data, outcome=np.zeros(len(outcome), bool))


def test_nobody_has_no_losses(data):
    assert losses(decoder(data), data, np.zeros(0, int)) is None


def test_fused_tokens_are_told_as_code_and_value(world_meds, tmp_path):
    """The chance of a code is the sum over its fused tokens; the value is what is left."""
    (tmp_path / "fused").mkdir()
    tokenize(world_meds, tmp_path / "fused", TokenSettings(fused=True))
    data = Corpus.load(tmp_path / "fused", "tuning")
    model, codes = decoder(data), data.tokenizer.codes
    group = np.unique(codes, return_inverse=True)[1]
    zero = np.zeros(len(codes), np.int64)
    kinds = TokenTypes(zero, ("code", "value"), group=group, beyond=zero + 1)
    found = score(model, data, kinds)
    np.testing.assert_allclose(found.nats.sum(1), score(model, data).nats[:, 0], rtol=1e-5)
    ids = data.tokens[0].astype(np.int64)
    chances = model.logits(torch.from_numpy(ids[None]))[0].softmax(-1).detach().numpy()
    several = [chances[place, group == group[token]].sum() for place, token in enumerate(ids[1:])]
    np.testing.assert_allclose(found.nats[0, 0], -np.log(several).sum(), rtol=1e-4)
    assert found.nats[:, 1].sum() > 1
    single = score(model, data, replace(kinds, group=np.arange(len(codes))))
    np.testing.assert_allclose(
        single.nats[:, 1], 0, atol=1e-2
    )  # control: alone in its group, nothing is left
