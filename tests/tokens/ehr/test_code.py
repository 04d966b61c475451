import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sequela.tokens.ehr.code import (
    CLOSES,
    DIES,
    FAMILIES,
    HEADS,
    OPENS,
    REST,
    WHERE,
    WHY,
    families,
    family,
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


@pytest.mark.parametrize(
    "code",
    ["ICD10CM//.", "ICD10CM//..", "ICD10CM// ", "ICD10CM//. .", "ICD10CM//", "ICD10CM", "ATC//.", "CHIEF_COMPLAINT//",
     "CHIEF_COMPLAINT////x", "//", "/", "", " ", ".", "é//ü", "A" * 5000],
)
def test_a_code_without_content_is_a_token_as_it_stands(code):
    assert split_code(code) == (code,) and join_parts(split_code(code)) == code and part_place(code) == 0
    assert family(code) in FAMILIES


def test_parts_of_different_places_are_different_tokens():
    assert split_code("ICD10CM//E1111")[1] != split_code("ICD10CM//11111")[0]


@pytest.mark.parametrize(
    ("codes", "ordered"),
    [
        (
            ["DEATH//CARDIAC", "LAB//A", "HOSPITAL_DISCHARGE//HOME", "HOSPITAL_ADMISSION//ER"],
            [DIES, REST, CLOSES, OPENS],
        ),
        (["ENCOUNTER//INPATIENT//START", "ENCOUNTER//INPATIENT//END"], [OPENS, CLOSES]),
        (["ENCOUNTER_START//X", "DEPARTMENT//X", "CHIEF_COMPLAINT//X"], [OPENS, WHERE, WHY]),
        (["ENCOUNTER_END//X", "ED_ADMISSION", "ICU_DISCHARGE//X"], [CLOSES, OPENS, CLOSES]),
    ],
)
def test_a_stay_opens_before_and_closes_after_what_happens_in_it(codes, ordered):
    assert [order_rank(code) for code in codes] == ordered


def test_what_a_death_says_more_comes_before_the_code_that_ends_a_future():
    ranks = map(order_rank, ("HOSPITAL_DISCHARGE//DIED", "death//cardiac", "MEDS_DEATH//IN_HOSPITAL", "MEDS_DEATH"))
    assert list(ranks) == [CLOSES, DIES, DIES + 1, DIES + 2]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("GENDER//F", "demographic"),
        ("MEDS_DEATH", "death"),
        ("MEDS_DEATH//IN_HOSPITAL", "death"),
        ("HOSPITAL_ADMISSION//EW EMER.//EMERGENCY ROOM", "encounter"),
        ("ED_OUT", "encounter"),
        ("Visit//IP", "encounter"),
        ("TRANSFER_TO//admit//Medicine", "department"),
        ("CHIEF_COMPLAINT//1//PAIN", "complaint"),
        ("ICD10CM/E11.65", "diagnosis"),
        ("ICD9Proc//5491", "procedure"),
        ("PROCEDURE//SNOMED//73761001", "procedure"),
        ("DRG//APR//194//HEART FAILURE", "billing"),
        ("OBS//LOINC//4548-4", "lab"),
        ("CHART//220045", "lab"),
        ("Blood Pressure Standing (1 min)", "vital"),
        ("Weight (Lbs)", "vital"),
        ("RxNorm Extension//OMOP4711", "medication"),
        ("INFUSION_START//220949", "medication"),
        ("FOLLOW_UP//END", "other"),
        ("", "other"),
    ],
)
def test_the_family_of_our_own_and_of_foreign_codes(code, expected):
    assert family(code) == expected


def test_no_head_stands_in_two_families():
    heads = [head for words in HEADS.values() for head in words.split()]
    assert len(heads) == len(set(heads))


@given(st.lists(st.one_of(st.text(max_size=12), st.sampled_from(sorted(HEADS["lab"].split())))))
def test_the_fast_path_agrees_with_the_slow_one(codes):
    assert families(pl.Series("code", codes, dtype=pl.String)).to_list() == [family(code) for code in codes]


def test_a_part_of_a_code_belongs_to_the_family_of_the_code():
    for code in ("ICD10CM//E1165", "ATC//A10BA02", "CHIEF_COMPLAINT//PAIN//LEFT KNEE"):
        assert {family(part) for part in split_code(code)} == {family(code)}


def test_every_code_of_the_real_demo_has_a_family(shared_data):
    data = pl.scan_parquet(shared_data / "ehr/mimic4demo_meds_full/data/*/*.parquet")
    codes = data.select("code").unique().collect()["code"]
    assert set(families(codes)) <= set(FAMILIES) - {"other"}
