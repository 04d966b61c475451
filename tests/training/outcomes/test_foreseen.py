"""Events of a value head, by name and by token."""

import numpy as np
import pytest

from sequela.errors import InputError
from sequela.training.outcomes.foreseen import foreseen_events
from tests.rollout.test_outcomes import LIVED
from tests.tokens.ehr.grammar.test_grammar import told


@pytest.fixture(scope="module")
def tokenizer():
    return told(LIVED)[0]


def counts_of(tokenizer, **seen):
    counts = np.ones(len(tokenizer.vocabulary), np.int64)
    for name, count in seen.items():
        counts[tokenizer.vocabulary.index[name.replace("__", "//")]] = count
    return counts


def named(tokenizer, events):
    names = tokenizer.vocabulary.tokens
    return {name: [names[token] for token in one] for name, one in zip(events.names, events.tokens, strict=True)}


def test_death_comes_first_then_codes_outcomes_and_what_is_frequent(tokenizer):
    counts = counts_of(tokenizer, LAB__B=9, LAB__A=5, TIME__6mo=99)
    events = foreseen_events(tokenizer, counts, ("diagnosis", "death"), ("LAB//A | LAB//B",), most=5)
    assert named(tokenizer, events) == {
        "death": ["MEDS_DEATH"],
        "LAB//A | LAB//B": ["LAB//A", "LAB//B"],
        "ICD10CM//E11": ["ICD10CM//1//E11"],
        "ICD10CM//I10": ["ICD10CM//1//I10"],
        "LAB//B": ["LAB//B"],
    }
    assert events.vocabulary == tokenizer.vocabulary.hash
    few = foreseen_events(tokenizer, counts, ("diagnosis", "death"), (), most=1)
    assert few.names == ("death", "ICD10CM//E11", "ICD10CM//I10")  # what people ask about is there in any case


def test_later_parts_times_and_values_are_no_events(tokenizer):
    every = foreseen_events(tokenizer, counts_of(tokenizer), (), ("ED_*",), most=10_000)
    tokens = {name for one in named(tokenizer, every).values() for name in one}
    assert "ATC//1//A10" in tokens and "ED_DISCHARGE//HOME" in tokens
    assert not any(name.startswith(("TIME//", "AGE//", "Q//", "BOS", "PAD", "ATC//2")) for name in tokens)
    assert named(tokenizer, every)["ED_*"] == ["ED_ADMISSION", "ED_DISCHARGE", "ED_DISCHARGE//HOME"]


def test_a_code_without_a_token_is_told(tokenizer):
    with pytest.raises(InputError, match="`codes` names 'LAB//AA', which no token stands for"):
        foreseen_events(tokenizer, counts_of(tokenizer), (), ("LAB//B|LAB//AA",))
    with pytest.raises(InputError, match="`outcomes` names 'weather', which is no kind of event"):
        foreseen_events(tokenizer, counts_of(tokenizer), ("weather",))
