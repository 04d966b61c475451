import pytest

from sequela.tokens.ehr.grammar.stays import StayKind, stay_of
from tests.tokens.ehr.grammar.test_grammar import faulty, told


@pytest.mark.parametrize(("without", "ruled"), [(0, True), (1, True), (2, False)])
def test_ends_need_a_start_where_nearly_all_of_them_have_one(without, ruled):
    visits = ["ED_ADMISSION", "ED_DISCHARGE"] * (1500 - without)
    tokenizer, grammar = told([visits, *[["ED_DISCHARGE//HOME"]] * without])
    assert StayKind("ED_DISCHARGE", 1500, without) in grammar.stays
    assert faulty(tokenizer, grammar, [], ["ED_DISCHARGE"]) == ["ED_DISCHARGE"] * ruled


def test_a_source_that_tells_ends_only_has_no_rule():
    tokenizer, grammar = told([["HOSPITAL_DISCHARGE//DIED"], ["LAB//A"]])
    (stay,) = (one for one in grammar.stays if one.kind == "HOSPITAL_DISCHARGE")
    assert (stay.ends, stay.without_start, stay.ruled) == (1, 1, False)
    assert faulty(tokenizer, grammar, [], ["HOSPITAL_DISCHARGE//DIED"]) == []


@pytest.mark.parametrize(
    ("opens", "closes"),
    [
        ("ENCOUNTER_START//X", "ENCOUNTER_END//X"),
        ("ENCOUNTER_START//X//SNOMED//1", "ENCOUNTER_END//X"),
        ("ENCOUNTER_START", "ENCOUNTER_END"),
        ("VISIT//X//START", "VISIT//X//END"),
        ("VISIT//X", "VISIT//X//END"),
        ("HOSPITAL_ADMISSION//URGENT", "HOSPITAL_DISCHARGE"),
        ("ed_admission", "ED_DISCHARGE//HOME"),
        ("ED_REGISTRATION", "ED_OUT"),
    ],
)
def test_what_opens_a_stay_and_what_closes_it_have_one_kind(opens, closes):
    assert stay_of(opens)[0] == stay_of(closes)[0]
    assert (stay_of(opens)[1], stay_of(closes)[1]) == (False, True)


def test_different_kinds_of_stay_are_kept_apart():
    codes = [
        "ENCOUNTER_END//X",
        "ENCOUNTER_END//Y",
        "HOSPITAL_DISCHARGE",
        "ICU_DISCHARGE",
        "ED_DISCHARGE",
        "ED_OUT",
    ]
    assert len({stay_of(code)[0] for code in codes}) == len(codes)
    assert stay_of("DEPARTMENT//X") is None and stay_of("INFUSION_END//X") is None
