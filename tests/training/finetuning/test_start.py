import json
import shutil
from dataclasses import replace

import pytest
import torch

import sequela
from sequela.errors import InputError
from sequela.model import checkpoint
from sequela.model.states import StateTokens
from sequela.training.loop import train
from sequela.training.parallel import ProcessGroup
from sequela.training.run import Run, RunPlan
from sequela.training.settings import TrainSettings
from tests.training.soon import with_and_without_a_break

FIRST = TrainSettings(depth=1, context=64, batch_tokens=1024, tokens=4000, precision="fp32", family="qwen3", checks=1)
NEXT = replace(FIRST, depth=None, family="qwen2", context=None)


@pytest.fixture(scope="module")
def model(world_corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("start") / "model"
    out.mkdir()
    train(world_corpus, out, replace(FIRST, objective="state_jepa", options=('stages="at_once"',)))
    return out


def begun(corpus, folder, settings=NEXT):
    return Run(RunPlan.of(corpus, settings, init_from=folder), ProcessGroup())


def test_a_run_has_the_shape_and_weights_of_the_checkpoint_that_it_starts_from(model, world_corpus):
    run, kept = begun(world_corpus, model), checkpoint.load(model)
    assert run.plan.config == kept.config and run.plan.settings.family == "qwen3"
    assert run.plan.resolved.origins["layers"] == "as in the checkpoint"
    ours, theirs = run.objective.decoder.state_dict(), kept.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert all(weight.requires_grad for weight in run.objective.decoder.parameters())
    other = Run(RunPlan.of(world_corpus, FIRST), ProcessGroup()).objective.decoder  # the control
    assert not torch.equal(other.embedding.weight, kept.embedding.weight)


def test_state_tokens_and_target_start_there_too(model, world_corpus):
    objective = begun(world_corpus, model, replace(NEXT, objective="state_jepa", seed=1)).objective
    assert torch.equal(objective.states.table, StateTokens.load(model).table)
    (term,) = objective.terms.values()
    assert torch.equal(term.target.decoder.embedding.weight, checkpoint.load(model).embedding.weight)


def test_without_state_tokens_they_are_new(model, world_corpus, tmp_path):
    plain = tmp_path / "plain"
    shutil.copytree(model, plain)
    (plain / "states.safetensors").unlink()
    objective = begun(world_corpus, plain, replace(NEXT, objective="state_jepa")).objective
    assert 0 < objective.states.table.std() < 0.05


def test_an_interrupted_run_ends_as_one_that_was_not(model, world_corpus, tmp_path):
    whole, broken = with_and_without_a_break(world_corpus, replace(NEXT, tokens=6000), model, tmp_path)
    assert (whole / "model.safetensors").read_bytes() == (broken / "model.safetensors").read_bytes()
    assert not torch.equal(checkpoint.load(whole).embedding.weight, checkpoint.load(model).embedding.weight)


def test_another_checkpoint_makes_it_another_run(model, world_corpus, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(model, other)
    decoder = checkpoint.load(other)
    decoder.norm.weight.data[0] += 1
    checkpoint.save(decoder, other)
    same = [RunPlan.of(world_corpus, NEXT, init_from=folder).identity() for folder in (model, model, other)]
    assert same[0] == same[1] != same[2]


def test_what_does_not_fit_is_refused(model, world_corpus, tmp_path):
    with pytest.raises(InputError, match="`width` cannot be chosen"):
        RunPlan.of(world_corpus, replace(NEXT, width=64), init_from=model)
    with pytest.raises(InputError, match="`family` cannot be chosen"):
        RunPlan.of(world_corpus, replace(NEXT, family="llama"), init_from=model)
    with pytest.raises(InputError, match=r"config\.json is missing"):
        RunPlan.of(world_corpus, NEXT, init_from=tmp_path)


def test_a_model_of_other_tokens_is_refused(model, world_meds, world_corpus, tmp_path):
    sequela.tokenize(world_meds, tmp_path / "corpus", quantiles=4)
    with pytest.raises(InputError, match="start from a model of this corpus"):
        RunPlan.of(tmp_path / "corpus", NEXT, init_from=model)


def test_the_manifest_names_it(model, world_corpus, tmp_path):
    out = tmp_path / "next"
    sequela.train(world_corpus, out, init_from=model, settings=replace(NEXT, tokens=500))
    manifest = json.loads((out / "manifest.json").read_text())
    assert set(manifest["inputs"]) == {"corpus", "init_from"}
    assert sequela.train(world_corpus, out, init_from=model, settings=replace(NEXT, tokens=500))["skipped"]
