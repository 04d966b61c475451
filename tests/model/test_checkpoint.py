import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sequela.errors import InputError
from sequela.model import checkpoint
from sequela.model.attention import Masked
from sequela.model.config import ModelConfig
from sequela.model.decoder import Decoder

SHAPES = [
    {"hidden_size": 48, "layers": 3, "heads": 4, "kv_heads": 2, "head_dim": 16, "intermediate_size": 100},
    {
        "hidden_size": 64,
        "layers": 1,
        "heads": 2,
        "kv_heads": 2,
        "head_dim": 32,
        "intermediate_size": 96,
        "rope_theta": 1e6,
    },
]


def random_model(family, tied, shape, vocab=71):
    """A decoder whose weights are far from any special value, so that a wrong wiring shows."""
    model = Decoder(ModelConfig(vocab, family=family, tied_embeddings=tied, **shape))
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            around = 1.0 if "norm" in name else 0.0
            weight.copy_(around + 0.2 * torch.randn(weight.shape, generator=random))
    return model.eval()


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_transformers_computes_the_same_logits(tmp_path, family, tied, shape):
    from transformers import AutoModelForCausalLM

    ours = random_model(family, tied, shape)
    checkpoint.save(ours, tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    ids = torch.randint(0, 71, (3, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = ours.logits(ids)
        assert plain.std() > 0.5
        assert torch.allclose(plain, theirs(ids).logits, atol=1e-4)

        # Rows padded at the end.
        real = torch.arange(20) < torch.tensor([20, 11, 3])[:, None]
        padded = theirs(ids.where(real, 0), attention_mask=real.long()).logits
        assert torch.allclose(ours.logits(ids.where(real, 0))[real], padded[real], atol=1e-4)

        # Packed rows: positions restart with each patient, who sees nobody else.
        segments = np.array([[0] * 5 + [1] * 15, [0] * 20, [0] * 2 + [1] * 9 + [2] * 9])
        positions = torch.tensor([[*range(n), *range(20 - n)] for n in (5, 20, 2)])
        positions[2, 11:] = torch.arange(9)
        mask = Masked.packed(segments)
        packed = ours.logits(ids, positions, mask)
        additive = torch.zeros(3, 1, 20, 20).masked_fill(
            ~mask.mask_BTT[:, None], torch.finfo(torch.float32).min
        )
        assert torch.allclose(
            packed, theirs(ids, position_ids=positions, attention_mask=additive).logits, atol=1e-4
        )
        assert not torch.allclose(packed, plain, atol=1e-2)  # negative control: packing matters

        # And back: a folder that transformers saved loads here.
        theirs.save_pretrained(tmp_path / "back")
        again = checkpoint.load(tmp_path / "back")
        assert torch.allclose(again.logits(ids), plain, atol=1e-4)


def test_a_sharded_folder_of_transformers_loads(tmp_path):
    from transformers import AutoModelForCausalLM

    ours = random_model("llama", False, SHAPES[0])
    checkpoint.save(ours, tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    theirs.save_pretrained(tmp_path / "shards", max_shard_size="50KB")
    assert not (tmp_path / "shards" / "model.safetensors").exists()
    ids = torch.arange(12)[None]
    assert torch.equal(checkpoint.load(tmp_path / "shards").logits(ids), ours.logits(ids))


def damaged(tmp_path, what):
    model = random_model("qwen2", True, SHAPES[0])
    checkpoint.save(model, tmp_path)
    weights = tmp_path / "model.safetensors"
    if what == "cut short":
        weights.write_bytes(weights.read_bytes()[:5000])
    elif what == "pickle":
        weights.unlink()
        torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    elif what == "other model":
        body = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(body | {"hidden_size": 32}))
    elif what == "tensor missing":
        stored = load_file(weights)
        stored.pop("model.norm.weight")
        save_file(stored, weights)
    return tmp_path


@pytest.mark.parametrize(
    ("what", "word"),
    [
        ("cut short", "not a whole safetensors file"),
        ("pickle", "never pickles"),
        ("other model", "has shape"),
        ("tensor missing", "lacks the tensor"),
    ],
)
def test_a_truncated_or_foreign_checkpoint_is_refused(tmp_path, what, word):
    with pytest.raises(InputError, match=word):
        checkpoint.load(damaged(tmp_path, what))


def test_an_undamaged_one_is_not(tmp_path):
    assert checkpoint.load(damaged(tmp_path, "nothing")).config.layers == 3


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_checkpoint_that_may_not_be_read_is_not_called_missing(tmp_path, locked, name):
    checkpoint.save(random_model("qwen3", True, SHAPES[1]), tmp_path)
    with locked(tmp_path / name), pytest.raises(InputError, match=rf"{name} cannot be opened \(permission denied\)"):
        checkpoint.load(tmp_path, "cpu")


def test_llama_3_stretches_its_positions_as_transformers_does(tmp_path):
    from transformers import AutoModelForCausalLM, LlamaConfig

    scaling = {
        "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }  # fmt: skip
    config = LlamaConfig(
        vocab_size=71, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
        intermediate_size=100, max_position_embeddings=512, rope_parameters=scaling, bos_token_id=5, eos_token_id=6,
    )  # fmt: skip
    theirs = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    theirs.save_pretrained(tmp_path)
    ours, ids = checkpoint.load(tmp_path), torch.arange(200)[None] % 71
    with torch.no_grad():
        assert torch.allclose(ours.hidden(ids), theirs.model(ids).last_hidden_state, atol=1e-4)
        plain = Decoder(replace(ours.config, rope_scaling=None)).eval()
        plain.load_state_dict(ours.state_dict())
        assert not torch.allclose(plain.hidden(ids), ours.hidden(ids), atol=1e-2)  # the control
        (tmp_path / "again").mkdir()
        checkpoint.save(ours, tmp_path / "again")
        again = AutoModelForCausalLM.from_pretrained(tmp_path / "again", dtype=torch.float32)
        assert torch.allclose(again(ids).logits, theirs(ids).logits, atol=1e-4)
    assert again.config.bos_token_id == 5 and again.config.eos_token_id == 6


def test_a_model_that_passes_everything_on_is_read_through_its_wrapper(tmp_path):
    ours = random_model("qwen3", True, SHAPES[0])
    checkpoint.save(ours, tmp_path)
    body = json.loads((tmp_path / "config.json").read_text())
    wrapped = {"model_type": "smb_unstructured", "text_config": body, "hidden_size": 48, "vocab_size": 71}
    (tmp_path / "config.json").write_text(json.dumps(wrapped))
    stored = load_file(tmp_path / "model.safetensors")
    low = {f"language_model.{name}": weight.bfloat16() for name, weight in stored.items()}
    save_file(low, tmp_path / "model.safetensors")
    loaded, ids = checkpoint.load(tmp_path), torch.arange(12)[None]
    assert loaded.config.family == "qwen3" and loaded.embedding.weight.dtype == torch.float32
    with torch.no_grad():
        for weight in ours.parameters():
            weight.copy_(weight.bfloat16())
        assert torch.equal(loaded.logits(ids), ours.logits(ids))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "smb_unstructured"}))
    with pytest.raises(InputError, match="is of no model type"):
        checkpoint.load(tmp_path)
