import json

import numpy as np
import pytest

from sequela.errors import InputError
from sequela.tokens.corpus import Corpus
from sequela.tokens.ehr.grammar.fit import fit_grammar, load_grammar
from sequela.tokens.ehr.grammar.grammar import FILE
from sequela.tokens.ehr.settings import TokenSettings
from sequela.tokens.ragged import Ragged
from tests.tokens.ehr.grammar.test_grammar import E11, LIVED, OF_E11, SCHEMES, same_fields, told


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_what_is_saved_comes_back(tmp_path, scheme):
    tokenizer, grammar = told(LIVED, scheme)
    grammar.save(tmp_path)
    same_fields(load_grammar(tmp_path, tokenizer), grammar)
    body = json.loads((tmp_path / FILE).read_text())
    assert body["stays"]["ED_DISCHARGE"] == {"ends": 1, "without_start": 0}
    assert ([E11, OF_E11] in body["in_parts"]) == ("joint" not in scheme)


def test_a_file_that_is_missing_damaged_edited_or_foreign_is_refused(tmp_path):
    tokenizer, grammar = told(LIVED)
    with pytest.raises(InputError, match=r"is missing.*sequela tokenize"):
        load_grammar(tmp_path, tokenizer)
    grammar.save(tmp_path)
    path = tmp_path / FILE
    whole = path.read_text()
    other, _ = told(LIVED, {"quantiles": 5})
    with pytest.raises(InputError, match="was made with vocabulary"):
        load_grammar(tmp_path, other)
    for text, word in (
        (whole[:-40], "is damaged"),
        ("[]", "is damaged"),
        (whole.replace("checksum", "sum"), "is damaged"),
        (whole.replace('"ends": 1', '"ends": 2'), "was edited"),
        (whole.replace(tokenizer.vocabulary.hash, other.vocabulary.hash), "was edited"),
    ):
        assert text != whole
        path.write_text(text)
        with pytest.raises(InputError, match=word):
            load_grammar(tmp_path, tokenizer)
    path.write_text(whole)
    same_fields(load_grammar(tmp_path, tokenizer), grammar)


def test_a_corpus_has_the_grammar_of_its_training_patients(two_token_corpus):
    train = Corpus.load(two_token_corpus, "train")
    grammar = load_grammar(two_token_corpus, train.tokenizer)
    same_fields(fit_grammar(train.tokenizer, train.tokens.parts), grammar)
    rows = Corpus.load(two_token_corpus, "held_out").tokens
    head = np.isin(rows.parts[0].flat, train.tokenizer.head)
    none = np.zeros(len(rows), np.int64), np.zeros((len(rows), grammar.sets.shape[1]), bool)
    assert (grammar.faults(rows.parts[0], *none) == head).all()
    invalid, every = grammar.invalid_multi_token(rows.parts[0], none[0])
    assert invalid == 0 and every > 100
    backwards = Ragged(rows.parts[0].flat[::-1], rows.parts[0].flat.size - rows.parts[0].offsets[::-1])
    assert grammar.invalid_multi_token(backwards, none[0])[0] > 100


def test_real_patients_break_it_only_where_their_codes_are_new(shared_data, tmp_path):
    """MIMIC-IV's demo: the faults of held-out patients are codes in parts that no training patient had."""
    from sequela.tokens.ehr.tokenize import tokenize

    folder = shared_data / "ehr" / "mimic4demo_meds_full"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    tokenize(folder, tmp_path, TokenSettings(min_patients=2, fused=False))
    train, held_out = (Corpus.load(tmp_path, split) for split in ("train", "held_out"))
    grammar, tokenizer = load_grammar(tmp_path, train.tokenizer), train.tokenizer
    assert grammar.stays[0].kind == "ED_DISCHARGE" and grammar.stays[0].ruled
    heads = [1 + np.isin(held_out.tokens[r][1:], tokenizer.head).sum() for r in range(len(held_out.tokens))]
    rest = Ragged.of([held_out.tokens[row][at:] for row, at in enumerate(heads)])
    wrong = grammar.faults(
        rest, *grammar.states(Ragged.of([held_out.tokens[row][:at] for row, at in enumerate(heads)]))
    )
    assert 0 < wrong.mean() < 0.001
    same_fields(fit_grammar(tokenizer, train.tokens.parts), grammar)
    leaked = fit_grammar(tokenizer, [*train.tokens.parts, *held_out.tokens.parts])  # negative control
    assert len(leaked.pair_key) > len(grammar.pair_key)

    def tails(flat):
        """Each later part with those before it, and where it stands."""
        place = tokenizer.place[flat]
        at = np.flatnonzero((place == 2) | (place == 3))
        return at, [tuple(flat[i - place[i] + 1 : i + 1].tolist()) for i in at]

    known = set(tails(np.concatenate([part.flat for part in train.tokens.parts]))[1])
    at, codes = tails(rest.flat)
    assert np.flatnonzero(wrong).tolist() == [
        i for i, code in zip(at, codes, strict=True) if code not in known
    ]
