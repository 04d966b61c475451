"""A corpus with two tokens for a code and its value."""

import pytest

from sequela.tokens.ehr.settings import TokenSettings
from sequela.tokens.ehr.tokenize import tokenize


@pytest.fixture(scope="session")
def two_token_corpus(world_meds, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two-tokens")
    tokenize(world_meds, folder, TokenSettings(fused=False))
    return folder
