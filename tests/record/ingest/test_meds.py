"""MEDS datasets of others become ours: of both versions, in every layout, with what was wrong mended and counted."""

import datetime as dt
import json
import shutil
from pathlib import Path

import meds
import polars as pl
import pyarrow.parquet as pq
import pytest

from sequela.errors import InputError
from sequela.record.dataset import read_events
from sequela.record.ingest.run import IngestSettings, ingest

DAY = dt.datetime(2020, 1, 1)
SCHEMA = {"subject_id": pl.Int64, "time": pl.Datetime("us"), "code": pl.String, "numeric_value": pl.Float32}


def patient(number: int) -> pl.DataFrame:
    """A birth, a stay, two events in an order that is not the alphabet's, a death."""
    rows = [
        (number, None, "GENDER//F", None), (number, DAY.replace(year=1950), "MEDS_BIRTH", None),
        (number, DAY, "HOSPITAL_ADMISSION//X", None), (number, DAY + dt.timedelta(days=1), "Z", 1.5),
        (number, DAY + dt.timedelta(days=1), "A", 2.5),
        (number, DAY + dt.timedelta(days=2), "HOSPITAL_DISCHARGE", None),
        (number, DAY + dt.timedelta(days=2), "MEDS_DEATH", None),
    ]  # fmt: skip
    return pl.DataFrame(rows, SCHEMA, orient="row")


PATIENTS = pl.concat([patient(number) for number in range(1, 21)])


@pytest.fixture
def made(tmp_path):
    """Writes frames to files below a folder, ingests it, and checks that what comes out is MEDS."""

    def run(files: dict[str, pl.DataFrame], facts: dict | None = None, **options) -> dict:
        for name, frame in files.items():
            (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
            frame.write_parquet(tmp_path / "in" / name)
        if facts:
            (tmp_path / "in/metadata").mkdir(exist_ok=True)
            (tmp_path / "in/metadata/dataset.json").write_text(json.dumps(facts))
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        report = ingest("meds", tmp_path / "in", tmp_path / "out", IngestSettings(**options))
        check_meds(tmp_path / "out")
        return report

    return run


def check_meds(out: Path) -> None:
    for path in out.glob("data/*/*.parquet"):
        meds.DataSchema.validate(pq.read_table(path))
        assert pl.read_parquet(path)["subject_id"].is_sorted()
    meds.SubjectSplitSchema.validate(pq.read_table(out / "metadata/subject_splits.parquet"))
    meds.CodeMetadataSchema.validate(pq.read_table(out / "metadata/codes.parquet"))
    meds.DatasetMetadataSchema.validate(json.loads((out / "metadata/dataset.json").read_text()))


@pytest.mark.parametrize("unit", ["us", "ns", "ms"])
def test_times_with_which_nothing_can_be_computed_are_dropped_and_counted(made, unit):
    frame = PATIENTS.with_columns(pl.col("time").cast(pl.Datetime(unit)))
    wild = frame.head(3).with_columns(time=pl.Series([2**63 - 1, -(2**63), None]).cast(pl.Datetime(unit)))
    files = {"data/0.parquet": pl.concat([frame, wild.with_columns(code=pl.lit("WILD"))])}
    if unit == "ms":  # what reads the file cannot hold them at all
        with pytest.raises(InputError, match="an impossible time"):
            made(files)
        return
    report = made(files)
    (rule,) = report["tables"]["events"]["rules"]
    # 2^63 - 1 nanoseconds are the year 2262
    assert rule["dropped"]["outside the years 1 to 9999"] == {"us": 2, "ns": 1}[unit]
    assert report["events"] == PATIENTS.height + 3 - sum(rule["dropped"].values())


OLD = PATIENTS.rename({"subject_id": "patient_id"})
LAYOUTS = {
    "0.4": {"data/train/0.parquet": PATIENTS[:70], "data/held_out/0.parquet": PATIENTS[70:]},
    "0.3": {"data/train/0.parquet": OLD[:70], "data/held_out/0.parquet": OLD[70:]},
    "without data/": {"train/0.parquet": PATIENTS[:70], "held_out/0.parquet": PATIENTS[70:]},
    "one flat file": {"events.parquet": PATIENTS},
    "files that share a patient": {"data/0.parquet": PATIENTS[:4], "data/1.parquet": PATIENTS[4:]},
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("events_per_shard", [10_000, 40])
def test_every_layout_gives_the_same_events(made, tmp_path, layout, events_per_shard, balanced):
    report = made(LAYOUTS[layout], events_per_shard=events_per_shard)
    assert balanced(report)
    assert (report["patients"], report["events"]) == (20, 140)
    assert read_events(tmp_path / "out").equals(PATIENTS), "at one time in the order on disk"
    if "data/held_out/0.parquet" in LAYOUTS[layout] or "held_out/0.parquet" in LAYOUTS[layout]:
        assert sorted(path.name for path in (tmp_path / "out/data").iterdir()) == ["held_out", "train"]
        assert read_events(tmp_path / "out", "train")["subject_id"].unique().sort().to_list() == list(
            range(1, 11)
        )


@pytest.mark.parametrize("name, word", [("subject_splits", "subject_id"), ("patient_splits", "patient_id")])
def test_the_table_of_splits_wins_over_folders(made, tmp_path, name, word):
    table = pl.DataFrame({word: range(1, 19), "split": ["tuning"] * 9 + ["held_out"] * 9})
    report = made(LAYOUTS["0.4"] | {f"metadata/{name}.parquet": table}, fractions=(1.0, 0.0, 0.0))
    assert report["patients_by_split"] == {"held_out": 9, "train": 2, "tuning": 9}, "two by their hash"
    assert read_events(tmp_path / "out", "tuning")["subject_id"].max() == 9


def test_other_types_and_further_columns(made, tmp_path):
    odd = PATIENTS.with_columns(
        pl.col("subject_id").cast(pl.Int32), pl.col("time").cast(pl.Datetime("ns")),
        pl.col("code").cast(pl.Categorical),
        pl.col("numeric_value").cast(pl.Float64), pl.lit("mg").alias("unit"), hadm_id=pl.lit(1),
        text=pl.lit("said"),
    )  # fmt: skip
    report = made({"data/a.parquet": odd[:70], "data/b.parquet": PATIENTS[70:].drop("numeric_value")})
    read = read_events(tmp_path / "out")
    assert read[:70, :4].equals(PATIENTS[:70]) and read[:70]["text_value"].unique().to_list() == ["said"]
    assert read[70:]["numeric_value"].null_count() == 70
    assert report["tables"]["events"]["columns_left_out"] == ["hadm_id"]
    assert report["tables"]["events"]["files"] == ["data/a.parquet", "data/b.parquet"]
    codes = pl.read_parquet(tmp_path / "out/metadata/codes.parquet").filter(pl.col("code") == "A")
    assert codes["unit"].to_list() == ["mg"]


def test_payloads_are_kept_and_a_column_that_is_no_path_is_left_out(made, tmp_path):
    noted = PATIENTS.with_columns(
        text_value=pl.when(pl.col("code") == "Z").then(pl.lit("a note")),
        media=pl.when(pl.col("code") == "A").then(pl.format("ecg/{}.dat", "subject_id")),
    )
    made({"data/a.parquet": noted[:70], "data/b.parquet": PATIENTS[70:].with_columns(media=pl.lit(1))})
    read = read_events(tmp_path / "out")
    assert read[:70].equals(noted[:70]) and read[70:, :4].equals(PATIENTS[70:])
    assert read[70:]["media"].null_count() == 70
    with pytest.raises(InputError, match=r"b\.parquet, row 5: 'media' is not a relative path"):
        made({"data/b.parquet": noted[70:].with_columns(media=pl.when(pl.col("code") == "A").then(pl.lit("/a")))})


def test_a_date_without_a_clock_ends_its_day_and_a_birth_opens_it(made, tmp_path):
    made({"events.parquet": PATIENTS[:7].with_columns(pl.col("time").cast(pl.Date))})
    hours = dict(read_events(tmp_path / "out").select("code", pl.col("time").dt.time()).rows())
    assert (
        hours["MEDS_BIRTH"] == dt.time(0) and hours["A"] == dt.time(23, 59, 59) and hours["GENDER//F"] is None
    )


def test_birth_and_death_of_old_versions(made, tmp_path):
    old = {"MEDS_BIRTH": "SNOMED/184099003", "MEDS_DEATH": "SNOMED/419620001"}
    made({"events.parquet": PATIENTS.with_columns(pl.col("code").replace(old))})
    assert read_events(tmp_path / "out").equals(PATIENTS)


def test_wrong_rows_are_counted(made, tmp_path, balanced):
    birth = DAY.replace(year=1949)
    wrong = pl.DataFrame(
        [(None, DAY, "A", 1.0), (1, DAY, None, 1.0), (1, DAY, "", 1.0), (1, birth, "A", 1.0)],
        SCHEMA,
        orient="row",
    )
    values = pl.DataFrame([(1, DAY, "V", float("nan")), (1, DAY, "W", float("inf"))], SCHEMA, orient="row")
    report = made({"events.parquet": pl.concat([PATIENTS, wrong, values, PATIENTS[:3]])})
    dropped = {"no patient": 1, "no code": 2, "before birth": 1, "duplicate": 3}
    assert report["tables"]["events"]["rules"][0]["dropped"] == dropped
    assert balanced(report)
    some = read_events(tmp_path / "out").filter(pl.col("code").is_in(["V", "W"]))
    assert some["numeric_value"].to_list() == [None, None]


def test_leaks_are_moved(made, tmp_path):
    leak = pl.DataFrame([(1, DAY, "DIAGNOSIS//ICD//10//I10", None)], SCHEMA, orient="row")
    report = made({"events.parquet": pl.concat([leak, PATIENTS])})
    assert report["moved"] == {"at admission -> at discharge": 1}
    codes = read_events(tmp_path / "out").filter(pl.col("subject_id") == 1)["code"].to_list()
    assert codes.index("DIAGNOSIS//ICD//10//I10") == codes.index("A") + 1


def test_metadata_is_kept(made, tmp_path):
    codes = pl.DataFrame(
        {"code": ["A", "gone"], "description": ["Letter", "x"], "parent_codes": [["P", None], ["Q"]]}
    )
    facts = {"dataset_name": "theirs", "meds_version": "0.3.3", "dataset_version": 2, "license": "ODbL",
             "other_extension_columns": ["hadm_id"], "real_dates": False}  # fmt: skip
    report = made({"events.parquet": PATIENTS, "metadata/codes.parquet": codes}, facts)
    kept = json.loads((tmp_path / "out/metadata/dataset.json").read_text())
    assert kept == {"dataset_name": "theirs", "etl_name": "sequela", "meds_version": meds.__version__,
                    "license": "ODbL", "real_dates": False}  # fmt: skip
    assert report["source"] == "theirs" and report["codes"] == 7
    table = pl.read_parquet(tmp_path / "out/metadata/codes.parquet").filter(pl.col("code") == "A")
    assert table.select("description", "parent_codes", "events", "patients").rows() == [
        ("Letter", ["P"], 20, 20)
    ]


def refused(made, files: dict[str, pl.DataFrame], *words: str) -> None:
    with pytest.raises(InputError) as caught:
        made(files)
    assert all(word in str(caught.value) for word in words), caught.value


def test_what_is_no_dataset(made, tmp_path):
    refused(made, {}, "there is no folder")
    refused(made, {"metadata/codes.parquet": PATIENTS}, "no *.parquet file with events")
    refused(made, {"data/0.parquet": PATIENTS.drop("time")}, "0.parquet has no column 'time'")
    refused(
        made,
        {"data/0.parquet": PATIENTS.with_columns(pl.col("time").cast(pl.String))},
        "0.parquet, column 'time'",
    )
    refused(made, {"data/0.parquet": PATIENTS.clear()}, "none of its rows makes an event")
    (tmp_path / "in/data/0.parquet").write_bytes(b"PAR1 cut short")
    refused(made, {}, "0.parquet cannot be read")


def test_a_patient_in_two_splits(made):
    refused(
        made,
        {"data/train/0.parquet": PATIENTS[:70], "data/tuning/0.parquet": PATIENTS[60:]},
        "2 patients are in",
    )


@pytest.mark.parametrize(
    "name, patients, rows, kept, in_split",
    [
        ("mimic4demo_meds_full", 100, 916_166, 913_496, {"held_out": 10, "train": 80, "tuning": 10}),
        ("mimic4demo_meds_slim", 100, 247_304, 244_655, {"held_out": 22, "train": 70, "tuning": 8}),
        (
            "mimic4demo_omop/meds_by_omop_meds_0.2.0",
            100,
            107_059,
            107_055,
            {"held_out": 10, "train": 80, "tuning": 10},
        ),
        ("synthea27nj_omop/meds_by_meds_etl", 28, 24_783, 22_916, {"held_out": 1, "train": 22, "tuning": 5}),
    ],
)
def test_real_datasets_of_others(shared_data, tmp_path, name, patients, rows, kept, in_split, balanced):
    folder = shared_data / "ehr" / name
    report = ingest("meds", folder, tmp_path / "out")
    assert balanced(report)
    check_meds(tmp_path / "out")
    (rule,) = report["tables"]["events"]["rules"]
    assert (report["patients"], rule["rows_in"], rule["dropped"]) == (
        patients,
        rows,
        {"duplicate": rows - kept},
    )
    assert report["patients_by_split"] == in_split
    assert report["moved"]["at admission -> at discharge"] == 0
    # Counted anew from the files: as many events as differ in what they say
    paths = [path for path in folder.rglob("*.parquet") if "metadata" not in path.parts]
    frame = pl.concat([pl.read_parquet(path) for path in paths], how="diagonal_relaxed")
    said = [name for name in (*SCHEMA, "text_value", "text") if name in frame.columns]
    assert frame.select(said).n_unique() == kept


def test_folders_named_as_columns_and_columns_named_as_ours(made, tmp_path):
    control = made({"data/0.parquet": PATIENTS})
    codes = read_events(tmp_path / "out")["code"].to_list()
    (tmp_path / "in/data/0.parquet").unlink()
    odd = PATIENTS.with_columns(_file=pl.lit("x"), _path=pl.lit("y"), _number=9)
    report = made({"data/code=X/subject_id=7/0.parquet": odd})
    assert (report["events"], read_events(tmp_path / "out")["code"].to_list()) == (control["events"], codes)
    with pytest.raises(InputError, match="column 'file_row_number'"):
        made({"data/code=X/1.parquet": PATIENTS.with_columns(file_row_number=1)})
