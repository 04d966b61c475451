import numpy as np

from sequela.tokens.ehr.budget import chosen
from sequela.tokens.ehr.settings import TokenSettings
from sequela.tokens.ehr.statistics import Statistics
from tests.tokens.ehr.test_encode import CODES, columns_of


def counted(*patients):
    columns = columns_of(
        [([], [(m, CODES.index(code), np.nan) for m, code in enumerate(codes)], False) for codes in patients]
    )
    return Statistics.of(columns, TokenSettings())


def test_a_code_is_as_frequent_as_its_first_part_and_each_later_part_by_itself():
    statistics = counted(["ICD10CM//E11"], ["ICD10CM//E1165"], ["LAB//A"])
    kept, names = chosen(statistics, TokenSettings(min_patients=2))
    assert kept == {"ICD10CM//E11", "ICD10CM//E1165"} and names == ["ICD10CM//1//E11"]
    kept, names = chosen(statistics, TokenSettings(min_patients=1))
    assert names == ["ICD10CM//1//E11", "ICD10CM//2//65", "LAB//A"]


def test_a_joint_code_stands_alone():
    statistics = counted(["ICD10CM//E11"], ["ICD10CM//E1165"], ["ICD10CM//E1165"])
    joint = TokenSettings(min_patients=2, joint=True)
    columns = columns_of(
        [([], [(0, CODES.index(code), np.nan)], False) for code in ("ICD10CM//E11", "ICD10CM//E1165") * 2]
    )
    assert chosen(Statistics.of(columns, joint), joint)[1] == ["ICD10CM//E11", "ICD10CM//E1165"]
    assert chosen(statistics, TokenSettings(min_patients=3))[1] == ["ICD10CM//1//E11"]


def test_the_most_frequent_of_a_family_get_the_tokens_and_the_first_by_name_of_equals():
    statistics = counted(["LAB//B", "LAB//A", "CPT4//1", "CPT4//2", "CPT4//2"])
    kept, names = chosen(statistics, TokenSettings(min_patients=1, labs=1, procedures=1))
    assert kept == {"LAB//A", "CPT4//2"} and names == ["CPT4//2", "LAB//A", "PROCEDURE//UNKNOWN"]
    assert "PROCEDURE//UNKNOWN" not in chosen(statistics, TokenSettings(min_patients=1))[1]
