"""The words of error messages."""

from sequela.errors import InputError, closest, nearest


def test_a_near_word_is_suggested_and_a_far_one_not():
    assert nearest("nafdl", ["mimic4", "nafld"]) == " (did you mean 'nafld'?)"
    assert nearest("xyz", ["mimic4", "nafld"]) == ""


def test_the_closest_words_are_distinct_and_best_first():
    known = ["LAB//HB", "LAB//HBA1C", "LAB//HB", "DRUG//X"]
    assert closest("LAB//HBA", known, most=3) == ["LAB//HB", "LAB//HBA1C"]
    assert closest("LAB//HBA", known, most=1) == ["LAB//HB"]
    assert closest("LAB//HBA", known, most=3, cutoff=0.99) == []


def test_a_message_is_one_line():
    assert str(InputError("a.csv:\nline 2\r\nis wrong")) == "a.csv: line 2 is wrong"


def test_input_errors_are_value_errors():
    assert issubclass(InputError, ValueError)
