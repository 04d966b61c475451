"""Which codes a patient has once, and that nothing brings them a second time."""

import numpy as np
import pytest

from sequela.record.events import Events
from sequela.tokens.ehr.encode import MINUTE, encode
from sequela.tokens.ehr.fit import fit
from sequela.tokens.ehr.grammar import once as module
from sequela.tokens.ehr.grammar.fit import fit_grammar, load_grammar
from sequela.tokens.ehr.grammar.once import CodesByToken, RepeatCounts
from sequela.tokens.ehr.settings import TokenSettings
from sequela.tokens.ragged import Ragged

NAMES = ("COHORT//ENTRY", "FRACTURE", "LAB//A", "LAST", "MEASURE", "VISIT")
DAY = 1440 * MINUTE


def columns_of(people, seed=0, repeat=0.0):
    """An entry with a measure, ten visits with values, and for some a fracture; all leave with something."""
    random, rows = np.random.default_rng(seed), []
    for patient in range(people):
        rows += [(patient, 0, "COHORT//ENTRY", np.nan), (patient, 0, "MEASURE", random.normal())]
        for day in range(1, 11):
            rows += [(patient, 30 * day, "LAB//A", random.normal()), (patient, 30 * day, "VISIT", np.nan)]
        if patient % 50 == 0:
            rows.append((patient, 200, "FRACTURE", np.nan))
        if random.random() < repeat:
            rows.append((patient, 250, "MEASURE", random.normal()))
        rows.append((patient, 400, "LAST", np.nan))
    rows.sort(key=lambda row: row[:2])
    patient, day, code, value = zip(*rows, strict=True)
    code = np.array([NAMES.index(name) for name in code], np.int32)
    return Events(np.array(patient), np.array(day) * DAY, code, np.array(value, np.float32), NAMES)


def fitted(people, repeat=0.0, **scheme):
    columns = columns_of(people, repeat=repeat)
    tokenizer = fit(columns, TokenSettings(min_patients=1, **scheme))
    rows = encode(tokenizer, columns).tokens
    return tokenizer, rows, fit_grammar(tokenizer, [rows])


@pytest.mark.parametrize("fused", [False, True])
def test_what_nobody_has_twice_is_told_from_what_is_rare_and_from_what_comes_last(fused):
    tokenizer, rows, grammar = fitted(300, fused=fused)
    assert grammar.once == ("COHORT//ENTRY", "MEASURE")
    assert fitted(300, repeat=0.01, fused=fused)[2].once == ("COHORT//ENTRY",)  # three patients had it twice
    assert fitted(20, fused=fused)[2].once == ()  # too few to tell
    index = tokenizer.vocabulary.index
    measure = ["MEASURE=Q1", "MEASURE=Q7"] if fused else ["MEASURE"]
    again = ["COHORT//ENTRY", *measure, "VISIT", "LAST", "FRACTURE"]
    _, bits = grammar.states(rows.take(np.array([1])))
    tokens = Ragged.of([[index[name] for name in again]])
    wrong = grammar.faults(tokens, np.zeros(1, np.int64), bits)
    assert [name for name, fault in zip(again, wrong, strict=True) if fault] == again[: 3 if fused else 2]
    assert not grammar.faults(tokens, np.zeros(1, np.int64), np.zeros_like(bits))[:2].any()  # they may come at first
    assert not grammar.faults(rows, np.zeros(len(rows), np.int64), np.zeros((len(rows), bits.shape[1]), bool))[
        np.isin(rows.flat, tokens.flat)
    ].any()


def test_what_is_saved_is_what_is_loaded_and_the_number_of_bits_is_bounded(tmp_path, monkeypatch):
    tokenizer, rows, grammar = fitted(300)
    grammar.save(tmp_path)
    again = load_grammar(tmp_path, tokenizer)
    assert again.once == grammar.once
    assert all((getattr(again, name) == getattr(grammar, name)).all() for name in ("forbids", "sets", "needs"))
    monkeypatch.setattr(module, "MOST_CODES", 1)
    assert len(fit_grammar(tokenizer, [rows]).once) == 1


def test_how_patients_are_divided_does_not_matter():
    tokenizer, rows, _ = fitted(40)
    codes = CodesByToken.of(tokenizer)
    whole, parts = RepeatCounts.of(codes, rows), RepeatCounts.nothing(codes)
    for some in np.array_split(np.arange(len(rows)), 7):
        parts = parts.and_also(RepeatCounts.of(codes, rows.take(some)))
    for name in ("events", "again", "later"):
        assert getattr(whole, name).tolist() == getattr(parts, name).tolist()
    entry, last = codes.names.index("COHORT//ENTRY"), codes.names.index("LAST")
    assert whole.later[last] == 0 and whole.later[entry] == whole.events.sum() - 2 * 40  # all but those of its moment
    assert whole.again[codes.names.index("VISIT")] == 40
