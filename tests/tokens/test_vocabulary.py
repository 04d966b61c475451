import pytest

from sequela.errors import InputError
from sequela.tokens.vocabulary import Vocabulary, read_vocabulary, write_vocabulary


def test_the_hash_changes_with_any_token_and_with_their_order():
    base = Vocabulary(("PAD", "BOS", "A", "B"))
    assert base.hash == Vocabulary(("PAD", "BOS", "A", "B")).hash
    assert (
        len({base.hash, Vocabulary(("PAD", "BOS", "B", "A")).hash, Vocabulary(("PAD", "BOS", "A")).hash}) == 3
    )


def test_matching_finds_a_prefix():
    assert Vocabulary(("PAD", "BOS", "Q//1", "X", "Q//2")).matching("Q//").tolist() == [2, 4]


def test_what_is_written_comes_back_and_a_file_that_is_missing_damaged_or_edited_is_refused(tmp_path):
    vocabulary = Vocabulary(("PAD", "BOS", "Ä"))
    with pytest.raises(InputError, match=r"vocabulary\.json is missing.*sequela tokenize"):
        read_vocabulary(tmp_path)
    write_vocabulary(tmp_path, "some kind", vocabulary, {"more": [1, 2]})
    body = read_vocabulary(tmp_path)
    assert (body["kind"], tuple(body["tokens"]), body["more"]) == ("some kind", vocabulary.tokens, [1, 2])
    path = tmp_path / "vocabulary.json"
    whole = path.read_text()
    for text, word in (
        (whole[:20], "is damaged"),
        ("[]", "is damaged"),
        (whole.replace("tokens", "words"), "is damaged"),
        (whole.replace("some kind", "other kind"), "was edited"),
        (whole.replace('"BOS"', '"BOX"'), "was edited"),
    ):
        assert text != whole
        path.write_text(text)
        with pytest.raises(InputError, match=word):
            read_vocabulary(tmp_path)
