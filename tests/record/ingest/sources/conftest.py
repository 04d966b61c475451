"""Raw folders for the mappings of public data, put together from what is at hand."""

from pathlib import Path

import duckdb
import pytest

# The tables of the MIMIC-IV demo whose raw files are not at hand, turned back from the MEDS of the whole demo that
# another ETL made (`meds`). The names of the columns are those of the source; columns that no rule reads are left out.
TURNED_BACK = {
    "icu/chartevents": """
        SELECT subject_id, "time" AS charttime, split_part(code, '//', 2) AS itemid,
          coalesce(text_value, numeric_value::VARCHAR) AS value, numeric_value AS valuenum,
          nullif(split_part(code, '//', 3), 'UNK') AS valueuom
        FROM meds WHERE code LIKE 'LAB//22%'""",
    "icu/outputevents": """
        SELECT subject_id, "time" AS charttime, split_part(code, '//', 2) AS itemid, numeric_value AS value,
          split_part(code, '//', 3) AS valueuom
        FROM meds WHERE code LIKE 'SUBJECT_FLUID_OUTPUT//%'""",
    "icu/inputevents": """
        SELECT subject_id, starttime, endtime, itemid, amount, amountuom, rate, rateuom, statusdescription FROM (
          SELECT subject_id, icustay_id, order_id, split_part(code, '//', 2) AS itemid, "time" AS starttime,
            numeric_value AS rate, unit AS rateuom,
            row_number() OVER (PARTITION BY icustay_id, order_id, code ORDER BY "time") AS nth
          FROM meds WHERE code LIKE 'INFUSION_START//%')
        JOIN (
          SELECT icustay_id, order_id, split_part(code, '//', 2) AS itemid, "time" AS endtime,
            numeric_value AS amount, unit AS amountuom, statusdescription,
            row_number() OVER (PARTITION BY icustay_id, order_id, code ORDER BY "time") AS nth
          FROM meds WHERE code LIKE 'INFUSION_END//%') USING (icustay_id, order_id, itemid, nth)""",
    "icu/procedureevents": """
        SELECT subject_id, "time" AS starttime, split_part(code, '//', 3) AS itemid, '' AS statusdescription
        FROM meds WHERE code LIKE 'PROCEDURE//START//%'""",
    "icu/icustays": """
        SELECT i.subject_id, i.hadm_id, split_part(i.code, '//', 2) AS first_careunit,
          split_part(o.code, '//', 2) AS last_careunit, i."time" AS intime, o."time" AS outtime
        FROM meds AS i JOIN meds AS o USING (icustay_id)
        WHERE i.code LIKE 'ICU_ADMISSION//%' AND o.code LIKE 'ICU_DISCHARGE//%'""",
    "hosp/transfers": """
        SELECT subject_id, hadm_id, split_part(code, '//', 2) AS eventtype,
          nullif(split_part(code, '//', 3), 'UNK') AS careunit, "time" AS intime,
          CASE WHEN hadm_id IS NOT NULL
            THEN lead("time") OVER (PARTITION BY subject_id, hadm_id ORDER BY "time") END AS outtime
        FROM meds WHERE code LIKE 'TRANSFER_TO//%'""",
    "hosp/emar": """
        SELECT subject_id, hadm_id, "time" AS charttime, nullif(split_part(code, '//', 2), 'UNK') AS medication,
          nullif(split_part(code, '//', 3), 'UNK') AS event_txt
        FROM meds WHERE code LIKE 'MEDICATION//%' AND emar_id IS NOT NULL""",
    "hosp/prescriptions": """
        SELECT m.subject_id, a.hadm_id, "time" AS starttime, 'MAIN' AS drug_type, substr(code, 20) AS drug
        FROM meds AS m LEFT JOIN admissions AS a
          ON a.subject_id = m.subject_id AND "time" >= admittime - INTERVAL 1 DAY AND "time" <= dischtime
        WHERE code LIKE 'MEDICATION//START//%'
        QUALIFY row_number() OVER (PARTITION BY m._row ORDER BY admittime DESC) = 1""",
    "hosp/drgcodes": """
        SELECT subject_id, hadm_id, split_part(code, '//', 2) AS drg_type, split_part(code, '//', 3) AS drg_code,
          split_part(code, '//', 4) AS description
        FROM meds WHERE code LIKE 'DRG//%'""",
    "hosp/procedures_icd": """
        SELECT subject_id, hadm_id, "time" AS chartdate, split_part(code, '//', 4) AS icd_code,
          split_part(code, '//', 3) AS icd_version
        FROM meds WHERE code LIKE 'PROCEDURE//ICD//%'""",
}


@pytest.fixture(scope="session")
def mimic_demo(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw folder of the MIMIC-IV demo: the seven raw tables at hand, and the others turned back from MEDS."""
    raw = tmp_path_factory.mktemp("mimic-demo")
    source = shared_data / "ehr/mimic4demo_partial"
    for module in ("hosp", "icu"):
        (raw / module).mkdir()
        for path in (source / module).glob("*.csv.gz"):
            (raw / module / path.name).symlink_to(path)
    con = duckdb.connect()
    shards = shared_data / "ehr/mimic4demo_meds_full/data/*/*.parquet"
    con.execute(f"CREATE TABLE meds AS SELECT row_number() OVER () AS _row, * FROM read_parquet('{shards}')")
    con.execute(
        f"CREATE TABLE admissions AS SELECT * FROM read_csv('{source}/hosp/admissions.csv.gz', sample_size=-1)"
    )
    for name, sql in TURNED_BACK.items():
        con.execute(f"COPY ({sql}) TO '{raw}/{name}.csv' (HEADER, DELIMITER ',')")
    return raw
