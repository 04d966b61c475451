"""The door for tokenizers: a second kind, registered here, goes through corpus, windows and back."""

import json

import numpy as np
import polars as pl
import pytest

from sequela.errors import InputError
from sequela.tokens import tokenizer as module
from sequela.tokens.corpus import Corpus, write_corpus
from sequela.tokens.ehr.tokenizer import EhrTokenizer
from sequela.tokens.packing import Windows, collate
from sequela.tokens.tokenizer import load, register
from sequela.tokens.vocabulary import BOS, Vocabulary, read_vocabulary, write_vocabulary
from tests.tokens.byte_text import KIND, ByteTokenizer, events_of, ids

TEXTS = {7: ["How old is she?", "Ünknown."], 9: ["No fever", "since\nMonday 🙂"], 12: [""]}


def test_another_kind_of_tokenizer_writes_a_corpus_that_is_loaded_packed_and_decoded(tmp_path):
    events = events_of(TEXTS)
    cut = int(np.searchsorted(events.patient, 9))
    blocks = [events.take(np.arange(cut)), events.take(np.arange(cut, len(events)))]
    index = write_corpus(ByteTokenizer(), {"train": blocks}, tmp_path)
    assert len(index["splits"]["train"]["shards"]) == 2 and index["splits"]["tuning"]["patients"] == 0

    corpus = Corpus.load(tmp_path, "train")
    assert isinstance(corpus.tokenizer, ByteTokenizer) and corpus.clock is None
    assert corpus.patients.tolist() == [7, 9, 12] and corpus.events == 5
    assert len(Corpus.load(tmp_path, "held_out").tokens) == 0

    windows = Windows.of(corpus.tokens, corpus.tokenizer.head, corpus.tokenizer.carried, 16, corpus.clock)
    assert windows.lengths.max() == 16 and windows.fronts.lengths.sum() == 0  # nothing is repeated
    row = collate(windows, np.flatnonzero(windows.patient == 0))
    text = [BOS, *ids(TEXTS[7][0]), *ids(TEXTS[7][1])]
    assert row.ids[0, : len(text)].tolist() == text
    assert row.positions[0, :20].tolist() == [*range(16), *range(4)]

    for part, patients in zip(corpus.tokens.parts, ([7], [9, 12]), strict=True):
        back = corpus.tokenizer.decode(part, np.zeros(len(part), np.int64))
        assert back.text.to_list() == [text for patient in patients for text in TEXTS[patient]]


def test_events_that_cannot_be_encoded_are_counted(tmp_path):
    events = events_of({1: ["a", "b"]})
    frame = events.frame().with_columns(text_value=pl.Series(["a", None]), code=pl.Series(["TEXT", "LAB//X"]))
    index = write_corpus(ByteTokenizer(), {"train": [type(events).of(frame)]}, tmp_path)
    assert index["splits"]["train"]["dropped_events"] == {"LAB//X": 1}


def test_the_kind_in_the_file_says_which_class_loads_it(world_corpus, tmp_path):
    ByteTokenizer().save(tmp_path)
    assert isinstance(load(tmp_path), ByteTokenizer)
    assert isinstance(load(world_corpus), EhrTokenizer)
    assert read_vocabulary(world_corpus)["kind"] == "ehr"


def test_a_folder_of_version_0_1_names_no_kind_and_is_of_ehr(world_corpus, tmp_path):
    tokenizer = EhrTokenizer.load(world_corpus)
    tokenizer.save(tmp_path)
    path = tmp_path / "vocabulary.json"
    body = json.loads(path.read_text())
    del body["kind"], body["checksum"]
    path.write_text(json.dumps({**body, "checksum": older_checksum(body)}))
    assert load(tmp_path).vocabulary == tokenizer.vocabulary
    path.write_text(
        json.dumps({**body, "checksum": older_checksum({**body, "hash": ""})})
    )  # negative control
    with pytest.raises(InputError, match="was edited"):
        load(tmp_path)


def older_checksum(body):
    """As version 0.1 made it."""
    import hashlib

    return hashlib.sha256(json.dumps(body).encode()).hexdigest()


def test_an_unknown_kind_is_refused_in_a_sentence(tmp_path):
    write_vocabulary(tmp_path, "byte", Vocabulary(("PAD", "BOS")), {})
    with pytest.raises(InputError, match=r"unknown kind 'byte' \(did you mean 'bytes'\?\)"):
        load(tmp_path)


def test_a_kind_cannot_be_taken_by_another_class():
    register(KIND, module._CLASSES[KIND])  # again: no harm
    with pytest.raises(ValueError, match="already"):
        register(KIND, "elsewhere:Other")
