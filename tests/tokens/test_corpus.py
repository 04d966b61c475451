import json
import shutil

import numpy as np
import polars as pl
import pytest

from sequela.errors import InputError
from sequela.record.dataset import read_events, write_dataset
from sequela.record.events import Events
from sequela.record.worlds.markov import MarkovWorld
from sequela.tokens.corpus import Corpus, rows_of
from sequela.tokens.ehr.encode import encode
from sequela.tokens.ehr.tokenize import tokenize


def test_every_patient_of_a_split_has_its_row(world_meds, world_corpus):
    for split in ("train", "tuning", "held_out"):
        corpus = Corpus.load(world_corpus, split)
        events = read_events(world_meds, split)
        assert corpus.patients.tolist() == sorted(events["subject_id"].unique())
        again = encode(corpus.tokenizer, Events.of(events)).tokens
        assert all(corpus.tokens[row].tolist() == again[row].tolist() for row in range(len(again)))
        about = json.loads((world_corpus / "corpus.json").read_text())["splits"][split]["shards"]
        of_shards = [rows_of(world_corpus / split, one["shard"]).flat for one in about]
        assert np.concatenate(of_shards).tolist() == again.flat.tolist()


def test_nothing_of_held_out_patients_enters_the_tokenizer(world_meds, world_corpus, tmp_path):
    changed = tmp_path / "meds"
    shutil.copytree(world_meds, changed)
    for split in ("held_out", "tuning", "train"):
        path = next((changed / "data" / split).glob("*.parquet"))
        frame = pl.read_parquet(path).with_columns(pl.col("numeric_value") * 3)
        frame.write_parquet(path)
        out = tmp_path / split
        out.mkdir()
        tokenize(changed, out)
        same = (out / "vocabulary.json").read_bytes() == (world_corpus / "vocabulary.json").read_bytes()
        assert same == (split != "train")  # train is the negative control


def test_a_damaged_or_foreign_corpus_is_refused(world_corpus, tmp_path):
    def broken(name):
        shutil.copytree(world_corpus, tmp_path / name)
        return tmp_path / name

    flipped = broken("flipped")
    path = next((flipped / "train").glob("*.tokens.npy"))
    tokens = np.load(path)
    tokens[5] += 1
    np.save(path, tokens)
    exchanged = broken("exchanged")
    path = next((exchanged / "train").glob("*.patients.npy"))
    np.save(path, np.load(path)[::-1])
    cut = broken("cut")
    path = next((cut / "train").glob("*.tokens.npy"))
    path.write_bytes(path.read_bytes()[:200])
    foreign = broken("foreign")
    other = tmp_path / "other"
    write_dataset(
        MarkovWorld.known().events(60, seed=5).filter(pl.col("code") != "COHORT//ENTRY"), other, name="other"
    )
    (tmp_path / "other_corpus").mkdir()
    tokenize(other, tmp_path / "other_corpus")
    shutil.copy(tmp_path / "other_corpus" / "vocabulary.json", foreign / "vocabulary.json")
    for folder, word in (
        (flipped, "damaged"),
        (exchanged, "damaged"),
        (cut, "no whole"),
        (foreign, "was made with vocabulary"),
    ):
        with pytest.raises(InputError, match=word):
            Corpus.load(folder, "train")
    with pytest.raises(InputError, match="no whole 'test' corpus"):
        Corpus.load(world_corpus, "test")


def test_the_report_counts_patients_events_and_tokens(world_meds, world_corpus):
    about = json.loads((world_corpus / "corpus.json").read_text())["splits"]["train"]
    events = read_events(world_meds, "train")
    assert about["patients"] == events["subject_id"].n_unique()
    assert about["events"] == len(
        events.filter(pl.col("code").is_in(["LAB//CREATININE", "COHORT//ENTRY", "MEDS_DEATH"]))
    )


def test_a_dataset_without_tuning_patients_has_an_empty_tuning_corpus(tmp_path):
    write_dataset(
        MarkovWorld.known().events(80, seed=1), tmp_path / "meds", name="small", fractions=(0.8, 0.0, 0.2)
    )
    (tmp_path / "corpus").mkdir()
    tokenize(tmp_path / "meds", tmp_path / "corpus")
    assert len(Corpus.load(tmp_path / "corpus", "tuning").tokens) == 0
    assert len(Corpus.load(tmp_path / "corpus", "train").tokens) > 0
