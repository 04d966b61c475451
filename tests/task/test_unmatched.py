from datetime import datetime

import polars as pl
import pytest

from sequela.record.dataset import codes_of, write_dataset
from sequela.task.unmatched import held, near, unmatched
from sequela.tokens.maps.code_map import CodeMap
from tests.task.conftest import EVENTS, make_task

CODES = ["ENTRY", "STROKE", "GENDER//M", "DIAGNOSIS//DIABETES", "ICD9CM//4280", "ICD10CM//I21.4", "MEDS_DEATH//HOME"]


@pytest.fixture(scope="module")
def meds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("codes") / "meds"
    rows = [(patient, datetime(2000, 1, 1), code, None) for patient, code in enumerate(CODES * 2)]
    write_dataset(pl.DataFrame(rows, schema=EVENTS, orient="row"), folder, name="codes")
    return folder


def test_every_code_of_every_split_is_known(meds):
    assert codes_of(meds) == sorted(CODES)
    maps = (CodeMap("m", (("ICD9CM//4280", "ICD10CM//I509"),)),)
    assert "ICD10CM//I509" in held(meds, maps) and "ICD10CM//I214" in held(meds, maps)


def test_what_is_there_is_not_spoken_of(meds):
    good = make_task(exclude=("ICD9CM//428.0", "icd10cm//i21.*", "SEX//male"), ends=("MEDS_DEATH",))
    assert unmatched([good], meds) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"exclude": ("DIAGNOSIS//DIABTES",)}, "`exclude` DIAGNOSIS//DIABTES (near it: DIAGNOSIS//DIABETES)"),
        ({"outcome": ("GENDER",)}, "`outcome` GENDER (near it: GENDER//M)"),
        ({"ends": ("HOSPITAL_DISCHARGE*",)}, "`ends` HOSPITAL_DISCHARGE*. "),
        ({"after": "ENTRI"}, "`after` ENTRI (near it: ENTRY)"),
        ({"exclude": ("ICD10//I214",)}, "`exclude` ICD10//I214 (near it: ICD10CM//I214)"),
        ({"exclude": ("MEDS_DEATH//HOSPITAL",)}, "`exclude` MEDS_DEATH//HOSPITAL (near it: MEDS_DEATH//HOME)"),
        ({"exclude": ("A", "B", "C", "D", "E")}, "`exclude` A, `exclude` B, `exclude` C, and 2 more. "),
    ],
)
def test_what_is_not_there_is_named_with_what_comes_near(meds, changes, words):
    other = make_task(name="fine", ends=("MEDS_DEATH",))
    (line,) = unmatched([make_task(**{"ends": ("MEDS_DEATH",)} | changes), other], meds)
    assert line.startswith("Task stroke_10d names codes that ") and words in line


def test_nothing_is_near_where_nothing_is_similar():
    assert near("LOINC//2160-0", ["GENDER//M", "ENTRY"]) == near("X", []) == ""
