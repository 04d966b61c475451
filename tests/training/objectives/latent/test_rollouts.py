"""How far a predictor sees, on a world of known courses: who knows what comes beats persistence, who guesses not."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from sequela.model.config import ModelConfig
from sequela.model.decoder import Decoder
from sequela.record.dataset import write_dataset
from sequela.record.worlds.latent import LatentWorld
from sequela.tokens.corpus import Corpus
from sequela.tokens.ehr.tokenize import tokenize
from sequela.training.data import windows_of
from sequela.training.objectives.anchors import Records
from sequela.training.objectives.latent.rollouts import Courses, report, ridge
from sequela.training.objectives.objective import Setup
from sequela.training.objectives.state_jepa import StateJepa
from sequela.training.settings import TrainSettings

OPTIONS = ("horizons=[0, 20, 60]", "ahead=2", "stages='at_once'", "actions=['TREATMENT//']", "share=4.0")


@pytest.fixture(scope="module")
def courses(tmp_path_factory):
    """Of an untrained model."""
    folder = tmp_path_factory.mktemp("latent")
    world = LatentWorld(
        severity=(0.0, 2.0), velocity=(0.0, 0.1), noise=0.2, hazard=(0.001, 0.0), gap=(10.0, 0.0), nuisance=(2, 0)
    )  # patients differ, and remain what they are
    write_dataset(world.events(150, seed=0), folder / "meds", name="latent", metadata={"real_dates": False})
    (folder / "corpus").mkdir()
    tokenize(folder / "meds", folder / "corpus")
    corpus = Corpus.load(folder / "corpus", "train")
    config = ModelConfig(
        len(corpus.tokenizer.vocabulary), hidden_size=32, heads=2, kv_heads=2, head_dim=16, intermediate_size=64,
        layers=1, context=128,
    )  # fmt: skip
    settings = TrainSettings(objective="state_jepa", options=OPTIONS, row_tokens=512)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        objective = StateJepa(
            Decoder(config).initialize(0), Setup(settings=settings, tokenizer=corpus.tokenizer, rest=corpus.rest)
        )
    windows = windows_of(corpus, 128)
    records = Records.of(windows, corpus.tokenizer, corpus.rest)
    with torch.no_grad():
        return objective.terms["futures"].courses(
            partial(objective._rows, records, np.arange(len(windows)), "futures")
        )


def better(one, other):
    return [a < b for a, b in zip(one, other, strict=True)]


def test_who_knows_what_comes_beats_persistence_and_who_guesses_does_not(courses):
    assert len(courses.state) > 100 and courses.has_after.float().mean() > 0.3
    random = torch.Generator().manual_seed(0)
    known = courses.after + 0.1 * torch.randn(courses.after.shape, generator=random)
    found = report(replace(courses, foreseen=known), courses, 20.0)
    assert found["days"] == 20 and found["windows"] == [1, 2] and min(found["pairs"]) > 50
    assert found["error"] == pytest.approx([0.01, 0.01], rel=0.1)
    assert better(found["error"], found["persistence"]) == [True, True]
    assert better(found["ridge"], found["mean"]) == [True, True]  # on the patients it was fitted on
    order = torch.randperm(len(known), generator=random)
    guessed = report(replace(courses, foreseen=known[order]), courses, 20.0)
    assert better(guessed["error"], guessed["persistence"]) == [False, False]
    assert guessed["persistence"] == found["persistence"] and "given_actions" in found


def test_windows_are_normalized_and_those_without_anything_do_not_count(courses):
    held = courses.after[courses.has_after]
    torch.testing.assert_close(held.var(1, correction=0), torch.ones(len(held)), rtol=1e-2, atol=0)
    nothing = replace(courses, has_before=torch.zeros_like(courses.has_before))
    found = report(nothing, None, 20.0)
    assert found["pairs"] == [0, 0] and found["error"] == found["ridge"] == [None, None]
    joined = Courses.joined([courses, courses])
    assert len(joined.state) == 2 * len(courses.state)


def test_knowing_what_is_done_changes_what_is_foreseen(courses):
    assert not torch.equal(courses.foreseen, courses.given_actions)
    assert courses.foreseen.shape == courses.after.shape


def test_ridge_finds_a_line_and_not_noise():
    random = torch.Generator().manual_seed(0)
    x = torch.randn(300, 5, generator=random)
    weight = torch.randn(5, 3, generator=random)
    y = 2 + x @ weight + 0.01 * torch.randn(300, 3, generator=random)
    torch.testing.assert_close(ridge(x[:200], y[:200], x[200:]), y[200:], rtol=0, atol=0.1)
    noise = torch.randn(300, 3, generator=random)
    foreseen = ridge(x[:200], noise[:200], x[200:])
    assert float(((foreseen - noise[200:]) ** 2).mean()) > 0.8
    assert ridge(x, y, x[:0]).shape == (0, 3)
