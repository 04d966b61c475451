"""Codes: the family each belongs to, the tokens it is split into, and its order among events of one moment."""

from __future__ import annotations

import re
from functools import cache, lru_cache

import polars as pl

from sequela.record.schema import DEATH, means

PROCEDURE_UNKNOWN = "PROCEDURE//UNKNOWN"
"""The token that all procedures beyond the budget share."""

# Heads (the text before the first slash), in upper case with _ for other characters: those of our own codes, of the
# OMOP vocabularies and tables, and of what other tools write into MEDS.
HEADS = {
    "demographic": "GENDER SEX RACE ETHNICITY MARITAL_STATUS LANGUAGE INSURANCE MEDS_BIRTH BIRTH AGE",
    "death": "MEDS_DEATH DEATH",
    "encounter": "ENCOUNTER ENCOUNTER_START ENCOUNTER_END VISIT ED_REGISTRATION ED_OUT CMS_PLACE_OF_SERVICE",
    "department": "DEPARTMENT SERVICE SPECIALTY TRANSFER_TO NUCC MEDICARE_SPECIALTY",
    "complaint": "CHIEF_COMPLAINT COMPLAINT",
    "diagnosis": "ICD10CM ICD9CM ICD10 ICD9 ICD10GM ICD11 ICDO3 KCD7 DIAGNOSIS CONDITION DX DX_END SNOMED "
    "PHECODE OMOP_CONDITION_OCCURRENCE OMOP_CONDITION_ERA",
    "billing": "DRG APC",
    "lab": "LOINC LAB CHART MICROBIOLOGY OBS OBSERVATION MEASUREMENT OMOP_MEASUREMENT OMOP_OBSERVATION",
    "vital": "VITAL BMI SUBJECT_WEIGHT_AT_INFUSION SUBJECT_FLUID_OUTPUT",
    "medication": "ATC RXNORM RXNORM_EXTENSION NDC GSN HICL CVX DM_D MEDICATION DRUG RX IMM IMMUNIZATION "
    "INFUSION_START INFUSION_END OMOP_DRUG_EXPOSURE OMOP_DRUG_ERA",
    "procedure": "CPT4 CPT HCPCS ICD10PCS ICD9PROC OPCS4 OPS PROCEDURE PX CDT OMOP_PROCEDURE_OCCURRENCE",
}
_FAMILY = {head: family for family, heads in HEADS.items() for head in heads.split()}
# Bedside measurements without a head, such as MIMIC's "Blood Pressure Standing (1 min)".
_VITAL_NAMES = ("BLOOD_PRESSURE", "BMI", "WEIGHT", "HEIGHT", "HEART_RATE", "RESPIRATORY_RATE", "TEMPERATURE")

FAMILIES = (*HEADS, "other")

# ICD-10-CM 3|2|2 is the split that reproduces CoMET's 2,429 diagnosis tokens; ATC 3|2|2 its 289 medication tokens.
WIDTHS = {"ICD10CM": (3, 2, 2), "ATC": (3, 2, 2)}
# A complaint and, if known, its place in the body: two tokens.
COMPLAINT = "CHIEF_COMPLAINT"
IN_PARTS = (*WIDTHS, COMPLAINT)
# The order of events at one moment: what opens a stay, where, why, everything else, what closes a stay, death. Nothing
# is simulated after MEDS_DEATH, so what else is said of a death comes before it.
OPENS, WHERE, WHY, REST, CLOSES, DIES = range(6)


def family(code: str) -> str:
    """The family of a code, one of `FAMILIES`, by the text before its first slash, ignoring case.

    >>> [family(code) for code in ("ICD10CM//E1165", "ICD10CM//2//65", "DIAGNOSIS//ICD//9//25000")]
    ['diagnosis', 'diagnosis', 'diagnosis']
    >>> [family(code) for code in ("LAB//HB//g/dL", "BMI (kg/m2)", "ED_ADMISSION", "NONSENSE")]
    ['lab', 'vital', 'encounter', 'other']
    """
    return _of_head(code.partition("/")[0])


def families(codes: pl.Series) -> pl.Series:
    """The `family` of each of `codes` [N]; looks each head up once."""
    head = codes.str.splitn("/", 2).struct.field("field_0")
    known = head.unique()
    return head.replace_strict(known, [_of_head(h) for h in known], return_dtype=pl.String).alias("family")


@cache
def _of_head(head: str) -> str:
    head = re.sub(r"[^A-Z0-9]", "_", head.upper())
    if head in _FAMILY:
        return _FAMILY[head]
    if "ADMISSION" in head or "DISCHARGE" in head:
        return "encounter"
    return "vital" if head.startswith(_VITAL_NAMES) else "other"


@lru_cache(maxsize=1 << 17)
def split_code(code: str) -> tuple[str, ...]:
    """The token names of a code. Each part carries its position, so parts from different positions never mix.

    >>> split_code("ICD10CM//E1165")
    ('ICD10CM//1//E11', 'ICD10CM//2//65')
    >>> split_code("ATC//A10BA02")
    ('ATC//1//A10', 'ATC//2//BA', 'ATC//3//02')
    >>> split_code("CHIEF_COMPLAINT//PAIN//LEFT KNEE")
    ('CHIEF_COMPLAINT//1//PAIN', 'CHIEF_COMPLAINT//2//LEFT KNEE')
    >>> split_code("LAB//HDL"), split_code("ICD10CM//.")
    (('LAB//HDL',), ('ICD10CM//.',))
    """
    system, _, rest = code.partition("//")
    if system == COMPLAINT and rest and not rest.startswith("//"):
        pieces = rest.split("//", 1)
    elif system in WIDTHS and rest and "//" not in rest:
        first, second, _ = WIDTHS[system]
        bare = rest.replace(".", "")  # ICD-10-CM with its dot is the same code
        if not bare.strip():  # "." is how some programs write that there is no code
            return (code,)
        pieces = [bare[:first], bare[first : first + second], bare[first + second :]]
    else:
        return (code,)
    return tuple(f"{system}//{position}//{piece}" for position, piece in enumerate(pieces, 1) if piece)


@lru_cache(maxsize=1 << 17)
def stand_ins(code: str) -> tuple[str, ...]:
    """The codes whose token may stand for one that is too rare for its own, the closest first.

    Whether a stay is open, and whether a patient lives, must be told even where the way it began or ended is rare.

    >>> stand_ins("HOSPITAL_DISCHARGE//HOME//WALKED"), stand_ins("ENCOUNTER//INPATIENT//END")
    (('HOSPITAL_DISCHARGE//HOME', 'HOSPITAL_DISCHARGE'), ('ENCOUNTER//END',))
    >>> stand_ins("MEDS_DEATH//AT_HOME"), stand_ins("CPT4//99213"), stand_ins("LAB//HDL")
    (('MEDS_DEATH',), ('PROCEDURE//UNKNOWN',), ())
    """
    if family(code) == "procedure":
        return (PROCEDURE_UNKNOWN,)
    if order_rank(code) not in (OPENS, CLOSES) and family(code) != "death":
        return ()
    head, *rest = code.split("//")
    closing = rest[-1:] if rest[-1:] in (["START"], ["END"]) else []
    rest = rest[: len(rest) - len(closing)]
    out = ["//".join([head, *rest[:kept], *closing]) for kept in reversed(range(len(rest)))]
    if not rest and "/" in head:  # some tools write a single slash
        out.append(head.partition("/")[0])
    return tuple(out)


def join_parts(tokens: tuple[str, ...]) -> str:
    """The inverse of `split_code`.

    >>> join_parts(("ICD10CM//1//E11", "ICD10CM//2//65"))
    'ICD10CM//E1165'
    >>> join_parts(("CHIEF_COMPLAINT//1//PAIN", "CHIEF_COMPLAINT//2//LEFT KNEE"))
    'CHIEF_COMPLAINT//PAIN//LEFT KNEE'
    """
    if part_place(tokens[0]) == 0:
        return tokens[0]
    system = tokens[0].partition("//")[0]
    pieces = [token.split("//", 2)[2] for token in tokens]
    return f"{system}//" + ("//" if system == COMPLAINT else "").join(pieces)


def part_place(token: str) -> int:
    """1, 2 or 3 for a part of a code, 0 for any other token.

    >>> part_place("ICD10CM//2//65"), part_place("LAB//HDL")
    (2, 0)
    """
    pieces = token.split("//", 2)
    return int(pieces[1]) if len(pieces) == 3 and pieces[0] in IN_PARTS and pieces[1].isdecimal() else 0


@lru_cache(maxsize=1 << 17)
def order_rank(code: str) -> int:
    """The rank of a code among the events of one moment.

    >>> order_rank("HOSPITAL_ADMISSION//EMERGENCY") < order_rank("LAB//HDL") < order_rank("MEDS_DEATH")
    True
    """
    group = family(code)
    if group == "death":
        return DIES + means(code, DEATH) + (code == DEATH)
    if group != "encounter":
        return {"department": WHERE, "complaint": WHY}.get(group, REST)
    head = code.split("//", 1)[0].upper()
    if "DISCHARGE" in head or head.endswith(("_END", "_OUT")) or code.endswith("//END"):
        return CLOSES
    return OPENS
