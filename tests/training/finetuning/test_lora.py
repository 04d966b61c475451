"""Adapters on a language model: what is trained, what is written, and what goes on after an interruption."""

import json
from dataclasses import replace

import pytest
import torch

import sequela
from sequela.errors import InputError
from sequela.model import checkpoint
from sequela.rollout.embeddings.embedder import Embedder
from sequela.tokens.tokenizer import load
from sequela.training.finetuning import lora
from sequela.training.finetuning.lora import adapt, merge
from sequela.training.parallel import ProcessGroup
from sequela.training.run import Run, RunPlan
from sequela.training.settings import TrainSettings
from tests.tokens.text.language_model import language_model
from tests.training.soon import with_and_without_a_break

SETTINGS = TrainSettings(
    lora_rank=4, context=128, batch_tokens=1024, tokens=6000, learning_rate=3e-3, precision="fp32", checks=1
)
IDS = torch.arange(60)[None] * 5 % 250


@pytest.fixture(scope="module", params=["qwen3", "llama"])
def backbone(request, tmp_path_factory):
    return language_model(tmp_path_factory.mktemp("lora") / request.param, request.param)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    return language_model(tmp_path_factory.mktemp("lora") / "qwen")


def corpus_of(meds, model, folder):
    out = folder / "corpus"
    sequela.tokenize(meds, out, backbone=model)
    return out


@pytest.fixture(scope="module")
def corpus(qwen, world_meds, tmp_path_factory):
    return corpus_of(world_meds, qwen, tmp_path_factory.mktemp("lora"))


def disturbed(decoder):
    """Adapters that are no longer zero."""
    random = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weight in decoder.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1, generator=random)
    return decoder


def test_adapters_change_nothing_at_first_and_merge_into_the_weights(backbone):
    plain, decoder = checkpoint.load(backbone), adapt(checkpoint.load(backbone), 4, 8.0, seed=0)
    with torch.no_grad():
        assert torch.allclose(decoder.logits(IDS), plain.logits(IDS), atol=1e-4)
        with_adapters = disturbed(decoder).logits(IDS)
        assert (with_adapters - plain.logits(IDS)).abs().max() > 0.5
        merged = merge(decoder)
        assert torch.allclose(merged.logits(IDS), with_adapters, atol=1e-3)
    assert merged.state_dict().keys() == plain.state_dict().keys()
    assert torch.equal(merged.embedding.weight, plain.embedding.weight)
    assert torch.equal(merged.blocks[0].norm_1.weight, plain.blocks[0].norm_1.weight)


def test_every_linear_map_of_the_blocks_has_adapters_of_its_own(backbone):
    decoder = adapt(checkpoint.load(backbone), 4, 8.0, seed=0)
    config = decoder.config
    inner, narrow = config.heads * config.head_dim, config.kv_heads * config.head_dim
    width, wide = config.hidden_size, config.intermediate_size
    sides = 2 * (width + inner) + 2 * (width + narrow) + 3 * (width + wide)
    trained = [weight for weight in decoder.parameters() if weight.requires_grad]
    assert sum(weight.numel() for weight in trained) == 4 * config.layers * sides


def test_the_seed_decides_the_adapters(qwen):
    ones, same, others = (adapt(checkpoint.load(qwen), 4, 8.0, seed=seed).state_dict() for seed in (0, 0, 1))
    name = next(name for name in ones if "lora_A" in name)
    assert torch.equal(ones[name], same[name]) and not torch.equal(ones[name], others[name])


def test_a_plain_decoder_is_left_as_it_is(qwen):
    decoder = checkpoint.load(qwen)
    before = {name: id(module) for name, module in decoder.named_modules()}
    assert {name: id(module) for name, module in merge(decoder).named_modules()} == before


def test_only_adapters_are_trained(qwen, corpus):
    run = Run(RunPlan.of(corpus, SETTINGS, init_from=qwen), ProcessGroup())
    before = {name: weight.clone() for name, weight in run.objective.named_parameters()}
    for number, (step, passes) in enumerate(run.feed()):
        run.take(step, passes)
        if number == 3:
            break
    moved = {name for name, weight in run.objective.named_parameters() if not torch.equal(weight, before[name])}
    assert moved == {name for name in before if "lora_" in name}


def test_what_is_written_is_a_plain_checkpoint_that_transformers_loads(qwen, corpus, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = tmp_path / "model"
    about = sequela.train(corpus, out, init_from=qwen, settings=SETTINGS)
    assert about["inputs"].keys() == {"corpus", "init_from"}
    report = json.loads((out / "train.json").read_text())
    assert report["train_bits_per_token"] < report["curve_bits_per_token"][0] - 0.2
    ours, theirs = checkpoint.load(out), AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    with torch.no_grad():
        assert torch.allclose(ours.logits(IDS), theirs(IDS).logits, atol=1e-3)
        assert (ours.logits(IDS) - checkpoint.load(qwen).logits(IDS)).abs().max() > 0.1
    assert not any("lora" in name for name, _ in ours.named_parameters())
    words = AutoTokenizer.from_pretrained(out)
    assert words("LAB//HB: 1.1")["input_ids"] == load(out)._words.encode("LAB//HB: 1.1").ids
    assert Embedder.load(out).context == 128


def test_an_interrupted_run_ends_as_one_that_was_not(qwen, corpus, tmp_path):
    whole, broken = with_and_without_a_break(corpus, SETTINGS, qwen, tmp_path)
    assert (whole / "model.safetensors").read_bytes() == (broken / "model.safetensors").read_bytes()


@pytest.mark.parametrize("objective", ["state_jepa", "time_to_event", "smb_faithful"])
def test_what_needs_to_know_when_is_not_learned_from_text(qwen, corpus, objective):
    with pytest.raises(InputError, match=f"{objective} learns what comes when"):
        Run(RunPlan.of(corpus, replace(SETTINGS, objective=objective), init_from=qwen), ProcessGroup())


def test_a_rank_needs_a_model_and_the_package(qwen, corpus, monkeypatch):
    with pytest.raises(InputError, match="name it with `init_from`"):
        RunPlan.of(corpus, SETTINGS)

    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(lora, "import_module", missing)
    with pytest.raises(InputError, match=r"pip install 'sequela\[lora\]'"):
        RunPlan.of(corpus, SETTINGS, init_from=qwen).decoder()
    assert RunPlan.of(corpus, replace(SETTINGS, lora_rank=0), init_from=qwen).decoder()  # the control
