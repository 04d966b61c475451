"""A model that needs no training, for tests of whole simulations."""

import pytest
import torch

from sequela.model import checkpoint
from sequela.model.config import ModelConfig
from sequela.model.decoder import Decoder
from sequela.tokens.ehr.grammar.fit import load_grammar
from sequela.tokens.ehr.tokenizer import EhrTokenizer


@pytest.fixture(scope="session")
def rough(world_corpus, tmp_path_factory):
    """A model that was never trained: it says anything at any time."""
    out = tmp_path_factory.mktemp("rough")
    tokenizer = EhrTokenizer.load(world_corpus)
    tokenizer.save(out)
    load_grammar(world_corpus, tokenizer).save(out)
    config = ModelConfig(
        len(tokenizer.vocabulary), hidden_size=32, heads=2, kv_heads=1, head_dim=16, intermediate_size=64,
        layers=1, context=64, vocabulary=tokenizer.vocabulary.hash,
    )  # fmt: skip
    decoder = Decoder(config).initialize(0)
    with torch.no_grad():
        for weight in decoder.parameters():
            if weight.dim() > 1:
                weight.mul_(7)
    checkpoint.save(decoder, out)
    return out
