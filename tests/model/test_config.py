import json

import pytest
import torch

from sequela.errors import InputError
from sequela.model.config import ModelConfig
from sequela.model.decoder import Decoder


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
@pytest.mark.parametrize("tied", [True, False])
def test_the_parameter_count_is_that_of_the_weights(family, tied):
    config = ModelConfig(
        101, family=family, hidden_size=48, layers=2, heads=4, kv_heads=2, head_dim=16, tied_embeddings=tied
    )
    assert config.parameters == sum(w.numel() for w in Decoder(config).parameters())


@pytest.mark.parametrize(
    ("name", "layers", "width", "heads", "inner", "millions"),
    [
        ("comet-s", 6, 768, 12, 3072, 62.1),
        ("comet-m", 12, 768, 12, 3072, 118.7),
        ("comet-l", 16, 2048, 32, 8192, 1088.5),
    ],
)
def test_comets_published_sizes(tmp_path, name, layers, width, heads, inner, millions):
    from transformers import AutoConfig, AutoModelForCausalLM

    config = ModelConfig.named(name, 7105)
    assert round(config.parameters / 1e6, 1) == millions
    assert (config.layers, config.hidden_size, config.heads, config.intermediate_size) == (
        layers,
        width,
        heads,
        inner,
    )
    assert (config.family, config.kv_heads, config.head_dim, config.context) == ("qwen2", heads, 64, 8192)
    config.save(tmp_path)
    with torch.device("meta"):
        theirs = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path))
    assert theirs.num_parameters() == config.parameters


def test_one_dial_sets_the_shape():
    small, large = ModelConfig.of_depth(2, 100, 512), ModelConfig.of_depth(12, 7105, 8192)
    assert (small.hidden_size, small.heads, small.head_dim, small.layers) == (128, 4, 32, 2)
    assert (large.hidden_size, large.heads, large.head_dim, large.intermediate_size) == (768, 12, 64, 3072)


@pytest.mark.parametrize(("name", "depth"), [("nano", 1), ("demo", 2)])
def test_the_small_named_models_are_on_the_dial(name, depth):
    assert ModelConfig.named(name, 96) == ModelConfig.of_depth(depth, 96, 1024)


def test_saving_and_loading_gives_the_same_configuration(tmp_path):
    config = ModelConfig(77, family="qwen3", kv_heads=2, rope_theta=5e5, tied_embeddings=False, time="rotary")
    config.save(tmp_path)
    assert ModelConfig.load(tmp_path) == config


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"model_type": "gpt2"}, "gpt2"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4}}, "rope scaling"),
        ({"use_sliding_window": True}, "sliding-window"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"attention_bias": True}, "bias"),
        ({"hidden_size": None}, "config.json"),
        ({"num_key_value_heads": 3}, "kv_heads"),
    ],
)
def test_a_configuration_we_would_compute_wrongly_is_refused(tmp_path, change, word):
    ModelConfig(77).save(tmp_path)
    body = json.loads((tmp_path / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in body.items() if v is not None}))
    with pytest.raises(InputError, match=word):
        ModelConfig.load(tmp_path)


def test_a_missing_or_cut_file_is_named(tmp_path):
    with pytest.raises(InputError, match="is missing"):
        ModelConfig.load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "qw')
    with pytest.raises(InputError, match="damaged"):
        ModelConfig.load(tmp_path)
