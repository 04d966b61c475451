"""The mappings that ship, on the real data they are for: counts, accounts, and facts known from elsewhere."""

import datetime as dt
import io
import tarfile
from pathlib import Path

import polars as pl
import pytest

from sequela.record.bundled import nafld
from sequela.record.ingest import ingest
from sequela.record.store import read_events
from sequela.record.timeline import timelines

DAY_0 = dt.datetime(2000, 1, 1)


def balanced(report: dict) -> bool:
    rules = [rule for table in report["tables"].values() for rule in table["rules"]]
    return sum(rule["events_out"] for rule in rules) == report["events"] and all(
        rule["rows_in"] == rule["events_out"] + sum(rule["dropped"].values()) for rule in rules
    )


def rule_of(report: dict, table: str, code: str) -> dict:
    return next(rule for rule in report["tables"][table]["rules"] if code in rule["code"])


# ---- NAFLD


@pytest.fixture(scope="module")
def cohort() -> pl.DataFrame:
    return read_events(nafld())


def test_the_bundled_cohort_is_what_ingest_makes_of_the_public_data(shared_data, tmp_path, cohort):
    report = ingest("nafld", shared_data / "ehr/nafld", tmp_path)
    assert balanced(report)
    assert read_events(tmp_path).equals(cohort)
    for name in ("metadata/codes.parquet", "metadata/subject_splits.parquet"):
        assert pl.read_parquet(tmp_path / name).equals(pl.read_parquet(nafld() / name))
    for name in ("metadata/dataset.json", "ingest.json"):
        assert (tmp_path / name).read_text() == (nafld() / name).read_text()
    dropped = rule_of(report, "tests", "code")["dropped"]
    assert (dropped["copy of hdl"], dropped["copy of sbp"], dropped["out of range"]) == (161_258, 33_430, 8)
    assert rule_of(report, "diagnoses", "code")["dropped"] == {"after follow-up end": 13}


def test_the_bundled_cohort_has_the_known_counts(cohort):
    count = dict(cohort["code"].value_counts().rows())
    assert cohort.height == 334_676 and cohort["subject_id"].n_unique() == 17_549
    everyone = ("MEDS_BIRTH", "COHORT//ENTRY", "FOLLOW_UP//END")
    assert [count[code] for code in everyone] == [17_549] * 3
    assert count["GENDER//F"] + count["GENDER//M"] == 17_549
    assert count["MEDS_DEATH"] == 1_364
    # People with a first diagnosis after day 0, as counted from the public files by other means
    first = (
        cohort.filter(pl.col("code").str.starts_with("DIAGNOSIS//"))
        .group_by("subject_id", "code")
        .agg(pl.col("time").min())
    )
    new = dict(first.filter(pl.col("time") > DAY_0)["code"].value_counts().rows())
    assert new["DIAGNOSIS//HYPERTENSION"] == 2_074
    assert new["DIAGNOSIS//DIABETES"] == 1_058


def test_nothing_follows_the_end_of_follow_up(cohort):
    for timeline in timelines(cohort):
        assert timeline.time[-1] == timeline.end
        assert timeline.code[-1] == "FOLLOW_UP//END"


def test_the_bundled_folder_is_small_and_licensed():
    files = [path for path in nafld().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 2_000_000
    assert "LIBRARY GENERAL PUBLIC LICENSE" in (nafld() / "LICENSE").read_text()
    assert {"README.md", "CITATION", "LICENSE"} <= {path.name for path in files}


# ---- PhysioNet 2012


def some_stays(archive: Path, count: int) -> dict[str, bytes]:
    members = {}
    with tarfile.open(archive) as packed:
        for member in packed:
            if member.isfile():
                members[member.name] = packed.extractfile(member).read()
            if len(members) == count:
                return members


@pytest.fixture(scope="module")
def physionet(shared_data, tmp_path_factory) -> Path:
    """A raw folder with the first 400 stays of set a, packed as in the source."""
    raw = tmp_path_factory.mktemp("physionet")
    source = shared_data / "ehr/physionet2012"
    with tarfile.open(raw / "set-a.tar.gz", "w:gz", compresslevel=1) as archive:
        for name, content in some_stays(source / "set-a.tar.xz", 400).items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    (raw / "Outcomes-a.txt").write_bytes((source / "Outcomes-a.txt").read_bytes())
    return raw


@pytest.fixture(scope="module")
def stays(physionet, tmp_path_factory) -> tuple[dict, pl.DataFrame]:
    out = tmp_path_factory.mktemp("physionet-meds")
    return ingest("physionet2012", physionet, out), read_events(out)


def test_physionet_stays_are_whole(stays, physionet):
    report, events = stays
    assert balanced(report)
    assert report["patients"] == 400
    count = dict(events["code"].value_counts().rows())
    assert count["RECORD//48H"] == count["MEDS_BIRTH"] == count["FOLLOW_UP//END"] == 400
    assert sum(count[f"ICU_ADMISSION//TYPE_{kind}"] for kind in (1, 2, 3, 4)) == 400
    first = events.filter(pl.col("time") == DAY_0).group_by("subject_id", maintain_order=True).first()
    assert first["code"].str.starts_with("ICU_ADMISSION//").all(), "the admission opens the stay"
    assert "VITAL//HR" in count and "LAB//Creatinine" in count and "VITAL//NISysABP" in count
    assert report["tables"]["readings"]["rows_without_rule"] == 400, "the stay's own number"


def test_physionet_outcomes_come_after_the_recording(stays, physionet):
    _, events = stays
    outcomes = pl.read_csv(physionet / "Outcomes-a.txt").rename({"RecordID": "subject_id"})
    last = events.filter(pl.col("code").is_in(["HOSPITAL_DISCHARGE", "MEDS_DEATH"]))
    assert (last["time"] > DAY_0 + dt.timedelta(hours=48)).all(), "also those of the third day"
    died = last.group_by("subject_id").agg(pl.col("code").first() == "MEDS_DEATH")
    told = events.select(pl.col("subject_id").unique()).join(outcomes, on="subject_id")
    assert died.filter("code").height == told["In-hospital_death"].sum(), "no death in hospital is lost"
    joined = told.join(died, on="subject_id")
    assert (joined["code"] == (joined["In-hospital_death"] == 1)).all()
    unknown = told.join(died, on="subject_id", how="anti")
    assert (unknown["Length_of_stay"] < 2).all() and (unknown["In-hospital_death"] == 0).all()
    ends = events.join(unknown, on="subject_id", how="semi").filter(pl.col("code") == "FOLLOW_UP//END")
    assert (ends["time"] == DAY_0 + dt.timedelta(hours=48)).all(), (
        "of these nothing is known after the recording"
    )


def test_physionet_values_are_plausible(stays):
    report, events = stays
    assert rule_of(report, "readings", "code")["dropped"]["missing (-1)"] > 0
    assert rule_of(report, "readings", "code")["dropped"]["out of range"] > 0
    assert events["numeric_value"].min() >= 0
    temperature = events.filter(pl.col("code") == "VITAL//Temp")["numeric_value"]
    assert temperature.min() >= 25 and temperature.max() <= 45


def test_physionet_unpacked_gives_the_same(physionet, stays, tmp_path):
    raw = tmp_path / "raw"
    (raw / "set-a").mkdir(parents=True)
    for name, content in some_stays(physionet / "set-a.tar.gz", 400).items():
        (raw / name).write_bytes(content)
    (raw / "Outcomes-a.txt").write_bytes((physionet / "Outcomes-a.txt").read_bytes())
    ingest("physionet2012", raw, tmp_path / "out")
    assert read_events(tmp_path / "out").equals(stays[1])


@pytest.mark.slow
def test_physionet_whole(shared_data, tmp_path):
    report = ingest("physionet2012", shared_data / "ehr/physionet2012", tmp_path)
    assert balanced(report)
    assert (report["patients"], report["events"]) == (8_000, 3_302_761)
    assert rule_of(report, "stays", "HOSPITAL_DISCHARGE")["events_out"] == 6_761


# ---- MIMIC-IV


@pytest.fixture(scope="module")
def mimic(shared_data, tmp_path_factory) -> tuple[dict, pl.DataFrame]:
    out = tmp_path_factory.mktemp("mimic")
    return ingest("mimic4", shared_data / "ehr/mimic4demo_partial", out), read_events(out)


def test_mimic_counts(mimic):
    report, events = mimic
    assert balanced(report)
    assert (report["patients"], report["events"]) == (100, 116_969)
    head = events["code"].str.split("//").list.first().alias("head")
    count = dict(head.value_counts().rows())
    assert count["HOSPITAL_ADMISSION"] == count["HOSPITAL_DISCHARGE"] == 275
    assert count["ICD9CM"] + count["ICD10CM"] == 4_506
    assert count["MEDS_DEATH"] == 31 and count["LAB"] == 107_727 - 189
    assert not events["code"].str.contains(r"^ICD\d+CM//.*\.").any(), "codes without the dot"


def test_mimic_diagnoses_stand_at_a_discharge(mimic):
    _, events = mimic
    ends = events.filter(pl.col("code").str.starts_with("HOSPITAL_DISCHARGE//")).select("subject_id", "time")
    diagnoses = events.filter(pl.col("code").str.starts_with("ICD"))
    assert diagnoses.join(ends, on=["subject_id", "time"], how="anti").is_empty()


def test_mimic_death_is_last(mimic):
    _, events = mimic
    deaths = events.filter(pl.col("code") == "MEDS_DEATH").select("subject_id", death="time")
    assert events.join(deaths, on="subject_id").filter(pl.col("time") > pl.col("death")).is_empty()
