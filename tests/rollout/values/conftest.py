"""A model with random weights that has state tokens and a value head."""

import shutil

import numpy as np
import pytest
import torch

from sequela.model.hazards import ForeseenEvents, Hazards
from sequela.model.states import StateTokens
from sequela.tokens.ehr.tokenizer import EhrTokenizer

EDGES = (0.0, 2.0, 10.0)


def with_head(model, out, edges=EDGES):
    """A copy of a checkpoint with a head of random weights: it foresees death, entry, and each value of creatinine."""
    shutil.copytree(model, out)
    tokenizer = EhrTokenizer.load(out)
    codes = np.array(tokenizer.codes)
    sets = [np.flatnonzero(codes == code).tolist() for code in ("MEDS_DEATH", "COHORT//ENTRY")]
    sets += [[token] for token in np.flatnonzero(codes == "LAB//CREATININE").tolist()]
    width = StateTokens(32).initialize(torch.Generator().manual_seed(0))
    width.save(out)
    torch.manual_seed(1)
    hazards = Hazards(32, len(sets), edges)
    with torch.no_grad():
        hazards.base.fill_(-3.0)
    names = tuple(tokenizer.vocabulary.tokens[tokens[0]] for tokens in sets)
    hazards.save(out, ForeseenEvents(names, tuple(map(tuple, sets)), tokenizer.vocabulary.hash))
    return out


@pytest.fixture(scope="session")
def headed(rough, tmp_path_factory):
    """Such a model of the known world."""
    return with_head(rough, tmp_path_factory.mktemp("headed") / "model")
