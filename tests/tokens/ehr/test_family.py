import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sequela.tokens.ehr.code import split_code
from sequela.tokens.ehr.family import FAMILIES, HEADS, families, family, keep


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


def counts(rows):
    return pl.DataFrame(rows, schema=["code", "events", "patients"], orient="row")


def test_a_limit_keeps_the_most_frequent_and_ties_go_by_name():
    table = counts(
        [("LAB//C", 5, 5), ("LAB//B", 5, 5), ("LAB//A", 9, 1), ("LAB//D", 7, 5), ("VITAL//X", 1, 2)]
    )
    assert keep(table, {"lab": 2}, 2) == (["LAB//B", "LAB//D", "VITAL//X"], [])
    assert keep(table, {"lab": 0}, 1) == (["VITAL//X"], [])
    assert keep(table, {}, 1)[0] == sorted(table["code"])


def test_only_procedures_have_an_unknown_token():
    table = counts([("CPT4//1", 9, 9), ("HCPCS//2", 8, 8), ("PROCEDURE//3", 7, 1), ("LAB//4", 6, 1)])
    assert keep(table, {"procedure": 1}, 2) == (["CPT4//1"], ["HCPCS//2", "PROCEDURE//3"])


def test_the_order_of_the_rows_does_not_matter():
    rng = np.random.default_rng(0)
    names = [f"{head}//{i}" for head in ("LAB", "CPT4", "NDC") for i in range(50)]
    table = counts([(name, int(rng.integers(1, 9)), int(rng.integers(1, 5))) for name in names])
    limits = {"lab": 20, "procedure": 10}
    assert keep(table, limits, 2) == keep(table.sample(fraction=1, shuffle=True, seed=1), limits, 2)


@pytest.mark.parametrize("seed", range(5))
def test_the_naive_loop_keeps_the_same(seed):
    rng = np.random.default_rng(seed)
    names = [f"{head}//{i}" for head in ("LOINC", "HCPCS", "ATC") for i in range(30)]
    rows = [(name, int(rng.integers(1, 9)), int(rng.integers(1, 5))) for name in names]
    kept, unknown = set(), set()
    for group, limit in (("lab", 7), ("procedure", 5), ("medication", None)):
        mine = [row for row in rows if family(row[0]) == group]
        enough = sorted((row for row in mine if row[2] >= 3), key=lambda row: (-row[1], row[0]))
        kept |= {row[0] for row in enough[:limit]}
        unknown |= {row[0] for row in mine if group == "procedure"} - kept
    assert keep(counts(rows), {"lab": 7, "procedure": 5}, 3) == (sorted(kept), sorted(unknown))


def test_a_code_counted_twice_is_refused():
    with pytest.raises(ValueError, match="one row a code"):
        keep(counts([("LAB//A", 1, 1), ("LAB//A", 1, 1)]), {}, 1)


def test_no_codes_at_all():
    empty = pl.DataFrame(schema={"code": pl.String, "events": pl.Int64, "patients": pl.Int64})
    assert keep(empty, {"lab": 1}, 1) == ([], [])
