"""How codes are spelled: different ways of writing one code, and patterns of codes.

Hospitals write one diagnosis as `ICD10CM//I21.4`, `icd10cm//i214` or `ICD10CM/I21.4`, and one sex as `GENDER//F`,
`Sex//female` or `Gender/8532`. Tokens use the spelling that `spelled` gives; codes are compared by `canonical`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

import polars as pl

from sequela.record.schema import EXTENDED, RACE_PREFIX, SEX_PREFIX

# Systems in which dots, blanks and case say nothing. Tokens use the short spelling of the first kind only: the others
# are tokens as a whole, which people want to read as they are printed.
_SYSTEM = re.compile(
    r"\s*((?:[^/]+//)?)(ICD(?:[-_ ]?(?:\d|O)[^/]*)?|ATC)\s*//?(?!/)(.*)", re.IGNORECASE | re.DOTALL
)
_COMPARED = re.compile(r"\s*()(OPCS[^/]*|OPS|KCD[^/]*|CPT4?|HCPCS)\s*//?(?!/)(.*)", re.IGNORECASE | re.DOTALL)
_VERSION = re.compile(r"\d+(?:CM|PCS|GM|PROC)?", re.IGNORECASE)
_OF_PATIENT = re.compile(
    r"\s*(?:(?:DEMOGRAPHICS?|PATIENT|PERSON)//?)?([^/]+?)\s*//?(?!/)(.*)", re.IGNORECASE | re.DOTALL
)
_SEX_HEAD = re.compile(r"(GENDER|((LEGAL|BIOLOGICAL|PATIENT|ADMINISTRATIVE|BIRTH)_?)?(SEX|GENDER)|SEX_AT_BIRTH)")
SEXES = MALE, FEMALE, OTHER = f"{SEX_PREFIX}M", f"{SEX_PREFIX}F", f"{SEX_PREFIX}OTHER"
# Words of MEDS, FHIR and HL7, concepts of OMOP (8507), SNOMED CT (248153007) and LOINC (LA2-8). Bare 0, 1 and 2 mean
# different things in different datasets.
_SEXES = {
    word: sex
    for sex, words in {
        "M": "M MALE MAN 8507 248153007 LA2-8",
        "F": "F FEMALE WOMAN 8532 248152002 LA3-6",
        "OTHER": "OTHER OTH 8521",
        "UNKNOWN": "UNKNOWN UNK 8551",
    }.items()
    for word in words.split()
}
_DIAGNOSES = ("DIAGNOSIS//", "DX//", "CONDITION//")
_PROCEDURES = ("PROCEDURE//", "PX//")
# Other heads of the systems, behind the head that says what is coded.
_VERSIONS = {
    _DIAGNOSES: {"ICD//10": "ICD10CM", "ICD//9": "ICD9CM"},
    _PROCEDURES: {"ICD//10": "ICD10PCS", "ICD//9": "ICD9PROC", "ICD9CM": "ICD9PROC"},
}


@lru_cache(maxsize=1 << 17)
def spelled(code: str) -> str:
    """The spelling of a code that tokens use: ICD and ATC codes in capitals without dots, one word for each sex.

    >>> [spelled(code) for code in ("ICD10CM//I21.4", "icd10cm/i214 ", "ICD-9-CM//428.0", "DIAGNOSIS//ICD//10//i21.4")]
    ['ICD10CM//I214', 'ICD10CM//I214', 'ICD9CM//4280', 'DIAGNOSIS//ICD//10//I214']
    >>> [spelled(code) for code in ("Gender/8532", "SEX//male", "Race/White", "LAB//Hb")]
    ['GENDER//F', 'GENDER//M', 'RACE//White', 'LAB//Hb']
    """
    match = _SYSTEM.fullmatch(code)
    return _of_patient(code) if match is None else "".join(_short(match, code))


@lru_cache(maxsize=1 << 17)
def canonical(code: str) -> str:
    """A code to compare with others: two spellings of one code have the same.

    Beyond `spelled`, the blanks around a code do not count, nor what MEDS-Extract writes before an ICD code.

    >>> canonical("DIAGNOSIS//ICD//10//i21.4") == canonical("ICD10CM//I21.4") == "ICD10CM//I214"
    True
    >>> canonical("ICD10//I21.4"), canonical(" LAB//HB ")  # WHO's ICD-10 is another system
    ('ICD10//I214', 'LAB//HB')
    """
    return _bare(code).rstrip()


def _bare(code: str) -> str:
    """`canonical` of the beginning of a code."""
    match = _SYSTEM.fullmatch(code) or _COMPARED.fullmatch(code)
    if match is None:
        return _of_patient(code.lstrip())
    what, head, rest = _short(match, code)
    for whats, heads in _VERSIONS.items():
        if what.upper() in whats:
            system = head.removesuffix("//")
            return f"{heads.get(system, system)}//{rest}"
    return f"{what}{head}{rest}"


def _short(match: re.Match[str], code: str) -> tuple[str, str, str]:
    """The head that says what is coded, that of the system, and the rest; all but the first in the short spelling."""
    what, system, rest = match.groups()
    system = re.sub(r"[^A-Z0-9]", "", system.upper())
    piece, slashes, tail = rest.partition("//")
    if system == "ICD" and slashes and _VERSION.fullmatch(piece):
        system = f"ICD//{piece.upper()}"
        piece, slashes, tail = tail.partition("//")
    short = re.sub(r"[.\s]", "", piece).upper()
    if piece.strip() and not short:  # nothing but dots: no code at all
        return "", "", code
    return what, f"{system}//", f"{short}{slashes}{tail}"


def _of_patient(code: str) -> str:
    """A sex as `GENDER//F`, a race as `RACE//...`; any other code as it is."""
    match = _OF_PATIENT.fullmatch(code)
    if match is None:
        return code
    head = re.sub(r"[^A-Z0-9]", "_", match[1].upper())
    if _SEX_HEAD.fullmatch(head):
        word = match[2].strip().upper()
        return SEX_PREFIX + _SEXES.get(re.split("/+", word)[0].strip(), word)
    return RACE_PREFIX + match[2].strip() if head == "RACE" else code


def among(codes: pl.Series, wanted: Callable[[str], bool]) -> pl.Expr:
    """Whether the column `code` is `wanted`; each distinct one of `codes`, among which it is, is looked at once."""
    names = distinct(codes).drop_nulls().cast(pl.String)
    return pl.col("code").is_in(pl.Series([name for name in names if wanted(name)], dtype=pl.String).implode())


def distinct(codes: pl.Series) -> pl.Series:
    """Each of `codes` once. Texts are told apart by their hashes, of 64 bits, which is six times as fast."""
    return codes.filter(codes.hash().is_first_distinct()) if codes.dtype == pl.String else codes.unique()


def meaning(event: str) -> pl.Expr:
    """Whether the column `code` (text, or an Enum of texts) `means` `event`, in polars."""
    code = pl.col("code").cast(pl.String)
    return (code == event) | code.str.starts_with(f"{event}//")


def is_sex(code: str) -> bool:
    """Whether a code says a patient's sex, however it is spelled."""
    return spelled(code).startswith(SEX_PREFIX)


def is_race(code: str) -> bool:
    """Whether a code says a patient's race, however it is spelled."""
    return spelled(code).startswith(RACE_PREFIX)


def matches_code(code: str, patterns: tuple[str, ...]) -> bool:
    """Whether `code` matches any of `patterns`: codes, or beginnings of codes with a * behind them.

    Spelling does not count (see `canonical`). MEDS_DEATH stands for MEDS_DEATH//... too, as in MEDS.

    >>> matches_code("ICD10CM//I21.4", ("MEDS_DEATH", "ICD10CM//I21*")), matches_code("LAB//HBA1C", ("LAB//HB",))
    (True, False)
    """
    exact, beginnings, printed = _compiled(patterns)
    name = canonical(code)
    return name in exact or name.startswith(beginnings) or code.startswith(printed)


@lru_cache(maxsize=256)
def _compiled(patterns: tuple[str, ...]) -> tuple[frozenset[str], tuple[str, ...], tuple[str, ...]]:
    """Whole codes, beginnings of codes, and the same as they are printed in the patterns."""
    stripped = [pattern.strip() for pattern in patterns]
    whole = frozenset(canonical(pattern) for pattern in stripped if not pattern.endswith("*"))
    printed = tuple(pattern[:-1] for pattern in stripped if pattern.endswith("*"))
    beginnings = [_bare(start) for start in printed]
    return whole, (*beginnings, *(f"{code}//" for code in EXTENDED if code in whole)), printed
