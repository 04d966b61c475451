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


LENGTHS, BEHIND = [21, 9], [3, 8, 8, 15, 21, 26, 30]
"""Two windows in a row, and after how many of its tokens places aside stand in it."""


def with_aside(lengths=LENGTHS, behind=BEHIND):
    """Ids, positions and segments of a row with places aside, which of them these are, and the others; [1, T]."""
    from_start = np.concatenate([np.arange(n) for n in lengths])
    rows = (np.arange(len(from_start)) + 7) % 50, from_start, np.repeat(np.arange(len(lengths)), lengths)
    before = np.array(behind, np.int64)
    aside = np.insert(np.zeros(len(from_start), bool), before, True)[None]
    ids, positions, segments = (np.insert(x, before, x[before - 1])[None] for x in rows)
    positions[aside] += 1
    return torch.from_numpy(ids), torch.from_numpy(positions), segments, aside


def hidden_with(decoder, row, vectors=None, hiding=True):
    """Hidden states [T, C] of a row of `with_aside`, with vectors at the places aside; not `hiding`: all see them."""
    ids, positions, segments, aside = row
    index = torch.from_numpy(np.flatnonzero(aside))
    soft = None if vectors is None else Soft(index, vectors)
    attention = packed(segments, aside=aside if hiding else None)
    return decoder.hidden(ids, positions, attention, soft)[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "lengths, behind", [(LENGTHS, BEHIND), ([450, 9], [3, 8, 8, 200, 449, 455])], ids=["one tile", "several tiles"]
)
def test_tokens_have_the_states_that_they_have_without_places_aside(dtype, lengths, behind):
    """Up to rounding: a product of other sizes takes its sums in another order, that of a linear layer too."""
    decoder, tolerance = model().to(dtype), {torch.float32: 1e-5, torch.float64: 1e-12}[dtype]
    row = with_aside(lengths, behind)
    token = torch.from_numpy(~row[3][0])
    vectors = torch.randn(len(behind), 32, dtype=dtype)
    with torch.no_grad():
        plain = hidden_with(decoder, with_aside(lengths, []))
        assert torch.allclose(hidden_with(decoder, row, vectors)[token], plain, rtol=0, atol=tolerance)
        seen = hidden_with(decoder, row, vectors, hiding=False)  # the control
        assert not torch.allclose(seen[token], plain, atol=1e-2)


def test_what_stands_aside_changes_no_token_and_nothing_else_that_stands_aside():
    """To the bit, also for two behind the same token; and it does change its own state."""
    decoder, row = model(), with_aside()
    place = torch.from_numpy(np.flatnonzero(row[3]))
    vectors = torch.randn(len(BEHIND), 32)
    with torch.no_grad():
        states = hidden_with(decoder, row, vectors)
        for number in range(len(BEHIND)):
            other = vectors.clone()
            other[number] += 1
            change = (hidden_with(decoder, row, other) != states).any(-1)
            assert change.nonzero().flatten().tolist() == [int(place[number])]


def test_a_place_aside_reads_what_it_would_at_the_end_of_the_tokens_before_it():
    """The last position of a row that ends there, in place of an embedding."""
    decoder, row = model().double(), with_aside()
    vectors = torch.randn(len(BEHIND), 32, dtype=torch.float64)
    with torch.no_grad():
        states = hidden_with(decoder, row, vectors)[torch.from_numpy(row[3][0])]
        for number, behind in enumerate(BEHIND):
            first = 0 if behind <= LENGTHS[0] else LENGTHS[0]
            ids = torch.cat([torch.arange(first, behind) + 7, torch.zeros(1, dtype=torch.int64)])[None]
            soft = Soft(torch.tensor([behind - first]), vectors[number : number + 1])
            assert torch.allclose(decoder.hidden(ids, soft=soft)[0, -1], states[number], rtol=0, atol=1e-12)


def test_the_loss_of_tokens_gives_no_gradient_to_what_stands_aside():
    decoder, row = model(), with_aside()
    vectors = torch.randn(len(BEHIND), 32, requires_grad=True)
    states, aside = hidden_with(decoder, row, vectors), torch.from_numpy(row[3][0])
    (of_tokens,) = torch.autograd.grad(states[~aside].square().sum(), vectors, retain_graph=True)
    (of_states,) = torch.autograd.grad(states[aside].sum(1).square().sum(), vectors)
    assert (of_tokens == 0).all() and (of_states.abs().amax(-1) > 0).all()
