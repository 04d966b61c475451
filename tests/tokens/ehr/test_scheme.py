import numpy as np

from sequela.tokens.corpus import Corpus
from sequela.tokens.ehr.scheme import FUSED, TYPES
from sequela.tokens.ehr.settings import TokenSettings
from sequela.tokens.ehr.tokenize import tokenize


def named(tokenizer):
    """The kind of each token, by name."""
    kinds = tokenizer.types
    return {token: TYPES[kind] for token, kind in zip(tokenizer.vocabulary.tokens, kinds.token, strict=True)}


def test_every_token_has_the_kind_of_what_it_tells(two_token_corpus):
    tokenizer = Corpus.load(two_token_corpus, "tuning").tokenizer
    kinds = named(tokenizer)
    assert kinds["MEDS_DEATH"] == "death" and kinds["Q//1"] == "value"
    assert {kind for token, kind in kinds.items() if token.startswith("TIME//")} == {"time"}
    assert {kind for token, kind in kinds.items() if token.startswith(("AGE//", "GENDER//"))} == {
        "background"
    }
    labs = [token for token in kinds if token.startswith("LAB//")]
    assert labs and {kinds[token] for token in labs} == {"lab"}
    assert tokenizer.types.group is None


def test_a_code_in_parts_counts_once():
    from sequela.tokens.ehr.bins import Bins
    from sequela.tokens.ehr.clock import Intervals
    from sequela.tokens.ehr.scheme import EhrScheme
    from sequela.tokens.vocabulary import SPECIAL, Vocabulary

    settings = TokenSettings(fused=False)
    names = (*SPECIAL, "ICD10CM//E11", "ICD10CM//2//65", "LAB//HB")
    bins = Bins((), np.zeros((0, 9)), np.zeros((0, 10)))
    kinds = EhrScheme(settings, Vocabulary(names), Intervals.guess(settings.interval_edges), bins).types
    assert [TYPES[kind] for kind in kinds.token[2:]] == ["diagnosis", "diagnosis", "lab"]
    assert kinds.counts.tolist()[2:] == [True, False, True]


def test_a_fused_token_tells_its_code_first_and_its_value_beyond(world_meds, tmp_path):
    tokenize(world_meds, tmp_path, TokenSettings(fused=True))
    tokenizer = Corpus.load(tmp_path, "tuning").tokenizer
    kinds = tokenizer.types
    for token, kind, beyond in zip(tokenizer.vocabulary.tokens, kinds.token, kinds.beyond, strict=True):
        assert (beyond >= 0) == (FUSED in token)
        assert FUSED not in token or (TYPES[kind], TYPES[beyond]) == ("lab", "value")
    first = [row for row, token in enumerate(tokenizer.vocabulary.tokens) if token.endswith(f"{FUSED}1")]
    assert np.array_equal(kinds.group[first], kinds.group[np.array(first) + 1])
