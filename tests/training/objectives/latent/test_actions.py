"""Which tokens are interventions, and that unknown ones leave no trace."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sequela.errors import InputError
from sequela.tokens.corpus import Corpus
from sequela.tokens.ragged import Ragged
from sequela.training.objectives.latent.actions import Actions, ActionsBatch, action_tokens
from sequela.training.objectives.target import normalized


@pytest.fixture(scope="module")
def tokenizer(world_corpus):
    return Corpus.load(world_corpus, "train").tokenizer


def names(tokenizer, *wanted):
    return np.array(tokenizer.vocabulary.tokens)[action_tokens(tokenizer, wanted)].tolist()


def test_interventions_are_kinds_of_events_or_beginnings_of_codes(tokenizer):
    labs = names(tokenizer, "lab")
    assert labs and all(name.startswith("LAB//") for name in labs) and labs == names(tokenizer, "LAB//")
    assert names(tokenizer, "MEDS_D") == ["MEDS_DEATH"]
    assert set(names(tokenizer, "lab", "death")) == {*labs, "MEDS_DEATH"}
    assert not names(tokenizer)


@pytest.mark.parametrize("name", ["labs", "medication", "TIME//", "BOS", ""])
def test_a_name_that_fits_nothing_is_refused(tokenizer, name):
    with pytest.raises(InputError, match=f"`actions` names '{name}', which is no kind of event in these records"):
        action_tokens(tokenizer, (name,))


def test_what_is_done_is_the_mean_of_its_embeddings_and_what_is_unknown_nothing():
    decoder = SimpleNamespace(embedding=torch.nn.Embedding(9, 4))
    done = Ragged(np.array([3, 5, 5, 7]), np.array([0, 3, 3, 4]))
    given = np.array([True, True, False])
    batch, actions = ActionsBatch.of(done, given, torch.device("cpu")), Actions(4)
    found = actions(batch, decoder, batch.given)
    mean = decoder.embedding.weight[[3, 5, 5]].mean(0)
    torch.testing.assert_close(found[0], actions.projection(normalized(mean)))
    torch.testing.assert_close(found[1], actions.projection.bias)  # it is known that nothing was done
    assert not found[2].any() and not torch.equal(found[1], found[2])
    found.sum().backward()
    assert decoder.embedding.weight.grad is None and actions.projection.weight.grad.abs().sum() > 0
