from sequela.tokens.vocabulary import Vocabulary


def test_the_hash_changes_with_any_token_and_with_their_order():
    base = Vocabulary(("PAD", "BOS", "A", "B"))
    assert base.hash == Vocabulary(("PAD", "BOS", "A", "B")).hash
    assert (
        len({base.hash, Vocabulary(("PAD", "BOS", "B", "A")).hash, Vocabulary(("PAD", "BOS", "A")).hash}) == 3
    )


def test_matching_finds_a_prefix():
    assert Vocabulary(("PAD", "BOS", "Q//1", "X", "Q//2")).matching("Q//").tolist() == [2, 4]
