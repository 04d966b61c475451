"""Which group of the vocabulary budget a code belongs to, and which codes of a group get a token."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

import polars as pl

PROCEDURE_UNKNOWN = "PROCEDURE//UNKNOWN"
"""The one token of all procedures beyond the budget."""

# Heads (what stands before the first slash), upper case with _ for other characters: those of our own codes, those of
# the OMOP vocabularies and tables, and what other tools write into MEDS.
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
# Bedside measurements that stand without a head, such as MIMIC's "Blood Pressure Standing (1 min)".
_VITAL_NAMES = ("BLOOD_PRESSURE", "BMI", "WEIGHT", "HEIGHT", "HEART_RATE", "RESPIRATORY_RATE", "TEMPERATURE")

FAMILIES = (*HEADS, "other")


def family(code: str) -> str:
    """The group of a code, one of `FAMILIES`, by what stands before its first slash, without regard to case.

    >>> [family(code) for code in ("ICD10CM//E1165", "ICD10CM//2//65", "DIAGNOSIS//ICD//9//25000")]
    ['diagnosis', 'diagnosis', 'diagnosis']
    >>> [family(code) for code in ("LAB//HB//g/dL", "BMI (kg/m2)", "ED_ADMISSION", "NONSENSE")]
    ['lab', 'vital', 'encounter', 'other']
    """
    return _of_head(code.partition("/")[0])


def families(codes: pl.Series) -> pl.Series:
    """`family` of every one of `codes` [N]; looks each head up once."""
    head = codes.str.splitn("/", 2).struct.field("field_0")
    known = head.unique()
    return head.replace_strict(known, [_of_head(h) for h in known], return_dtype=pl.String).alias("family")


def keep(counts: pl.DataFrame, limits: Mapping[str, int], min_patients: int) -> tuple[list[str], list[str]]:
    """Which codes get a token of their own, and which become `PROCEDURE_UNKNOWN`; both in the order of names.

    `counts` has one row a code: code, events, patients (of the training split). A code needs `min_patients` patients,
    and in a family with a limit it must be among that many with the most events; of equals the first by name. What
    procedures leave over becomes `PROCEDURE_UNKNOWN`; other codes that are not kept have no token.
    """
    codes = counts.with_columns(family=families(counts["code"])).sort("code")
    if codes["code"].is_duplicated().any():
        raise ValueError("counts must have one row a code")
    enough = codes.filter(pl.col("patients") >= min_patients)
    ranked = enough.sort("events", "code", descending=[True, False])
    limit = pl.col("family").replace_strict(dict(limits), default=None, return_dtype=pl.Int64)
    rank = pl.int_range(pl.len()).over("family")
    kept = ranked.filter(limit.is_null() | (rank < limit))["code"].sort()
    rest = codes.filter(pl.col("family") == "procedure")
    unknown = rest.join(kept.to_frame(), on="code", how="anti", maintain_order="left")
    return kept.to_list(), unknown["code"].to_list()


@cache
def _of_head(head: str) -> str:
    head = re.sub(r"[^A-Z0-9]", "_", head.upper())
    if head in _FAMILY:
        return _FAMILY[head]
    if "ADMISSION" in head or "DISCHARGE" in head:
        return "encounter"
    return "vital" if head.startswith(_VITAL_NAMES) else "other"
