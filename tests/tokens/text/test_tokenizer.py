"""Records in the words of a language model: rows of tokens, cut between days."""

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

from sequela.errors import InputError
from sequela.record.events import Events
from sequela.tokens.packing import Windows, front_of
from sequela.tokens.ragged import Ragged
from sequela.tokens.text.settings import TextSettings
from sequela.tokens.text.tokenizer import TextTokenizer, reader
from sequela.tokens.tokenizer import load
from tests.tokens.text.language_model import language_model


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    return language_model(tmp_path_factory.mktemp("tokenizer") / "qwen")


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return language_model(tmp_path_factory.mktemp("tokenizer") / "llama", "llama")


def events(days=6, labs=3, patient=7):
    start = datetime(2024, 1, 5, 8)
    rows = [(patient, None, "GENDER//F", None), (patient, datetime(1985, 3, 15), "MEDS_BIRTH", None)]
    for day in range(days):
        for lab in range(labs):
            rows.append((patient, start + timedelta(days=day, minutes=lab), f"LAB//{lab}%)", 1.5 + day))
    types = {"subject_id": pl.Int64, "time": pl.Datetime("us"), "code": pl.String, "numeric_value": pl.Float32}
    return pl.DataFrame(rows, schema=types, orient="row")


def row(tokenizer, frame):
    encoded = tokenizer.encode(Events.of(frame))
    assert encoded.patients.tolist() == [7]
    return np.asarray(encoded.tokens[0], np.int64)


def text(tokenizer, ids):
    return tokenizer._words.decode(ids.tolist(), skip_special_tokens=False)


@pytest.mark.parametrize("days", ["date", "age"])
@pytest.mark.parametrize("family", ["qwen", "llama"])
def test_breaks_are_where_days_begin(qwen, llama, family, days):
    folder = {"qwen": qwen, "llama": llama}[family]
    tokenizer = TextTokenizer.load(folder).written_as(TextSettings(text_days=days))
    ids = row(tokenizer, events())
    breaks = tokenizer.breaks(ids)
    assert len(breaks) == 6
    pieces = [text(tokenizer, piece) for piece in np.split(ids, breaks)]
    assert pieces[0].endswith("\n\n\n") and "GENDER//F" in pieces[0]
    heading = "[2024-01-" if days == "date" else "[age 38, day "
    assert all(piece.startswith(heading) and piece.count(heading) == 1 for piece in pieces[1:])


@pytest.mark.parametrize("length", [90, 120, 150])
def test_the_oldest_days_are_dropped_and_what_opens_a_record_is_kept(qwen, length):
    tokenizer = TextTokenizer.load(qwen)
    ids = row(tokenizer, events(days=30))
    start, front = front_of(ids, tokenizer.head, tokenizer.carried, length, tokenizer.breaks)
    kept = text(tokenizer, np.concatenate([front, ids[start:]]))
    days = 30 - list(tokenizer.breaks(ids)).index(start)
    assert kept == text(tokenizer, front) + "\n\n".join(text(tokenizer, ids).split("\n\n")[-days:])
    assert kept.startswith("GENDER//F\nBirth: 1985-03-15\n\n\n[") and "[2024-02-03]\nLAB//0%): 30.5" in kept
    assert len(front) + len(ids) - start <= length
    one_more = list(tokenizer.breaks(ids))[-days - 1]
    assert len(front) + len(ids) - one_more > length  # the control: no day was dropped that had room


def test_a_day_that_is_too_long_keeps_its_newest_lines_and_the_opening(qwen):
    tokenizer = TextTokenizer.load(qwen)
    ids = row(tokenizer, events(days=2, labs=40))
    start, front = front_of(ids, tokenizer.head, tokenizer.carried, 100, tokenizer.breaks)
    assert text(tokenizer, front).startswith("GENDER//F\nBirth: ") and len(front) + len(ids) - start == 100
    assert text(tokenizer, ids[start:]).endswith("LAB//39%): 2.5")


def test_windows_of_training_are_cut_between_days_and_lose_nothing(qwen):
    tokenizer = TextTokenizer.load(qwen)
    ids = row(tokenizer, events(days=30))
    windows = Windows.of(Ragged.of([ids]), tokenizer.head, (), 128, None, tokenizer.breaks)
    assert len(windows) > 5 and windows.lengths.max() <= 128
    held = np.concatenate([ids[windows.start[n] : windows.stop[n]] for n in range(len(windows))])
    assert held.tolist() == ids.tolist()
    for number in range(1, len(windows)):
        assert text(tokenizer, windows[number]).startswith("GENDER//F\nBirth: 1985-03-15\n\n\n[2024-0")
    anywhere = Windows.of(Ragged.of([ids]), tokenizer.head, (), 128)  # the control
    assert not text(tokenizer, anywhere[1]).startswith("GENDER")


def test_a_row_begins_the_row_of_a_longer_record(qwen):
    tokenizer = TextTokenizer.load(qwen)
    short, long = (row(tokenizer, events(days)) for days in (3, 6))
    shared = np.argmin(np.append(long[: len(short)] == short, False))
    assert len(short) - shared <= 1  # a line that ends with a sign takes the line end into its last token


def test_nobody_without_a_dated_event_has_a_row(qwen):
    tokenizer = TextTokenizer.load(qwen)
    both = pl.concat([events(days=0), events(patient=8)])
    assert tokenizer.encode(Events.of(both)).patients.tolist() == [8]


def test_a_folder_says_itself_how_it_reads(qwen, world_corpus, tmp_path):
    asked = TextSettings(text_days="age")
    tokenizer = reader(qwen, asked)
    assert tokenizer.settings == asked and reader(qwen).settings == TextSettings()
    tokenizer.save(tmp_path)
    again = load(tmp_path)
    assert again.settings == asked and again.vocabulary.hash == tokenizer.vocabulary.hash == load(qwen).vocabulary.hash
    for folder in (tmp_path, world_corpus):
        with pytest.raises(InputError, match="says itself how it reads records"):
            reader(folder, TextSettings(text_values=1))


def test_edited_files_are_told(qwen, tmp_path):
    load(qwen).save(tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_text(path.read_text().replace("NFC", "NFD"))
    with pytest.raises(InputError, match="is not the one that"):
        load(tmp_path)


def test_text_cannot_be_simulated(qwen, tmp_path):
    from sequela.tokens.ehr.tokenizer import EhrTokenizer

    load(qwen).save(tmp_path)
    with pytest.raises(InputError, match="not simulated"):
        EhrTokenizer.load(tmp_path)
    with pytest.raises(InputError, match="not read back"):
        load(tmp_path).decode(Ragged.of([[1]]), np.zeros(1, np.int64))
