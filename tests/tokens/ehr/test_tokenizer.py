import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sequela.errors import InputError
from sequela.record.events import Events
from sequela.record.schema import BIRTH, DEATH, FOLLOW_UP_END
from sequela.tokens.ehr import fit as fitting
from sequela.tokens.ehr.decode import decode
from sequela.tokens.ehr.encode import MINUTE, encode
from sequela.tokens.ehr.settings import TokenSettings
from sequela.tokens.ehr.tokenizer import EhrTokenizer
from sequela.tokens.vocabulary import Vocabulary, read_vocabulary, write_vocabulary

START = 946_684_800_000_000
CODES = [
    "LAB//A",
    "LAB//B",
    "ICD10CM//E1165",
    "ICD10CM//E11",
    "ICD10CM//I10",
    "ATC//A10BA02",
    "ADMISSION//X",
    DEATH,
]


def events(rows):
    """Rows of (patient, minutes or None, code, value or None) as a MEDS frame."""
    return pl.DataFrame(
        [(p, None if m is None else START + m * MINUTE, c, v) for p, m, c, v in rows],
        schema={"subject_id": pl.Int64, "time": pl.Int64, "code": pl.String, "numeric_value": pl.Float32},
        orient="row",
    ).with_columns(pl.col("time").cast(pl.Datetime("us")))


def fit(frame, **settings):
    chosen = TokenSettings(**{"min_patients": 1, "calendar_years": 0, "fused": False, **settings})
    return fitting.fit(Events.of(frame), chosen)


def encoded_of(tokenizer, frame):
    return encode(tokenizer, Events.of(frame))


def patient(number, moves):
    """Sex, birth 50 years ago, and one event after each gap."""
    time, rows = 0, [(number, None, "GENDER//F", None), (number, -50 * 525_960, BIRTH, None)]
    for gap, code, value in moves:
        time += gap
        rows.append((number, time, code, value if code.startswith("LAB") else None))
    return rows


move = st.tuples(st.integers(0, 800_000), st.sampled_from(CODES), st.floats(-50, 50, width=32))
population = st.lists(st.lists(move, min_size=1, max_size=12), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(population)
def test_decoding_loses_only_what_binning_must_lose(people):
    frame = events([row for number, moves in enumerate(people) for row in patient(number, moves)])
    tokenizer = fit(frame)
    encoded = encoded_of(tokenizer, frame)
    first = (
        frame.filter(pl.col("code") != BIRTH)
        .drop_nulls("time")
        .group_by("subject_id")
        .agg(pl.col("time").min())
    )
    start = first.sort("subject_id")["time"].to_physical().to_numpy()
    back = decode(tokenizer, encoded.tokens, start).frame()
    bins = {code: i for i, code in enumerate(tokenizer.bins.codes)}
    for row, number in enumerate(encoded.patients):
        seen = back.filter(pl.col("subject_id") == row)
        # What was encoded, in token order: times in whole intervals, values in bins.
        true = frame.filter(
            pl.col("subject_id") == number, pl.col("time").is_not_null(), pl.col("code") != BIRTH
        )
        assert sorted(seen["code"]) == sorted(true["code"])
        for code, value in zip(seen["code"], seen["numeric_value"], strict=True):
            if code in bins:
                which = tokenizer.bins.encode(np.array([bins[code]]), np.array([value]))
                assert which >= 0
        in_bins = [
            sorted(
                tokenizer.bins.encode(
                    np.full(len(part), bins[code]), part["numeric_value"].to_numpy()
                ).tolist()
            )
            for frame_ in (seen, true)
            for (code,), part in frame_.sort("code").group_by("code", maintain_order=True)
            if code in bins
        ]
        half = len(in_bins) // 2
        assert in_bins[:half] == in_bins[half:]
        gaps = [np.diff(f["time"].to_physical().to_numpy()) // MINUTE for f in (seen, true.sort("time"))]
        classes = [tokenizer.intervals.encode(gap) for gap in gaps]
        assert (classes[0][0] == classes[1][0]).all() and (classes[0][1] == classes[1][1]).all()


def test_the_tokens_of_one_patient():
    rows = patient(1, [(0, "ICD10CM//E1165", None), (90, "LAB//A", 1.0), (2 * 259_200 + 2000, DEATH, None)])
    tokenizer = fit(events(rows))
    tokens = [tokenizer.vocabulary.tokens[i] for i in encoded_of(tokenizer, events(rows)).tokens[0]]
    assert tokens == [
        "BOS", "GENDER//F", "AGE//50-54", "ICD10CM//1//E11", "ICD10CM//2//65", "TIME//1h-2h", "LAB//A", "Q//1",
        "TIME//6mo", "TIME//6mo", "TIME//1d-3d", DEATH,
    ]  # fmt: skip


def test_the_age_band_returns_when_it_changes():
    rows = patient(1, [(0, "LAB//A", 1.0), (6 * 525_960, "LAB//A", 2.0)])
    tokenizer = fit(events(rows))
    tokens = [tokenizer.vocabulary.tokens[i] for i in encoded_of(tokenizer, events(rows)).tokens[0]]
    assert [t for t in tokens if t.startswith("AGE")] == ["AGE//50-54", "AGE//55-59"]
    assert tokens[-3:-1] == ["AGE//55-59", "LAB//A"]


def test_follow_up_becomes_time_and_its_end_is_no_token():
    rows = [*patient(1, [(0, "LAB//A", 1.0)]), (1, 3 * 259_200, FOLLOW_UP_END, None)]
    tokenizer = fit(events(rows))
    tokens = [tokenizer.vocabulary.tokens[i] for i in encoded_of(tokenizer, events(rows)).tokens[0]]
    assert tokens[-3:] == ["TIME//6mo"] * 3
    assert not any("FOLLOW_UP" in token for token in tokenizer.vocabulary.tokens)
    uncensored = encoded_of(tokenizer, events(rows[:-1])).tokens[
        0
    ]  # negative control: without the follow-up, no time tokens
    assert tokenizer.vocabulary.index["TIME//6mo"] not in uncensored


def test_unknown_codes_are_dropped_and_counted_and_unknown_parts_cut():
    tokenizer = fit(events(patient(1, [(0, "ICD10CM//E1165", None)])))
    encoded = encoded_of(tokenizer, events(patient(2, [(0, "ICD10CM//E1199", None), (5, "LAB//NEW", 1.0)])))
    tokens = [tokenizer.vocabulary.tokens[i] for i in encoded.tokens[0]]
    assert tokens[-1] == "ICD10CM//1//E11"
    assert encoded.dropped == {"LAB//NEW": 1}


def test_rare_codes_get_no_token_and_a_dataset_of_rare_codes_is_refused():
    rows = [row for n in range(3) for row in patient(n, [(0, "LAB//A", 1.0)])] + patient(
        9, [(0, "LAB//B", 1.0)]
    )
    tokenizer = fit(events(rows), min_patients=2)
    assert "LAB//A" in tokenizer.vocabulary.index and "LAB//B" not in tokenizer.vocabulary.index
    with pytest.raises(InputError, match="lower min_patients"):
        fit(events(rows), min_patients=10)


def test_thinning_keeps_the_last_value_of_each_window_and_all_that_has_no_value():
    rows = patient(
        1,
        [
            (0, "LAB//A", 1.0),
            (60, "LAB//A", 2.0),
            (10, "ADMISSION//X", None),
            (20, "LAB//B", 3.0),
            (600, "LAB//A", 4.0),
        ],
    )
    tokenizer = fit(events(rows), thin_minutes=240)
    back = decode(tokenizer, encoded_of(tokenizer, events(rows)).tokens, np.array([START])).frame()
    assert back["code"].to_list() == ["LAB//A", "ADMISSION//X", "LAB//B", "LAB//A"]


def test_thinning_moves_no_value_past_another_event():
    rows = patient(
        1, [(60, "LAB//A", 1.0), (60, "ADMISSION//X", None), (60, DEATH, None), (60, "LAB//B", 3.0)]
    )
    tokenizer = fit(events(rows), thin_minutes=720)
    back = decode(tokenizer, encoded_of(tokenizer, events(rows)).tokens, np.array([START])).frame()
    assert back["code"].to_list() == ["LAB//A", "ADMISSION//X", DEATH, "LAB//B"]


@pytest.mark.parametrize("code", ["TIME//OF_DAY", "Q//3", "AGE//X", "BOS"])
def test_a_code_with_the_name_of_another_kind_of_token_is_refused(code):
    with pytest.raises(InputError, match="rename it"):
        fit(events(patient(1, [(0, code, None), (5, "LAB//A", 1.0)])))


def test_a_category_is_known_when_its_codes_together_are_frequent():
    rows = [
        row
        for n, code in enumerate(("E1165", "E1122"))
        for row in patient(n, [(0, f"ICD10CM//{code}", None)])
    ]
    tokenizer = fit(events(rows), min_patients=2)
    assert (
        "ICD10CM//1//E11" in tokenizer.vocabulary.index and "ICD10CM//2//65" not in tokenizer.vocabulary.index
    )
    assert encoded_of(tokenizer, events(rows)).dropped == {}


def test_tokens_that_form_no_event_are_skipped():
    rows = patient(1, [(0, "ICD10CM//E1165", None), (90, "LAB//A", 1.0)])
    tokenizer = fit(events(rows))
    index = tokenizer.vocabulary.index
    from sequela.tokens.ragged import Ragged

    bad = Ragged.of([
        [index["Q//1"], index["ICD10CM//2//65"], index["LAB//A"]],
        [index["Q//2"], index["ICD10CM//1//E11"], index["Q//3"]],
    ])  # fmt: skip
    back = decode(tokenizer, bad, np.zeros(2, np.int64)).frame()
    assert back["code"].to_list() == ["LAB//A", "ICD10CM//E11"]
    assert back["numeric_value"].to_list() == [None, None]


def test_saving_and_loading_gives_the_same_tokenizer(tmp_path):
    frame = events(patient(1, [(0, "LAB//A", 1.0), (90, "LAB//A", 2.0), (90, "ATC//A10BA02", None)]))
    tokenizer = fit(frame)
    tokenizer.save(tmp_path)
    again = EhrTokenizer.load(tmp_path)
    assert again.vocabulary == tokenizer.vocabulary and again.settings == tokenizer.settings
    assert again.intervals.quantiles.tolist() == tokenizer.intervals.quantiles.tolist()
    assert (encoded_of(again, frame).tokens.flat == encoded_of(tokenizer, frame).tokens.flat).all()


def test_a_folder_of_version_0_1_means_what_it_meant(tmp_path):
    """It names neither the edition of its rules nor the longest gap: ages, gaps and rare stays are as they were."""
    fit(events(patient(1, [(0, "LAB//A", 1.0)]))).save(tmp_path)
    body = read_vocabulary(tmp_path)
    assert EhrTokenizer.load(tmp_path).edition == 2 and EhrTokenizer.load(tmp_path).settings.gap_years == 120
    old = {key: value for key, value in body.items() if key not in ("kind", "edition", "hash", "tokens")}
    del old["settings"]["gap_years"], old["interval_quantiles_minutes"]
    write_vocabulary(tmp_path, "ehr", Vocabulary(tuple(body["tokens"])), old)
    again = EhrTokenizer.load(tmp_path)
    assert again.edition == 1 and again.settings.gap_years == 0
    drawn = again.intervals.minutes(np.arange(13), np.full(13, 0.9), np.zeros(13, np.int64))
    assert drawn.tolist() == again.intervals.means.tolist()  # a class stands for its mean
    again.save(tmp_path)  # as training does, beside its model
    assert EhrTokenizer.load(tmp_path).edition == 1


@pytest.mark.parametrize("damage", ["missing", "not json", "lacks a part", "edited", "other means"])
def test_a_damaged_vocabulary_is_refused(tmp_path, damage):
    fit(events(patient(1, [(0, "LAB//A", 1.0)]))).save(tmp_path)
    path = tmp_path / "vocabulary.json"
    body = json.loads(path.read_text())
    if damage == "missing":
        path.unlink()
    elif damage == "not json":
        path.write_text(path.read_text()[:100])
    elif damage == "lacks a part":
        path.write_text(json.dumps({k: v for k, v in body.items() if k != "bins"}))
    elif damage == "other means":
        path.write_text(json.dumps({**body, "interval_means_minutes": [9] * 13}))
    else:
        path.write_text(json.dumps({**body, "tokens": [*body["tokens"], "NEW"]}))
    with pytest.raises(InputError, match=r"vocabulary\.json"):
        EhrTokenizer.load(tmp_path)
