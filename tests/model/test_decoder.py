from dataclasses import replace

import numpy as np
import pytest
import torch

from sequela.errors import InputError
from sequela.model import prepacked
from sequela.model.attention import packed
from sequela.model.config import ModelConfig
from sequela.model.decoder import Decoder, Soft


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


IDS = torch.tensor([[3, 7, 1, 9, 4, 2], [5, 8, 6, 0, 11, 12]])
INDEX = torch.tensor([1, 2, 9])  # two places of the first row, one of the second


def embedded(decoder, index=INDEX):
    """The embeddings of the ids in these places, to be given as vectors."""
    return Soft(index, decoder.embedding(IDS).flatten(0, 1)[index])


def without(ids, index=INDEX):
    """The ids with others in these places, which are not to be read."""
    other = ids.clone().flatten()
    other[index] = 49
    return other.view_as(ids)


def test_embeddings_given_as_vectors_equal_ids_to_the_bit():
    decoder = model()
    assert torch.equal(decoder.logits(without(IDS), soft=embedded(decoder)), decoder.logits(IDS))
    nothing = Soft(INDEX[:0], torch.zeros(0, 32))
    assert torch.equal(decoder.logits(IDS, soft=nothing), decoder.logits(IDS))


def test_other_vectors_change_the_logits_from_their_place_on():
    """The control."""
    decoder = model()
    soft = embedded(decoder)
    other = Soft(soft.index, soft.vectors + 0.1)
    change = (decoder.logits(IDS, soft=other) - decoder.logits(IDS)).abs().amax(-1)
    assert (change[0, :1] == 0).all() and (change[0, 1:] > 0).all()
    assert (change[1, :3] == 0).all() and (change[1, 3:] > 0).all()
    assert not torch.equal(decoder.logits(without(IDS)), decoder.logits(IDS))


def test_bf16_takes_vectors_as_it_takes_ids():
    decoder = model()
    with torch.autocast("cpu", torch.bfloat16):
        plain = decoder.logits(IDS)
        soft = embedded(decoder)
        assert torch.equal(decoder.logits(without(IDS), soft=soft), plain)
        low = Soft(soft.index, soft.vectors.bfloat16())
        assert torch.allclose(decoder.logits(without(IDS), soft=low).float(), plain.float(), atol=1e-2)
    whole = model().to(torch.bfloat16)
    soft = Soft(INDEX, whole.embedding(IDS).flatten(0, 1)[INDEX].float())
    assert torch.equal(whole.hidden(without(IDS), soft=soft), whole.hidden(IDS))


def test_gradients_reach_the_vectors_and_not_the_embeddings_they_replace():
    decoder = model()
    vectors = embedded(decoder).vectors.detach().requires_grad_()
    decoder.hidden(without(IDS), soft=Soft(INDEX, vectors)).square().sum().backward()
    assert (vectors.grad.abs().amax(-1) > 0).all()
    assert (decoder.embedding.weight.grad[49] == 0).all()
    assert (decoder.embedding.weight.grad[3].abs() > 0).any()


def test_packed_rows_and_prepacked_weights_take_vectors_too():
    decoder, segments = model(), np.array([[0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, -1]])
    low = prepacked.packed(decoder)
    with torch.no_grad():
        for which in (decoder, low):
            expected = which.hidden(IDS, attention=packed(segments))
            found = which.hidden(without(IDS), attention=packed(segments), soft=embedded(decoder))
            assert torch.equal(found, expected)
