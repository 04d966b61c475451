"""From a MEDS dataset to a corpus of text, and from there to a model that reads it."""

import numpy as np
import pytest

import sequela
from sequela.errors import InputError
from sequela.record.dataset import read_events
from sequela.record.events import Events
from sequela.record.schema import SPLITS
from sequela.tokens.corpus import Corpus
from sequela.tokens.text.serialize import serialize
from sequela.tokens.text.settings import TextSettings
from tests.tokens.text.language_model import language_model


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    return language_model(tmp_path_factory.mktemp("tokenize") / "qwen")


def test_a_corpus_holds_the_records_of_every_split_as_text(qwen, world_meds, tmp_path):
    out = tmp_path / "corpus"
    manifest = sequela.tokenize(world_meds, out, backbone=qwen, text_days="age")
    assert set(manifest["inputs"]) == {"meds", "backbone"} and manifest["settings"]["text_days"] == "age"
    for split in SPLITS:
        corpus, events = Corpus.load(out, split), Events.of(read_events(world_meds, split))
        assert corpus.tokenizer.settings == TextSettings(text_days="age") and corpus.rest is None
        assert corpus.patients.tolist() == np.unique(events.patient).tolist()
        text = serialize(events, corpus.tokenizer.settings)[1].text
        assert corpus.tokenizer._words.decode(corpus.tokens[1].tolist()) == text
    assert sequela.tokenize(world_meds, out, backbone=qwen, text_days="age")["skipped"]


def test_settings_of_text_need_a_language_model(qwen, world_meds, tmp_path):
    with pytest.raises(InputError, match="name a `backbone` too"):
        sequela.tokenize(world_meds, tmp_path / "corpus", text_days="age")
    with pytest.raises(InputError, match="`quantiles` is of tokens that are events"):
        sequela.tokenize(world_meds, tmp_path / "corpus", backbone=qwen, quantiles=4)
    with pytest.raises(InputError, match=r"has no tokenizer\.json"):
        (tmp_path / "empty").mkdir()
        sequela.tokenize(world_meds, tmp_path / "corpus", backbone=tmp_path / "empty")
