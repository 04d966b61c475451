"""Patterns of codes to tokens and to places in the grammar."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from sequela.errors import InputError
from sequela.record.events import Events
from sequela.rollout.outcomes import FOREVER, Outcomes, stop_rule, watched_outcomes
from sequela.rollout.request import Request
from sequela.tokens.ehr.encode import encode
from sequela.tokens.ehr.fit import fit
from sequela.tokens.ehr.grammar.fit import fit_grammar
from sequela.tokens.ehr.settings import TokenSettings
from sequela.tokens.maps.code_map import CodeMap
from tests.tokens.ehr.grammar.test_grammar import path_of, told

LIVED = [
    ["ICD10CM//E1165", "LAB//A", "ED_ADMISSION", "ED_DISCHARGE//HOME", "MEDS_DEATH"],
    ["ICD10CM//I1065", "ATC//A10BA02", "ATC//A10BB01", "CHIEF_COMPLAINT//PAIN//KNEE", "LAB//A", "LAB//B"],
]
WITH_SHORT = [*LIVED, ["ICD10CM//E11"]]


def found(pattern, scheme=None, lived=LIVED):
    """What decides a pattern, by name: tokens, and paths whose last part decides after the others."""
    tokenizer, grammar = told(lived, scheme)
    tokens, pairs = Outcomes(tokenizer, grammar).of(pattern, "task")
    names = tokenizer.vocabulary.tokens
    return (
        sorted(names[token] for token in np.flatnonzero(tokens)),
        sorted((*path_of(grammar, node), names[token]) for node, token in pairs),
    )


E11, ATC = "ICD10CM//1//E11", "ATC//1//A10"


@pytest.mark.parametrize(
    ("pattern", "tokens", "pairs"),
    [
        ("MEDS_DEATH", ["MEDS_DEATH"], []),
        ("MEDS_*", ["MEDS_DEATH"], []),
        ("LAB//A", ["LAB//A"], []),
        ("LAB//*", ["LAB//A", "LAB//B"], []),
        ("ED_DISCHARGE*", ["ED_DISCHARGE", "ED_DISCHARGE//HOME"], []),
        ("ED_DISCHARGE", ["ED_DISCHARGE"], []),
        # Codes in parts: decided by the part from which on all codes match
        ("ICD10CM//E11*", [E11], []),
        ("ICD10CM//E*", [E11], []),
        ("ICD10CM//*", [E11, "ICD10CM//1//I10"], []),
        ("ICD10CM//E116*", [], [(E11, "ICD10CM//2//65")]),
        ("ICD10CM//E1165", [], [(E11, "ICD10CM//2//65")]),
        ("ICD10CM//E1165*", [], [(E11, "ICD10CM//2//65")]),
        ("ATC//A10BA02", [], [(ATC, "ATC//2//BA", "ATC//3//02")]),
        ("ATC//A10BA*", [], [(ATC, "ATC//2//BA")]),
        ("ATC//A10B*", [], [(ATC, "ATC//2//BA"), (ATC, "ATC//2//BB")]),
        ("ATC//A*", [ATC], []),
        ("CHIEF_COMPLAINT//PAIN//KNEE", [], [("CHIEF_COMPLAINT//1//PAIN", "CHIEF_COMPLAINT//2//KNEE")]),
        ("CHIEF_COMPLAINT//PAIN*", ["CHIEF_COMPLAINT//1//PAIN"], []),
        ("*", None, []),
    ],
)  # fmt: skip
def test_what_decides_a_pattern(pattern, tokens, pairs):
    have = found(pattern)
    assert have[1] == pairs
    assert have[0] == tokens if tokens is not None else {E11, "LAB//A", "MEDS_DEATH"} <= set(have[0])
    assert not any(name.startswith(("Q//", "TIME//", "AGE//", "BOS")) for name in have[0])


def test_the_same_part_is_the_outcome_only_behind_its_own_first_part():
    """65 is a part of E1165 and of I1065."""
    assert found("ICD10CM//I1065") == ([], [("ICD10CM//1//I10", "ICD10CM//2//65")])


@pytest.mark.parametrize("scheme", [{"fused": True}, {"fused": True, "joint": True}], ids=str)
def test_fused_codes_are_found_with_each_of_their_quantiles(scheme):
    tokens, pairs = found("LAB//A", scheme)
    assert pairs == []
    assert {f"LAB//A=Q{i}" for i in range(1, 11)} <= set(tokens)
    assert not any(name.startswith("LAB//B") for name in tokens)
    both, _ = found("LAB//*", scheme)
    assert {f"LAB//B=Q{i}" for i in range(1, 11)} <= set(both) and set(tokens) < set(both)


def test_joint_codes_are_one_token():
    assert found("ICD10CM//E1165", {"joint": True}) == (["ICD10CM//E1165"], [])
    assert found("ICD10CM//E11*", {"joint": True}) == (["ICD10CM//E11", "ICD10CM//E1165"], [])
    assert found("ICD10CM//E11", {"joint": True}) == (["ICD10CM//E11"], [])  # nothing is told by parts


@pytest.mark.parametrize(
    "pattern",
    ["NO//SUCH", "ICD10CM//E1166", "ICD10CM//Z*", "ATC//A10BA03", "LAB//A//", "Q//1", "TIME//6mo", "BOS"],
)
def test_what_the_model_does_not_know_is_refused(pattern):
    with pytest.raises(InputError, match=r"Task task: no token matches .*too few"):
        found(pattern)


@pytest.mark.parametrize("lived", [LIVED, WITH_SHORT], ids=["never alone", "alone too"])
def test_an_exact_code_with_which_longer_ones_begin_is_refused(lived):
    """A rollout that has said E11 may go on to E1165: only later would it be known which one it was."""
    with pytest.raises(InputError, match=r"longer codes begin with 'ICD10CM//E11' too.*'ICD10CM//E11\*'"):
        found("ICD10CM//E11", lived=lived)
    with pytest.raises(InputError, match=r"'ATC//A10BA\*'"):
        found("ATC//A10BA", lived=lived)


def request(outcome, ends=(), horizon=60, counted="first", name="task"):
    return Request(name, pl.DataFrame(), tuple(outcome), tuple(ends), horizon, counted)


def test_what_is_watched_for_each_request():
    tokenizer, grammar = told(LIVED)
    index = tokenizer.vocabulary.index
    watch = watched_outcomes(
        tokenizer,
        grammar,
        [
            request(["LAB//A", "ICD10CM//E1165"], ["MEDS_DEATH"]),
            request(["ICD10CM//I10*"], ["ED_*", "LAB//*"], None, "all"),
            request(["LAB//A", "ICD10CM//E1165"], ["MEDS_DEATH"], 90, "none"),
        ],
    )
    names = np.array(tokenizer.vocabulary.tokens)
    assert [names[row].tolist() for row in watch.outcome] == [["LAB//A"], ["ICD10CM//1//I10"], []]
    assert [set(names[row]) for row in watch.ends] == [
        {"MEDS_DEATH"},
        {"ED_ADMISSION", "ED_DISCHARGE", "ED_DISCHARGE//HOME", "LAB//A", "LAB//B"},
        {"MEDS_DEATH"},
    ]
    assert watch.after.tolist() == [[index[E11], index["ICD10CM//2//65"], 0]]
    assert watch.horizon.tolist() == [60, FOREVER, 90]
    assert watch.repeats.tolist() == [False, True, False]
    stop = stop_rule(tokenizer, watch, 17)
    assert names[stop.tokens].tolist() == ["MEDS_DEATH"]
    assert (stop.horizon, stop.limit) == (FOREVER, 17)
    assert stop_rule(tokenizer, watched_outcomes(tokenizer, grammar, [request(["LAB//A"])]), 1).horizon == 60


def test_several_patterns_of_one_request_are_put_together():
    tokenizer, grammar = told(LIVED)
    watch = watched_outcomes(
        tokenizer, grammar, [request(["LAB//A", "LAB//B", "ICD10CM//E1165", "ATC//A10BA02"])]
    )
    assert watch.outcome.sum() == 2 and watch.after[:, 2].tolist() == [0, 0]
    assert watched_outcomes(tokenizer, grammar, [request(["LAB//A"])]).after.shape == (0, 3)


def test_an_end_of_several_tokens_is_refused_and_so_is_an_unknown_one():
    tokenizer, grammar = told(LIVED)
    for end in ("ICD10CM//E1165", "ATC//A10BA*"):
        with pytest.raises(InputError, match=r"Task t1: the end .* takes more than one token"):
            watched_outcomes(tokenizer, grammar, [request(["LAB//A"], [end], name="t1")])
    for one in (request(["LAB//A"], ["NO//SUCH"]), request(["NO//SUCH"], counted="none")):
        with pytest.raises(InputError, match="no token matches 'NO//SUCH'"):
            watched_outcomes(tokenizer, grammar, [one])
    watched_outcomes(
        tokenizer, grammar, [request(["LAB//A"], ["ICD10CM//E11*"])]
    )  # a whole category is one token


def test_codes_that_come_near_and_what_the_maps_make_of_a_code_are_named():
    tokenizer, grammar = told(LIVED)
    with pytest.raises(InputError, match=r"no token matches 'LAB//AA' \(near it: LAB//A, LAB//B"):
        Outcomes(tokenizer, grammar).of("LAB//AA", "task")
    maps = (CodeMap("old", (("ICD9CM//250", "ICD10CM//E11"),)),)
    knowing = Outcomes(replace(tokenizer, maps=maps), grammar)
    with pytest.raises(InputError, match=r"no token matches 'ICD9CM//250\*', which the model knows as ICD10CM//E11\*;"):
        knowing.of("ICD9CM//250*", "task")


@pytest.mark.parametrize(
    ("pattern", "tokens", "pairs"),
    [
        *[(code, [], [("ICD10CM//1//I21", "ICD10CM//2//4")]) for code in (
            "ICD10CM//I21.4", "icd10cm//i214", "ICD10CM//I21.4*", "DIAGNOSIS//ICD//10//I214")],
        ("ICD9CM//428*", ["ICD9CM//4280"], []),
        ("ICD9CM//428.0", ["ICD9CM//4280"], []),
        ("MEDS_DEATH", ["MEDS_DEATH//AT_HOME", "MEDS_DEATH//IN_HOSPITAL"], []),
        ("MEDS_DEATH//AT_HOME", ["MEDS_DEATH//AT_HOME"], []),
    ],
)  # fmt: skip
def test_codes_are_found_in_any_spelling_and_every_death_ends_a_rollout(pattern, tokens, pairs):
    codes = ("ICD10CM//I21.4", "ICD9CM//428.0", "LAB//A", "MEDS_DEATH//AT_HOME", "MEDS_DEATH//IN_HOSPITAL")
    zeros = np.zeros(5, np.int64)
    columns = Events(zeros, zeros, np.arange(5, dtype=np.int32), np.full(5, np.nan, np.float32), codes)
    tokenizer = fit(columns, TokenSettings(min_patients=1))
    grammar = fit_grammar(tokenizer, [encode(tokenizer, columns).tokens])
    names = np.array(tokenizer.vocabulary.tokens)
    found, behind = Outcomes(tokenizer, grammar).of(pattern, "task")
    assert names[found].tolist() == tokens
    assert [(*path_of(grammar, node), names[token]) for node, token in behind] == pairs
    stop = stop_rule(tokenizer, watched_outcomes(tokenizer, grammar, [request(["LAB//A"])]), 1)
    assert names[stop.tokens].tolist() == ["MEDS_DEATH//AT_HOME", "MEDS_DEATH//IN_HOSPITAL"]
