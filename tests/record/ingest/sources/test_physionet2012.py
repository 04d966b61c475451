"""The mapping of the PhysioNet 2012 Challenge, on its real files."""

import datetime as dt
import io
import tarfile
from pathlib import Path

import polars as pl
import pytest

from sequela.record.dataset import read_events
from sequela.record.ingest.run import ingest

DAY_0 = dt.datetime(2000, 1, 1)


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


def test_physionet_stays_are_whole(stays, physionet, balanced):
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


def test_physionet_ends_with_the_stay_for_everyone(stays, physionet):
    """Who died later is told, until when others lived is not: with such deaths everybody would die after discharge."""
    _, events = stays
    outcomes = pl.read_csv(physionet / "Outcomes-a.txt").rename({"RecordID": "subject_id"})
    told = events.select(pl.col("subject_id").unique()).join(outcomes, on="subject_id")
    later = told.filter((pl.col("Survival") >= 0) & (pl.col("In-hospital_death") == 0))
    assert later.height > 50
    dead = events.filter(pl.col("code") == "MEDS_DEATH")["subject_id"]
    assert dead.n_unique() == told["In-hospital_death"].sum() and not set(dead) & set(later["subject_id"])
    last = events.filter(pl.col("code") != "FOLLOW_UP//END").group_by("subject_id").agg(pl.col("time").max())
    ends = events.filter(pl.col("code") == "FOLLOW_UP//END").join(last, on="subject_id", suffix="_last")
    assert (ends["time"] == ends["time_last"]).all()


def test_physionet_values_are_plausible(stays, rule_of):
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
def test_physionet_whole(shared_data, tmp_path, balanced, rule_of):
    report = ingest("physionet2012", shared_data / "ehr/physionet2012", tmp_path)
    assert balanced(report)
    assert (report["patients"], report["events"]) == (8_000, 3_302_761)
    assert rule_of(report, "stays", "HOSPITAL_DISCHARGE")["events_out"] == 6_761
