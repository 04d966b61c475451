import polars as pl
import pytest

from sequela.record.schema import BIRTH, DEATH
from sequela.record.spelling import among, canonical, is_race, is_sex, matches_code, meaning, spelled


@pytest.mark.parametrize(
    ("spellings", "code"),
    [
        (("ICD10CM//I21.4", "icd10cm//i21.4", "ICD10CM//I214 ", "ICD10CM/I21.4", "ICD-10-CM//I21.4"), "ICD10CM//I214"),
        (("DIAGNOSIS//ICD//10//I214", "diagnosis//icd//10//i21.4", "DIAGNOSIS//ICD10CM//I21.4"), "ICD10CM//I214"),
        (("ICD9CM//428.0", "ICD9CM/4280", "DIAGNOSIS//ICD//9//4280", "icd-9-cm//428.0"), "ICD9CM//4280"),
        (("ICD9CM//E950.0", "ICD9CM//e9500"), "ICD9CM//E9500"),
        (("ICD9PROC//37.21", "PROCEDURE//ICD//9//3721", "PROCEDURE//ICD9CM//37.21"), "ICD9PROC//3721"),
        (("PROCEDURE//ICD//10//0dtj4zz", "ICD10PCS//0DTJ4ZZ"), "ICD10PCS//0DTJ4ZZ"),
        (("OPCS4//K40.1", "OPCS4//k401"), "OPCS4//K401"),
        (("ATC//a10ba02", "ATC//A10BA02"), "ATC//A10BA02"),
        (("ICD10CM//I21.4//PRIMARY",), "ICD10CM//I214//PRIMARY"),
        (("GENDER//F", "SEX//F", "Gender/8532", "Gender//FEMALE", "gender//female ", "GENDER//248152002"), "GENDER//F"),
        (("GENDER//M", "SEX/Male", "Gender//8507", "BIRTH_SEX//M", "DEMOGRAPHICS//SEX//man"), "GENDER//M"),
        (("GENDER//unknown", "Sex//UNK", "GENDER//8551"), "GENDER//UNKNOWN"),
        (("RACE//WHITE", "Race/WHITE"), "RACE//WHITE"),
        (("LAB//HB", " LAB//HB\t"), "LAB//HB"),
    ],
)
def test_spellings_of_one_code_are_one(spellings, code):
    assert {canonical(spelling) for spelling in spellings} == {code}
    assert canonical(code) == code


@pytest.mark.parametrize(
    "codes",
    [
        ("ICD10//I21.4", "ICD10CM//I21.4", "ICD10GM//I21.4"),  # other systems
        ("LAB//Hb", "LAB//HB", "LAB//H.B"),
        ("GENDER//1", "GENDER//2", "GENDER//M"),  # which is which differs between datasets
        ("GENDER_IDENTITY//M", "GENDER//M"),
        ("SEXUALLY_ACTIVE//M", "GENDER//M"),
        ("PHECODE//250.2", "PHECODE//2502"),
        ("ICD10CM//.", "ICD10CM//"),
        ("RACE_CODE//5", "RACE//5"),
        ("ICD_IMPLANT//A.B", "ICD_IMPLANT//AB"),  # a defibrillator
    ],
)
def test_different_codes_stay_different(codes):
    assert len({canonical(code) for code in codes}) == len(codes)


@pytest.mark.parametrize("code", ["LAB//50912//mg/dL", "BMI (kg/m2)", "", "//", "MEDS_DEATH", "ICD", "GENDER", "A/B/C"])
def test_other_codes_are_left_alone(code):
    assert spelled(code) == canonical(code) == code
    assert not is_sex(code) and not is_race(code)


@pytest.mark.parametrize(
    ("code", "pattern", "match"),
    [
        ("ICD10CM//I21.4", "ICD10CM//I214", True),
        ("ICD10CM//I214", "icd10cm//i21.4", True),
        ("ICD10CM//I21.4", "ICD10CM//I21.*", True),
        ("ICD10CM//I214", "ICD10CM//I21*", True),
        ("DIAGNOSIS//ICD//10//I214", "ICD10CM//I21*", True),
        ("DIAGNOSIS//ICD//10//I214", "DIAGNOSIS//ICD//*", True),
        ("ICD10CM//I214", "ICD10CM//*", True),
        ("ICD10CM//I214", "icd10cm//*", True),
        ("ICD9CM//428.0", "ICD9CM//428*", True),
        ("ICD10CM//I22", "ICD10CM//I21*", False),
        ("ICD10CM//I2140", "ICD10CM//I21.4", False),
        ("ICD10//I214", "ICD10CM//I21*", False),
        ("SEX//female", "GENDER//F", True),
        ("SEX//female", "SEX//*", True),
        ("MEDS_DEATH//IN_HOSPITAL", "MEDS_DEATH", True),
        ("MEDS_DEATH", "MEDS_DEATH//IN_HOSPITAL", False),
        ("MEDS_DEATH_CERTIFICATE", "MEDS_DEATH", False),
        ("HOSPITAL_DISCHARGE//DIED", "HOSPITAL_DISCHARGE", False),
        ("LAB//HB ", "LAB//HB", True),
        ("LAB//HBA1C", "LAB//HB", False),
    ],
)
def test_patterns(code, pattern, match):
    assert matches_code(code, (pattern,)) is match
    assert matches_code(code, ("NOTHING", pattern)) is match


def test_what_a_birth_and_a_death_are():
    frame = pl.DataFrame({"code": ["MEDS_BIRTH", "MEDS_BIRTH//SELF_REPORTED", "MEDS_DEATH//X", "MEDS_BIRTHDAY"]})
    assert frame.select(meaning(BIRTH))["code"].to_list() == [True, True, False, False]
    of_few = frame.with_columns(pl.col("code").cast(pl.Enum(frame["code"])))
    assert of_few.select(meaning(DEATH))["code"].to_list() == [False, False, True, False]


def test_each_distinct_code_is_looked_at_once():
    seen = []
    frame = pl.DataFrame({"code": ["A", "B", "A", None, "A"]})
    found = frame.select(among(frame["code"], lambda code: seen.append(code) or code == "A"))
    assert found["code"].to_list() == [True, False, True, None, True] and sorted(seen) == ["A", "B"]
