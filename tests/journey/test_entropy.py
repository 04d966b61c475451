"""A model of a population whose entropy is known comes near to it, and never below."""

import json
from pathlib import Path

import numpy as np
import pytest

from sequela.record.worlds.zipf import ZipfWorld
from sequela.tokens.ehr.tokenize import tokenize
from sequela.training.loop import train
from sequela.training.settings import TrainSettings

SMALL = ZipfWorld.known(states=8, conditions=2, rank=4, events=12.0)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("entropy")
    SMALL.write(folder / "meds", 12_000, seed=0)
    (folder / "corpus").mkdir()
    tokenize(folder / "meds", folder / "corpus")
    return folder / "corpus"


@pytest.mark.parametrize(("tokens", "near"), [(400_000, True), (10_000, False)])
def test_the_loss_comes_down_to_the_entropy(corpus: Path, tmp_path: Path, tokens: int, near: bool) -> None:
    settings = TrainSettings(
        depth=1, tokens=tokens, context=128, learning_rate=1e-2, matrix_rate=1e-2, checks=0
    )
    about = train(corpus, tmp_path, settings)
    patients = json.loads((corpus / "corpus.json").read_text())["splits"]["tuning"]["patients"]
    # Records of a sample need a little more or less than those of the population do on average
    error = 3 * SMALL.bits_per_event / np.sqrt(patients)
    over = about["tuning"]["bits_per_event"] / SMALL.bits_per_event - 1
    assert over > -error / SMALL.bits_per_event
    assert (over < 0.03) == near
