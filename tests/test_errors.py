"""The words of error messages."""

from pathlib import Path

import pytest

from sequela.errors import InputError, closest, nearest, refuse_uri


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


@pytest.mark.parametrize("uri", ["mysql://me:SECRET@h/db", Path("jdbc:postgresql://me:SECRET@h/db")])
def test_a_uri_in_place_of_a_path_is_refused_without_its_password(uri):
    with pytest.raises(InputError, match="give a path") as caught:
        refuse_uri(uri)
    assert "SECRET" not in str(caught.value)


def test_a_path_is_no_uri(tmp_path):
    refuse_uri(tmp_path / "nothing.csv")
