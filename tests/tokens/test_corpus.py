import json
import shutil

import numpy as np
import polars as pl
import pytest

from sequela.errors import InputError
from sequela.record.dataset import read_events, write_dataset
from sequela.record.events import Events
from sequela.record.worlds.markov import MarkovWorld
from sequela.tokens.corpus import Corpus, _hash, rows_of
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


def test_how_long_records_go_on_is_kept_beside_their_tokens(world_meds, world_corpus):
    corpus = Corpus.load(world_corpus, "train")
    encoded = encode(corpus.tokenizer, Events.of(read_events(world_meds, "train")))
    assert corpus.rest.dtype == np.int32 and corpus.rest.tolist() == encoded.rest.tolist()
    last = np.array([corpus.tokens[row][-1] for row in range(len(corpus.rest))])
    dead = np.isin(last, corpus.tokenizer.final)
    assert ((corpus.rest == -1) == dead).all() and 0 < dead.sum() < len(dead)


def test_of_a_corpus_of_version_0_1_only_the_ends_of_records_are_known(world_corpus, tmp_path):
    shutil.copytree(world_corpus, tmp_path / "old")
    summary = json.loads((tmp_path / "old" / "corpus.json").read_text())
    with pytest.raises(InputError, match="damaged"):
        for path in (tmp_path / "old" / "train").glob("*.rest.npy"):
            path.unlink()
        Corpus.load(tmp_path / "old", "train")
    for shard in summary["splits"]["train"]["shards"]:
        held = {name: np.load(tmp_path / "old" / "train" / f"{shard['shard']}.{name}.npy")
                for name in ("offsets", "patients", "tokens")}  # fmt: skip
        shard["sha256"] = _hash(held)
    (tmp_path / "old" / "corpus.json").write_text(json.dumps(summary))
    now, then = Corpus.load(world_corpus, "train"), Corpus.load(tmp_path / "old", "train")
    assert then.rest.tolist() == np.minimum(now.rest, 0).tolist()


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
