"""Waits for events against a count by hand, and rates against their closed form."""

import numpy as np
import pytest

from sequela.errors import InputError
from sequela.model.config import ModelConfig
from sequela.model.decoder import Decoder
from sequela.tokens.corpus import Corpus
from sequela.tokens.packing import Windows
from sequela.tokens.ragged import Ragged
from sequela.training.data import token_counts, windows_of
from sequela.training.objectives.anchors import anchors_of
from sequela.training.objectives.objective import Setup, named
from sequela.training.objectives.time_to_event import TimeToEvent, waits_of
from sequela.training.settings import TrainSettings
from tests.training.objectives.test_futures import DAY, MINUTES, records_of


@pytest.mark.parametrize("rest", [400 * DAY, -1])
def test_waits_end_with_the_event_death_or_the_record(rest):
    random = np.random.default_rng(0)
    rows = [np.concatenate([[1], random.choice([2, 2, 3, 4, 5], 30), [6]]) for _ in range(10)]
    records, row = records_of(rows, [rest] * 10), np.arange(10)
    anchors = anchors_of(records, row, 9, np.random.default_rng(1))
    waits = waits_of(records, row, anchors, np.array([4, 5]))
    assert len(waits.days) == len(anchors.last) > 60 and 0.1 < waits.came.mean() < 1
    for number, (window, last) in enumerate(zip(anchors.window, anchors.last, strict=True)):
        ids, now = rows[window], MINUTES[rows[window][: last + 1]].sum() + anchors.idle[number]
        for column, event in enumerate((4, 5)):
            later = [n for n in range(last + 1, len(ids)) if ids[n] == event]
            time = MINUTES[ids[: later[0] + 1]].sum() if later else MINUTES[ids].sum() + max(rest, 0)
            assert waits.came[number, column] == bool(later)
            assert waits.days[number, column] == pytest.approx((time - now) / DAY, abs=1e-3)


def objective_of(corpus, *options, **more):
    config = ModelConfig(
        len(corpus.tokenizer.vocabulary), hidden_size=32, heads=2, kv_heads=2, head_dim=16, intermediate_size=64,
        layers=1, context=64,
    )  # fmt: skip
    settings = TrainSettings(objective="time_to_event", options=options)
    given = {"rest": corpus.rest, "counts": token_counts(corpus)} | more
    return TimeToEvent(Decoder(config).initialize(0), Setup(settings=settings, tokenizer=corpus.tokenizer, **given))


def test_a_row_trains_decoder_states_and_rates(world_corpus):
    corpus = Corpus.load(world_corpus, "train")
    objective = objective_of(corpus, "events=5", "stages='at_once'")
    waits = objective.terms["waits"]
    names = np.array(corpus.tokenizer.vocabulary.tokens)[waits.events.numpy()]
    assert len(names) == 5 and "MEDS_DEATH" in names and not any(name.startswith("TIME//") for name in names)
    loss = objective(objective.collate(windows_of(corpus, 64), np.arange(8)))
    loss.total.backward()
    assert named("time_to_event") is TimeToEvent and loss.parts["waits"] > 0
    for module in (objective.decoder, waits.rates, objective.states):
        assert any(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in module.parameters())
    assert {id(w) for group in objective.groups() for w in group.weights} == {id(w) for w in objective.parameters()}
    halved = objective_of(corpus, "events=5", "stages=[{share=1.0, waits=0.5}]")
    half = halved(halved.collate(windows_of(corpus, 64), np.arange(8)))
    assert float(half.total.detach()) == pytest.approx(0.5 * float(half.parts["waits"]))
    with pytest.raises(InputError, match="`edges` must rise from 0"):
        objective_of(corpus, "edges=[3.0]")


@pytest.mark.parametrize("rest", [0, -1])
def test_records_of_one_moment_have_nothing_to_wait_for(world_corpus, rest):
    corpus = Corpus.load(world_corpus, "train")
    records = records_of([np.array([1, 5])] * 3, [rest] * 3)
    objective = objective_of(corpus)
    term = objective.terms["waits"]
    with pytest.raises(InputError, match="no training patient's record goes on after its first moment"):
        term.check(records)
    term.check(records_of([np.array([1, 5])] * 3, [rest, 5, rest]))  # followed for five minutes
    windows = Windows.of(Ragged(np.array([1, 43]), np.array([0, 2])), np.array([1]), (), 64)
    with pytest.raises(InputError, match="there is nothing to wait for"):
        objective_of(corpus, windows=windows, rest=np.array([rest]))
