from dataclasses import replace

import pytest
import torch

from sequela.errors import InputError
from sequela.model.config import ModelConfig
from sequela.model.decoder import Decoder


def model(seed=0):
    return Decoder(
        ModelConfig(50, hidden_size=32, layers=2, heads=2, kv_heads=1, head_dim=16, intermediate_size=64)
    ).initialize(seed)


def test_no_position_sees_what_comes_after_it():
    decoder = model()
    a = torch.randint(0, 50, (1, 12))
    b = a.clone()
    b[0, 8] = (b[0, 8] + 1) % 50
    difference = (decoder.logits(a) - decoder.logits(b)).abs().amax(-1)[0]
    assert (difference[:8] == 0).all() and (difference[8:] > 0).all()


def test_the_weights_depend_on_the_seed_alone():
    one, same, other = (model(seed).blocks[1].qkv.weight for seed in (3, 3, 4))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_embeddings_are_tied():
    decoder = model()
    assert decoder.head.weight is decoder.embedding.weight


def test_a_model_that_reads_time_from_positions_wants_them():
    plain, ids = model(), torch.arange(6)[None]
    timed = Decoder(replace(plain.config, time="rotary")).initialize(0)
    with pytest.raises(InputError, match="give them"):
        timed.logits(ids)
    assert torch.equal(timed.logits(ids, torch.arange(6)[None]), plain.logits(ids))
