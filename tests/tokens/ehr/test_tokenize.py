import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from sequela.errors import InputError
from sequela.record import shards
from sequela.record.dataset import write_dataset
from sequela.record.worlds.markov import MarkovWorld
from sequela.tokens.corpus import Corpus
from sequela.tokens.ehr import tokenize as module
from sequela.tokens.ehr.tokenize import tokenize
from sequela.workers import Workers


def bytes_of(corpus: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(corpus)): file.read_bytes()
        for file in sorted(corpus.rglob("*"))
        if file.is_file()
    }


def made(meds: Path, out: Path, **arguments) -> Path:
    out.mkdir(exist_ok=True)
    tokenize(meds, out, **arguments)
    return out


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """The known world in files of a few row groups of a hundred events: every shard begins inside a patient."""
    out = tmp_path_factory.mktemp("many") / "meds"
    write_dataset(MarkovWorld.known().events(300, seed=3), out, name="world", metadata={"real_dates": False})
    for path in (out / "data").rglob("*.parquet"):
        pq.write_table(pq.read_table(path), path, row_group_size=100)
    return out


@pytest.fixture
def small_shards(monkeypatch):
    """Shards of a few hundred events, in this process."""
    cut = shards.shards_of
    monkeypatch.setattr(module, "shards_of", lambda folder: cut(folder, rows=400))


def test_shards_hold_together_what_one_file_holds(many, tmp_path, small_shards, monkeypatch):
    cut = made(many, tmp_path / "cut", workers=Workers(processes=1))
    monkeypatch.undo()
    whole = made(many, tmp_path / "whole")
    assert (
        len(list((cut / "train").glob("*.tokens.npy"))) > 5
        and len(list((whole / "train").glob("*.tokens.npy"))) == 1
    )
    assert (cut / "vocabulary.json").read_bytes() == (whole / "vocabulary.json").read_bytes()
    for split in ("train", "tuning", "held_out"):
        one, other = Corpus.load(cut, split), Corpus.load(whole, split)
        assert one.patients.tolist() == other.patients.tolist() and one.events == other.events
        assert all(one.tokens[row].tolist() == other.tokens[row].tolist() for row in range(len(one.patients)))


def test_two_processes_write_the_same_bytes_as_one(many, tmp_path, small_shards):
    one = made(many, tmp_path / "one", workers=Workers(processes=1))
    two = made(many, tmp_path / "two", workers=Workers(processes=2))
    assert bytes_of(one) == bytes_of(two)


def test_a_small_dataset_is_read_once_a_large_one_twice_and_codes_are_translated_once(
    many, tmp_path, small_shards, monkeypatch
):
    """The map would rename what it renamed; a dataset in the new names says what must come out."""
    read = []
    once = module.read_shard
    monkeypatch.setattr(
        module, "read_shard", lambda shard, **options: read.append(shard) or once(shard, **options)
    )
    codes = set(pl.read_parquet(many / "data/**/*.parquet", columns=["code"])["code"])
    names = sorted(code for code in codes if not code.startswith(("MEDS_", "FOLLOW_UP", "GENDER", "RACE")))
    rotated = dict(zip(names, names[1:] + names[:1], strict=True))
    pl.DataFrame({"from": rotated.keys(), "to": rotated.values()}).write_csv(tmp_path / "rotated.csv")
    arguments = {"maps": (tmp_path / "rotated.csv",), "workers": Workers(processes=1)}
    small = made(many, tmp_path / "small", **arguments)
    assert len(read) == len(set(read)) > 5
    monkeypatch.setattr(module, "SMALL", 0)
    large = made(many, tmp_path / "large", **arguments)
    assert len(read) == 3 * len(set(read))
    assert bytes_of(small) == bytes_of(large)

    shutil.copytree(many, tmp_path / "renamed")
    for path in (tmp_path / "renamed" / "data").rglob("*.parquet"):
        events = pl.read_parquet(path).with_columns(pl.col("code").replace(rotated))
        pq.write_table(events.to_arrow(), path, row_group_size=100)
    renamed = made(tmp_path / "renamed", tmp_path / "expected", maps=())
    tokens = {name: held for name, held in bytes_of(small).items() if name.endswith(".npy")}
    assert tokens == {name: held for name, held in bytes_of(renamed).items() if name.endswith(".npy")}


def test_a_run_that_was_cut_short_goes_on_and_ends_the_same(many, tmp_path, small_shards, monkeypatch):
    whole = made(many, tmp_path / "whole", workers=Workers(processes=1))
    done = []

    def dies(tokenizer, columns, **options):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(1)
        return module_encode(tokenizer, columns, **options)

    module_encode = module.encode
    monkeypatch.setattr(module, "encode", dies)
    with pytest.raises(KeyboardInterrupt):
        made(many, tmp_path / "resumed", workers=Workers(processes=1))
    monkeypatch.setattr(
        module, "encode", lambda *args, **options: done.append(1) or module_encode(*args, **options)
    )
    made(many, tmp_path / "resumed", workers=Workers(processes=1))
    shards_in_all = sum(
        len(one["shards"]) for one in json.loads((whole / "corpus.json").read_text())["splits"].values()
    )
    assert len(done) == shards_in_all  # no shard twice
    assert bytes_of(tmp_path / "resumed") == bytes_of(whole)


def test_splits_come_from_the_table_and_not_from_the_folder(world_meds, tmp_path):
    """A single file without folders for splits, as some tools write it."""
    flat = tmp_path / "flat"
    (flat / "data").mkdir(parents=True)
    shutil.copytree(world_meds / "metadata", flat / "metadata")
    frames = [pl.read_parquet(path) for path in sorted((world_meds / "data").rglob("*.parquet"))]
    pl.concat(frames).write_parquet(flat / "data" / "all.parquet")
    one, other = made(world_meds, tmp_path / "one"), made(flat, tmp_path / "other")
    assert (one / "vocabulary.json").read_bytes() == (other / "vocabulary.json").read_bytes()
    for split in ("train", "tuning", "held_out"):
        assert Corpus.load(one, split).patients.tolist() == sorted(
            Corpus.load(other, split).patients.tolist()
        )


def test_a_patient_in_two_files_is_refused(world_meds, tmp_path):
    twice = tmp_path / "twice"
    shutil.copytree(world_meds, twice)
    shutil.copy(next((twice / "data" / "train").glob("*.parquet")), twice / "data" / "train" / "copy.parquet")
    with pytest.raises(InputError, match="is also in"):
        made(twice, tmp_path / "corpus")


def test_a_dataset_without_training_patients_is_refused(world_meds, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(world_meds, bare)
    shutil.rmtree(bare / "data" / "train")
    with pytest.raises(InputError, match="no patients in split 'train'"):
        made(bare, tmp_path / "corpus")


def test_codes_are_translated_before_they_are_counted(tmp_path):
    rows = [(n, 1_000_000_000 * (n + 1), "ICD9CM//25000", None) for n in range(400)]
    events = pl.DataFrame(
        rows,
        schema={
            "subject_id": pl.Int64,
            "time": pl.Datetime("us"),
            "code": pl.String,
            "numeric_value": pl.Float32,
        },
        orient="row",
    )
    write_dataset(events, tmp_path / "meds", name="old codes")
    tokens = Corpus.load(made(tmp_path / "meds", tmp_path / "new"), "train").tokenizer.vocabulary.tokens
    assert "ICD10CM//1//E11" in tokens and not any(token.startswith("ICD9CM") for token in tokens)
    about = json.loads((tmp_path / "new" / "corpus.json").read_text())["maps"]["gem"]["ICD9CM"]
    assert about["events_mapped"] == 400
    tokens = Corpus.load(
        made(tmp_path / "meds", tmp_path / "old", maps=()), "train"
    ).tokenizer.vocabulary.tokens
    assert "ICD9CM//25000" in tokens  # negative control


@pytest.mark.parametrize(("one", "other"), [("a/drugs.csv", "b/drugs.csv"), ("a/Drugs.csv", "b/drugs.csv")])
def test_two_maps_of_one_name_are_refused_before_anything_is_saved(world_meds, tmp_path, one, other):
    for name in (one, other):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("from,to\nA//1,B//1\n")
    with pytest.raises(InputError, match="Two code maps are called 'drugs'"):
        made(world_meds, tmp_path / "corpus", maps=(tmp_path / one, tmp_path / other))
    assert not list((tmp_path / "corpus").iterdir())
    made(world_meds, tmp_path / "corpus", maps=(tmp_path / one,))  # negative control


@pytest.mark.parametrize(("real", "periods"), [(True, True), (False, False)])
def test_calendar_periods_are_only_for_real_dates(tmp_path, real, periods):
    write_dataset(
        MarkovWorld.known().events(100, seed=1),
        tmp_path / "meds",
        name="world",
        metadata={"real_dates": real},
    )
    tokens = Corpus.load(made(tmp_path / "meds", tmp_path / "corpus"), "train").tokenizer.vocabulary.tokens
    assert any(token.startswith("YEAR//") for token in tokens) == periods


def test_a_rotary_corpus_has_a_clock_and_no_time_tokens(world_meds, tmp_path):
    from sequela.tokens.ehr.settings import TokenSettings

    corpus = Corpus.load(
        made(world_meds, tmp_path / "corpus", settings=TokenSettings(time="rotary")), "train"
    )
    assert not any(token.startswith("TIME//") for token in corpus.tokenizer.vocabulary.tokens)
    assert corpus.clock is not None and (corpus.clock.lengths == corpus.tokens.lengths).all()
    assert all((np.diff(corpus.clock[row].astype(int)) >= 0).all() for row in range(len(corpus.patients)))
