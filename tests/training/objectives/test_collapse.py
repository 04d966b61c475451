"""The honesty panel: it has to trip on runs that really collapse, and on no other."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sequela.errors import InputError
from sequela.model.config import ModelConfig
from sequela.model.decoder import Decoder
from sequela.record.dataset import write_dataset
from sequela.record.worlds.latent import LatentWorld
from sequela.tokens.corpus import Corpus
from sequela.tokens.ehr.tokenize import tokenize
from sequela.training.data import windows_of
from sequela.training.loop import train
from sequela.training.objectives.collapse import FEWEST, MEMORY, WATCHED, Watch, panel
from sequela.training.objectives.objective import Setup
from sequela.training.objectives.state_jepa import StateJepa
from sequela.training.objectives.target import Target, means_by, normalized
from sequela.training.settings import TrainSettings

HORIZONS = "horizons=[0, 45, 120, 400]"
FUTURES_ONLY = ("stages='futures_only'", "decay=0.9", HORIZONS)


@pytest.fixture(scope="module")
def latent(tmp_path_factory):
    home = tmp_path_factory.mktemp("latent")
    write_dataset(LatentWorld().events(250, seed=0), home / "meds", name="latent", metadata={"real_dates": False})
    (home / "corpus").mkdir()
    tokenize(home / "meds", home / "corpus")
    return home / "corpus"


def objective_of(latent, *options):
    corpus = Corpus.load(latent, "train")
    config = ModelConfig(
        len(corpus.tokenizer.vocabulary), hidden_size=32, heads=2, kv_heads=2, head_dim=16, intermediate_size=64,
        layers=1, context=256,
    )  # fmt: skip
    settings = TrainSettings(objective="state_jepa", options=options, row_tokens=512)
    setup = Setup(settings=settings, tokenizer=corpus.tokenizer, rest=corpus.rest)
    return StateJepa(Decoder(config).initialize(0), setup), corpus


def trained(objective, corpus, steps):
    """Steps of AdamW on rows of eight windows, as `Run` takes them; returns the figures of each step."""
    windows, random = windows_of(corpus, 256), np.random.default_rng(0)
    weights = [weight for weight in objective.parameters() if weight.requires_grad]
    optimizer, seen = torch.optim.AdamW(weights, lr=3e-3, betas=(0.9, 0.95)), []
    for step in range(steps):
        batch = objective.collate(windows, random.permutation(len(windows))[:8])
        optimizer.zero_grad()
        loss = objective(batch)
        (loss.total / batch.weight).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        seen.append({name: float(x) / batch.weight for name, x in loss.figures.items()})
        objective.heed(seen[-1])
        objective.after_step((step + 1) / steps)
    return seen


class Live(Target):
    """No moving average and no stop of gradients: the decoder itself encodes futures, and is trained to be foreseen."""

    def follow(self, decoder, decay):
        """It is the decoder."""

    def hidden(self, row, precision):
        return self.decoder.hidden(row.ids, row.positions, row.attention)

    def means(self, futures, precision):
        return means_by(self.hidden(futures.inputs, precision).flatten(0, 1), futures.which, futures.count)


def test_a_target_that_learns_to_be_foreseen_collapses_and_trips_the_panel(latent):
    objective, corpus = objective_of(latent, *FUTURES_ONLY)
    live = Live(objective.decoder)
    live.decoder = objective.decoder
    objective.terms["futures"].target = live
    with pytest.raises(InputError, match=r"is collapsing: .* Give next tokens more weight"):
        trained(objective, corpus, 160)


def test_so_does_a_run_without_next_tokens_whatever_the_average(latent):
    objective, corpus = objective_of(latent, *FUTURES_ONLY)
    with pytest.raises(InputError, match="is collapsing: the states of different patients"):
        trained(objective, corpus, 160)


def test_the_loop_stops_a_run_that_collapses(latent, tmp_path):
    """And nothing is taken for its result."""
    settings = TrainSettings(
        objective="state_jepa", options=FUTURES_ONLY, layers=1, width=32, context=256, row_tokens=512, batch_tokens=512,
        epochs=10, checks=0, optimizer="adamw", learning_rate=3e-2, second_moment=0.95,
    )  # fmt: skip
    with pytest.raises(InputError, match="is collapsing: "):
        train(latent, tmp_path, settings)
    assert not (tmp_path / "model.safetensors").exists()


def test_a_control_that_is_not_watched_goes_on(latent):
    objective, corpus = objective_of(latent, *FUTURES_ONLY, "watched=false")
    assert not any(trained(objective, corpus, 2)) and int(objective.terms["futures"].watch.steps) == 0


@pytest.mark.parametrize("shuffled", ["false", "true"])
def test_a_run_that_next_tokens_hold_trips_nothing(latent, shuffled):
    objective, corpus = objective_of(latent, "stages='at_once'", HORIZONS, f"shuffled={shuffled}")
    trained(objective, corpus, 120)
    assert int(objective.terms["futures"].watch.steps) == 120
    kept = objective.state_dict()
    assert {"terms.futures.watch.began", "terms.futures.watch.now"} <= set(kept)  # a run that resumes knows the start


def figures(state=0.5, future=0.5, error=0.9):
    return dict(zip(WATCHED, (state**2, 1.0, future**2, 1.0, error, 1.0), strict=True))


@pytest.mark.parametrize(
    ("then", "grounded", "words"),
    [
        ({"future": 0.05}, True, "the futures of different patients .* 50.0% when"),
        ({"state": 0.05}, False, "the states of different patients .* 50.0% when"),
        ({"state": 0.01}, True, "the states of different patients .* 50.0% when"),
        ({"error": 4.0}, True, "times as badly as by their mean, and 0.9 times when"),
        ({"state": 0.05}, True, None),  # a common part may grow where next tokens hold the rest
        ({"future": 0.2, "state": 0.2, "error": 1.9}, False, None),
    ],
)
def test_what_trips_the_watch(then, grounded, words):
    watch = Watch()

    def go_on():
        for _ in range(200):
            watch.heed(figures(**then), grounded=grounded)

    for _ in range(MEMORY):
        watch.heed(figures(), grounded=grounded)
    if words is None:
        go_on()
    else:
        with pytest.raises(InputError, match=words):
            go_on()


def test_a_predictor_that_has_learned_nothing_yet_trips_nothing():
    watch = Watch()
    for step in range(100):
        watch.heed(figures(error=3.0 - step / 100), grounded=True)
    nothing = dict.fromkeys(WATCHED, 0.0)
    watch.heed(nothing, grounded=True)  # a step without futures
    assert int(watch.steps) == 100
    short = torch.ones(1, 4)
    assert not any(Watch.seen(short, short, short).values())


def test_rank_and_persistence_miss_a_collapse_that_scale_sees():
    """A state like the future after it, of all directions alike, whose size is a ten-thousandth of what it was."""
    random = torch.Generator().manual_seed(0)
    base, signal = torch.randn(1, 16, generator=random), torch.randn(300, 16, generator=random)
    state = base + 1e-4 * signal
    found = panel(state, normalized(base).expand(300, 16), base + 1e-4 * torch.randn(300, 16, generator=random))
    assert found.rank > 12 and found.persistence_skill > 0.3
    with pytest.raises(InputError, match="has collapsed"):
        found.check()
    replace(found, pairs=FEWEST - 1).check()  # too few to judge


def test_the_own_future_is_found_among_others_and_among_those_of_the_same_patient():
    random = torch.Generator().manual_seed(0)
    future = torch.randn(600, 16, generator=random)
    patient = torch.arange(600) // 3
    knows = panel(future, normalized(future), future, patient)
    assert (knows.candidates, knows.found, knows.told_apart) == (256, 1.0, 1.0)
    guesses = panel(future, torch.randn(600, 16, generator=random), future, patient)
    assert guesses.found < 0.03 and guesses.told_apart == pytest.approx(0.5, abs=0.05)
    # who patients are, and nothing of when: easy negatives do not tell, hard ones do
    who = torch.randn(200, 16, generator=random).repeat_interleave(3, 0)
    when = 0.3 * torch.randn(600, 16, generator=random)
    only_who = panel(future, normalized(who), who + when, patient)
    assert only_who.found > 0.2 and only_who.told_apart == pytest.approx(0.5, abs=0.06)
    same = panel(future, torch.zeros(600, 16), torch.ones(600, 16) + 1e-9, patient)
    assert same.found == pytest.approx(1 / 256) and same.told_apart == 0.5  # ties are chance
    assert panel(future, future, future).told_apart is None
