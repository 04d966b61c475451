"""A run ends by its loss on tuning patients: when that stalls, the rate falls to its end; the best weights are kept."""

import json
from dataclasses import replace
from itertools import chain, repeat

import pytest
import torch

from sequela.model import checkpoint
from sequela.training.loop import Host, train
from sequela.training.objectives.next_token import NextToken
from sequela.training.objectives.objective import Validation
from sequela.training.outcomes.stopping import COOLDOWN, Stopping
from sequela.training.settings import TrainSettings
from sequela.training.shutdown import Interrupted
from tests.training.soon import Soon

SETTINGS = TrainSettings(
    depth=1, context=64, row_tokens=64, batch_tokens=128, tokens=3000, learning_rate=6e-3, matrix_rate=6e-3,
    optimizer="adamw", precision="fp32", checks=9, patience=2, ignore_spikes=True,
)  # fmt: skip


@pytest.mark.parametrize("final", [0.0, 0.1])
@pytest.mark.parametrize("patience", [0, 3])
def test_the_rate_rises_then_falls_to_its_end(final, patience):
    run = Stopping(200, patience, 0.1, final)
    rates = [run.rate(tokens) for tokens in range(201)]
    assert rates[:21] == sorted(rates[:21]) and rates[20:] == sorted(rates[20:], reverse=True)
    assert rates[20] == 1.0 and rates[-1] == pytest.approx(final)
    assert Stopping(200, patience).rate(0) == 1.0
    assert (rates[100] == 1.0) == bool(patience)


def test_a_run_whose_loss_stalls_cools_down_from_there():
    run = Stopping(10_000, 2, 0.05)
    assert run.end == 10_000
    judged = []
    for tokens, loss in ((1000, 3.0), (2000, 2.0), (3000, 2.4), (4000, 2.1), (5000, 2.5)):
        judged.append((run.judge(loss, tokens), run.stalls(tokens)))
    # 2.4 and 2.1 are worse than the best, but better than 3.0 and 2.0; 2.1 and 2.5 are no better than 2.0 and 2.4
    assert judged == [(True, False), (True, False), (False, False), (False, False), (False, True)]
    assert run.best_tokens == 2000 and run.end == pytest.approx(5000 / (1 - COOLDOWN), abs=1)
    assert run.rate(5000) == 1.0 and run.rate(run.end) == 0.0
    assert not run.stalls(6000)  # while it cools down
    assert Stopping.restored(json.loads(json.dumps(run.state()))) == run


def test_a_run_that_has_begun_its_last_cool_down_or_not_warmed_up_does_not_stall():
    for tokens in (7500, 400):
        run = Stopping(10_000, 1, 0.05, losses=[1.0, 2.0])
        assert not run.stalls(tokens) and run.end == 10_000
    never = Stopping(10_000, 0, losses=[1.0, 2.0])
    assert not never.stalls(5000) and never.end == 10_000


def scripted(*losses):
    """An objective whose losses on tuning patients are these, one check after another; it keeps its weights at each."""
    script, seen = chain(losses, repeat(losses[-1])), []

    class Scripted(NextToken):
        def validate(self, corpus, patients=None):
            if patients is None:
                return super().validate(corpus)
            seen.append(self.decoder.embedding.weight.detach().clone())
            loss = next(script)
            return Validation({"loss": loss}, {"loss": loss})

    return Scripted, seen


def run(corpus, out, objective, **host):
    out.mkdir(exist_ok=True)
    about = train(corpus, out, SETTINGS, objective=objective, host=Host(**host))
    return about, checkpoint.load(out).embedding.weight


def test_a_run_that_stalls_goes_back_to_its_best_weights_and_ends_after_a_cool_down(world_corpus, tmp_path):
    said = []
    objective, seen = scripted(3.0, 2.0, 2.5, 2.5, 2.1, 1.0)
    about, weights = run(world_corpus, tmp_path / "model", objective, say=said.append)
    assert [check["loss"] for check in about["checks"]] == [3.0, 2.0, 2.5, 2.5, 2.1]
    stalled = about["checks"][3]["tokens"]
    assert stalled / (1 - COOLDOWN) <= about["tokens"] <= stalled / (1 - COOLDOWN) + 2 * SETTINGS.batch_tokens
    assert about["tokens"] < 0.7 * SETTINGS.tokens
    assert about["stopped"] == {
        "planned_tokens": 3000, "stalled_tokens": stalled, "weights_of_tokens": about["tokens"],
    }  # fmt: skip
    assert torch.equal(weights, seen[-1])  # the last ones were the best
    assert "goes back to the weights it had then" in said[-1]


def test_the_best_weights_are_what_a_run_ends_with(world_corpus, tmp_path):
    objective, seen = scripted(3.0, 1.0, 2.0, 1.5, 2.0)
    about, weights = run(world_corpus, tmp_path / "model", objective)
    assert about["stopped"]["weights_of_tokens"] == about["checks"][1]["tokens"]
    assert torch.equal(weights, seen[1]) and not torch.equal(weights, seen[-1])


def test_an_interrupted_run_remembers_its_best_weights(world_corpus, tmp_path):
    losses = (3.0, 1.0, 2.0, 2.0, 2.0)
    expected, whole = run(world_corpus, tmp_path / "whole", scripted(*losses)[0])
    objective, _ = scripted(*losses)
    for steps in (9, 2):  # between the second and the third check, and while it cools down
        after = Soon(steps)
        with pytest.raises(Interrupted):
            run(world_corpus, tmp_path / "model", objective, shutdown=after, progress=after)
    about, weights = run(world_corpus, tmp_path / "model", objective)
    for name in ("checks", "stopped", "tokens", "steps"):
        assert about[name] == expected[name]
    assert torch.equal(weights, whole)


def test_a_run_of_fixed_length_takes_it_whatever_its_losses(world_corpus, tmp_path):
    """The control."""
    objective, seen = scripted(*range(1, 20))
    fixed = replace(SETTINGS, patience=0)
    about = train(world_corpus, tmp_path, fixed, objective=objective)
    assert about["tokens"] >= SETTINGS.tokens and len(about["checks"]) == SETTINGS.checks
    weights = checkpoint.load(tmp_path).embedding.weight
    assert not torch.equal(weights, seen[0]) and len(seen) == SETTINGS.checks


def test_without_tuning_patients_a_run_takes_its_length(world_corpus, tmp_path):
    class Nobody(NextToken):
        def validate(self, corpus, patients=None):
            return None

    about, _ = run(world_corpus, tmp_path / "model", Nobody)
    assert about["tokens"] >= SETTINGS.tokens and about["checks"] == [] and about["tuning"] is None
