"""A model that needs no training, for tests of whole simulations."""

from pathlib import Path

import pytest
import torch

from sequela.model import checkpoint
from sequela.model.config import ModelConfig
from sequela.model.decoder import Decoder
from sequela.tokens.ehr.grammar.fit import load_grammar
from sequela.tokens.ehr.tokenizer import EhrTokenizer
from tests.tokens.ehr.conftest import two_token_corpus  # noqa: F401


@pytest.fixture(scope="session")
def rough(world_corpus, tmp_path_factory):
    """A model that was never trained: it says anything at any time."""
    return untrained(world_corpus, tmp_path_factory.mktemp("rough"))


@pytest.fixture(scope="session")
def rough_two_tokens(two_token_corpus, tmp_path_factory):  # noqa: F811
    """`rough`, with two tokens for a code and its value."""
    return untrained(two_token_corpus, tmp_path_factory.mktemp("rough-two-tokens"))


def untrained(corpus: Path, out: Path) -> Path:
    """Write into `out` a model of the corpus with random weights, large enough to have an opinion."""
    tokenizer = EhrTokenizer.load(corpus)
    tokenizer.save(out)
    load_grammar(corpus, tokenizer).save(out)
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
