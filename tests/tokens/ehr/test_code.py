import pytest
from hypothesis import given
from hypothesis import strategies as st

from sequela.tokens.ehr.code import (
    CLOSES,
    DIES,
    OPENS,
    REST,
    WHERE,
    WHY,
    join_parts,
    order_rank,
    part_place,
    split_code,
)

plain = st.from_regex(r"[A-Z]{2,8}//[A-Z0-9_/]{1,12}", fullmatch=True)
icd = st.from_regex(r"ICD10CM//[A-Z][0-9][0-9A-Z]{1,5}", fullmatch=True)
atc = st.from_regex(r"ATC//[A-Z][0-9]{2}([A-Z]{2}([0-9]{2})?)?", fullmatch=True)


@given(st.one_of(plain, icd, atc))
def test_joining_the_parts_gives_the_code(code):
    parts = split_code(code)
    assert join_parts(parts) == code
    if len(parts) > 1:
        assert [part_place(part) for part in parts] == [1, 2, 3][: len(parts)]


def test_a_dot_makes_no_other_code():
    assert split_code("ICD10CM//E11.65") == split_code("ICD10CM//E1165")


def test_parts_of_different_places_are_different_tokens():
    assert split_code("ICD10CM//E1111")[1] != split_code("ICD10CM//11111")[0]


@pytest.mark.parametrize(
    ("codes", "ordered"),
    [
        (
            ["MEDS_DEATH", "LAB//A", "HOSPITAL_DISCHARGE//HOME", "HOSPITAL_ADMISSION//ER"],
            [DIES, REST, CLOSES, OPENS],
        ),
        (["ENCOUNTER//INPATIENT//START", "ENCOUNTER//INPATIENT//END"], [OPENS, CLOSES]),
        (["ENCOUNTER_START//X", "DEPARTMENT//X", "CHIEF_COMPLAINT//X"], [OPENS, WHERE, WHY]),
        (["ENCOUNTER_END//X", "ED_ADMISSION", "ICU_DISCHARGE//X"], [CLOSES, OPENS, CLOSES]),
    ],
)
def test_a_stay_opens_before_and_closes_after_what_happens_in_it(codes, ordered):
    assert [order_rank(code) for code in codes] == ordered
