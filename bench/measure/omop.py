"""A synthetic OMOP CDM 5.4 of any size, as Parquet or as CSV.gz, in bounded memory. Nothing in it is about anybody.

A patient has some 40 rows: 4 visits of some days over 20 years, and in them 8 diagnoses, 8 drugs, 4 procedures and 14
measurements; one in twenty dies. Concepts are as frequent as Zipf's law says. The same seed gives the same rows.
"""

from __future__ import annotations

from pathlib import Path

import duckdb

FORMS = {
    "parquet": ("parquet", "FORMAT parquet, COMPRESSION zstd"),
    "csv": ("csv.gz", "FORMAT csv, HEADER, COMPRESSION gzip"),
}
CONCEPTS = 100_000  # of the vocabulary
USED = 4_000  # of each kind, the most frequent first
VISITS = 4
# kind -> rows a patient, number of its first concept, vocabulary
KINDS = {
    "condition": (8, 1_000_000, "SNOMED"),
    "drug": (8, 2_000_000, "RxNorm"),
    "procedure": (4, 3_000_000, "CPT4"),
    "measurement": (14, 4_000_000, "LOINC"),
}
MACROS = """
CREATE MACRO chance(a, b, salt) AS (hash(a, b, salt, {seed}) >> 11) / 9007199254740992.0;
CREATE MACRO visit_of(person, number) AS person * {visits} + number % {visits};
CREATE MACRO opens(person, number) AS
  TIMESTAMP '2000-01-01' + to_minutes((chance(person, number % {visits}, 'opens') * 10512000)::BIGINT);
CREATE MACRO within(person, number, salt) AS
  opens(person, number) + to_minutes((chance(person, number, salt) * 4320)::BIGINT);
CREATE MACRO zipf(person, number, salt) AS floor(exp(chance(person, number, salt) * ln({used})))::BIGINT;
"""
PERSON = """
SELECT p AS person_id, CASE WHEN chance(p, 0, 'sex') < 0.5 THEN 8507 ELSE 8532 END AS gender_concept_id,
  1930 + (chance(p, 0, 'born') * 60)::INTEGER AS year_of_birth, 1 + p % 12 AS month_of_birth, 1 AS day_of_birth,
  8527 AS race_concept_id, 38003564 AS ethnicity_concept_id
FROM range(1, {patients} + 1) AS _(p)
"""
VISIT = """
SELECT visit_of(p, n) AS visit_occurrence_id, p AS person_id,
  CASE WHEN chance(p, n, 'kind') < 0.3 THEN 9201 ELSE 9202 END AS visit_concept_id,
  opens(p, n)::DATE AS visit_start_date, opens(p, n) AS visit_start_datetime,
  (opens(p, n) + INTERVAL 3 DAY)::DATE AS visit_end_date, opens(p, n) + INTERVAL 3 DAY AS visit_end_datetime
FROM range(1, {patients} + 1) AS _(p), range({visits}) AS _n(n)
"""
ROWS = """
SELECT p * {each} + n AS {table}_id, p AS person_id, {first} + zipf(p, n, '{kind}') AS {kind}_concept_id,
  within(p, n, '{kind}')::DATE AS {day}_date, within(p, n, '{kind}') AS {day}_datetime, 32817 AS {kind}_type_concept_id,
  visit_of(p, n) AS visit_occurrence_id{more}
FROM range(1, {patients} + 1) AS _(p), range({each}) AS _n(n)
"""
DEATH = """
SELECT p AS person_id, (TIMESTAMP '2020-01-05' + to_days((chance(p, 0, 'dies') * 20000)::INTEGER))::DATE AS death_date
FROM range(1, {patients} + 1) AS _(p) WHERE chance(p, 0, 'dies') < 0.05
"""
CONCEPT = """
SELECT {first} + c AS concept_id, '{vocabulary} concept ' || c AS concept_name, '{vocabulary}' AS vocabulary_id,
  'C' || c AS concept_code
FROM range({concepts} // {kinds}) AS _(c)
"""
RESULT = ", round(exp(chance(p, n, 'value') * 4), 2) AS value_as_number, 8840 AS unit_concept_id"


def write(out: Path, patients: int, *, form: str = "parquet", seed: int = 0) -> dict:
    """Write the tables of so many patients to the folder `out`, one file each, in one of `FORMS`.

    Returns:
        {"patients", "rows", "bytes"} of what was written; rows without those of the vocabulary.
    """
    out.mkdir(parents=True)
    suffix, options = FORMS[form]
    con = duckdb.connect()
    con.execute("SET enable_progress_bar = false")  # it would stand in the table of the benchmark
    con.execute(MACROS.format(seed=seed, visits=VISITS, used=USED))
    rows = 0
    for name, sql in _tables(patients).items():
        (written,) = con.execute(f"COPY ({sql}) TO '{out / name}.{suffix}' ({options})").fetchone()
        rows += written if name != "concept" else 0
    return {"patients": patients, "rows": rows, "bytes": sum(path.stat().st_size for path in out.iterdir())}


def _tables(patients: int) -> dict[str, str]:
    names = {
        "condition": ("condition_occurrence", "condition_start", ""),
        "drug": ("drug_exposure", "drug_exposure_start", ""),
        "procedure": ("procedure_occurrence", "procedure", ""),
        "measurement": ("measurement", "measurement", RESULT),
    }
    told = {"patients": patients, "visits": VISITS}
    tables = {"person": PERSON.format(**told), "visit_occurrence": VISIT.format(**told)}
    concepts = []
    for kind, (table, day, more) in names.items():
        each, first, vocabulary = KINDS[kind]
        tables[table] = ROWS.format(
            **told, kind=kind, table=table, day=day, more=more, each=each, first=first
        )
        concepts.append(
            CONCEPT.format(first=first, vocabulary=vocabulary, concepts=CONCEPTS, kinds=len(KINDS))
        )
    return tables | {"death": DEATH.format(**told), "concept": " UNION ALL ".join(concepts)}
