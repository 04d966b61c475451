"""The mapping of eICU: on the public demo (28 tables, and `lab` of 174 of its stays), and on rows written by hand."""

import datetime as dt
from pathlib import Path

import polars as pl
import pytest

from sequela.record.dataset import read_events
from sequela.record.ingest.run import ingest

# Not real; see its README.
BY_HAND = Path(__file__).parent / "eicu_by_hand"
PATIENT = 2_000_000_017


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory) -> tuple[dict, pl.DataFrame]:
    out = tmp_path_factory.mktemp("eicu-by-hand")
    return ingest("eicu", BY_HAND, out), read_events(out)


def of(events: pl.DataFrame, code: str) -> list[tuple]:
    """(time, value) of the events with `code`."""
    return events.filter(pl.col("code") == code).select("time", "numeric_value").rows()


def times(events: pl.DataFrame, code: str) -> list[dt.datetime]:
    return events.filter(pl.col("code") == code)["time"].to_list()


def after(minutes: int) -> dt.datetime:
    """Minutes after the admission to the first unit. Two stays of 2014: the first stands on its first of January."""
    return dt.datetime(2014, 1, 1, 12) + dt.timedelta(minutes=minutes)


def test_stays_are_placed_in_the_year_of_discharge(by_hand, balanced):
    report, events = by_hand
    assert balanced(report)
    assert events["subject_id"].unique().to_list() == [PATIENT]
    assert times(events, "HOSPITAL_ADMISSION//Emergency Department") == [after(-120)]
    assert times(events, "ICU_ADMISSION//MICU") == [after(0)]
    assert times(events, "ICU_DISCHARGE//MICU") == times(events, "DEPARTMENT//STEP-DOWN UNIT") == [after(60)]
    assert times(events, "HOSPITAL_DISCHARGE//Home") == [after(1320)]
    second = dt.datetime(2014, 1, 31, 22, 30)
    assert times(events, "ICU_ADMISSION//SICU") == [second], "a month later, and by the clock of the source"
    assert times(events, "HOSPITAL_ADMISSION//UNKNOWN") == [second], "no later than the unit in it"
    end = second + dt.timedelta(minutes=6000)
    for code in ("MEDS_DEATH", "HOSPITAL_DISCHARGE//DIED", "FOLLOW_UP//END"):
        assert times(events, code) == [end], "the stay with death is the last, whatever its number"
    assert times(events, "DEPARTMENT//HOSPITAL_59") == [after(-120)]
    (birth,) = times(events, "MEDS_BIRTH")
    assert birth == after(-120).replace(year=1924), "above 89 is 90, on the calendar"


def test_where_a_stay_stands_tells_nothing_of_later_ones(tmp_path):
    """With one, two and twenty stays in a year the stays up to the k-th stand where they stand without the others."""
    header, *_, last = (BY_HAND / "patient.csv").read_text().splitlines()
    cells = last.replace("Expired", "Alive").split(",")
    stays: list[list[tuple]] = []
    for count in (1, 2, 20):
        raw = tmp_path / str(count)
        raw.mkdir()
        rows = [",".join([str(20 + k), str(800 + k), *cells[2:]]) for k in range(count)]
        (raw / "patient.csv").write_text("\n".join([header, *rows]))
        ingest("eicu", raw, raw / "out")
        events = read_events(raw / "out")
        hospital = events.filter(pl.col("code").str.starts_with("HOSPITAL_"))
        stays.append(hospital.select("time", "code").rows())
    one, two, many = stays
    assert (len(one), len(two), len(many)) == (2, 4, 40)
    assert one == two[:2] and two == many[:4]
    assert [code.split("//")[0] for _, code in many] == ["HOSPITAL_ADMISSION", "HOSPITAL_DISCHARGE"] * 20


def test_contradictions_are_settled_by_number_not_by_the_order_of_rows(tmp_path):
    header, first, second, *_ = (BY_HAND / "patient.csv").read_text().splitlines()
    other = {
        "Female": "Male",
        "Caucasian": "Asian",
        ",59,": ",77,",
        "10:00:00,-180": "04:00:00,-180",
        "Home": "Rehab",
    }
    for old, new in other.items():
        assert old in second
        second = second.replace(old, new)
    second = second.replace("MICU,2,", "MICU,1,").replace("Emergency Department", "Floor")
    made = []
    for number, rows in enumerate([(first, second), (second, first)]):
        raw = tmp_path / str(number)
        raw.mkdir()
        (raw / "patient.csv").write_text("\n".join([header, *rows]))
        ingest("eicu", raw, raw / "out")
        made.append(read_events(raw / "out"))
    one, two = made
    assert one.equals(two)
    expected = {"GENDER//F", "RACE//Caucasian", "DEPARTMENT//HOSPITAL_59", "HOSPITAL_DISCHARGE//Home"}
    assert expected | {"HOSPITAL_ADMISSION//Emergency Department"} <= set(one["code"])


def test_measurements(by_hand):
    report, events = by_hand
    heart = [(time, value) for time, value in of(events, "VITAL//HR")]
    assert heart == [(after(5), 88.0)], "0 is out of range, two lie outside the stay, one has no patient"
    account = report["tables"]["nurseCharting"]["rules"][0]["dropped"]
    assert account == {
        "after the hospital stay": 1,
        "more than a day before the hospital stay": 1,
        "no patient": 1,
    }
    temperature = [(time, round(value, 1)) for time, value in of(events, "VITAL//TEMP")]
    assert sorted(temperature) == [(after(5), 37.5), (after(15), 36.8), (after(15), 37.0)]
    assert of(events, "VITAL//SBP") == [(after(15), 118.0)]
    assert of(events, "VITAL//SBP_INVASIVE") == [(after(5), 120.0)]
    assert of(events, "VITAL//GCS_MOTOR") == [(after(15), 6.0)]
    assert of(events, "CHART//Pain Score/Goal|Pain Score//UNK") == [(after(15), 3.0)]
    words = events.filter(pl.col("text_value").is_not_null()).select("code", "text_value").rows()
    assert sorted(words) == [
        ("CHART//Temperature|Temperature Location//UNK", "ORAL"),
        ("VITAL//GCS", "Unable to score due to medication"),
    ]
    assert times(events, "VITAL//HEIGHT") == [after(0), after(60)], "0.3 cm is no height"


def test_laboratory_stands_when_it_was_known(by_hand):
    _, events = by_hand
    assert [time for time, _ in of(events, "LAB//creatinine//mg/dL")] == [after(50)]
    assert [round(value, 2) for _, value in of(events, "LAB//troponin - I//ng/mL")] == [0.02]
    assert of(events, "LAB//FiO2//%") == [(after(20), 40.0), (after(21), 50.0)], "a fraction and percent"
    assert times(events, "MICROBIOLOGY//TEST//CULTURE//Urine") == [after(40)]
    assert times(events, "MICROBIOLOGY//ORGANISM//ESCHERICHIA COLI") == [after(1320)], (
        "not before it can be known"
    )
    assert times(events, "MICROBIOLOGY//SENSITIVITY//AMPICILLIN//R") == [after(1320)]


def test_lists_of_codes(by_hand):
    _, events = by_hand
    codes = events.filter(pl.col("code").str.contains("^(ICD|DIAGNOSIS)"))
    assert codes.select("time", "code").rows() == [
        (after(30), "ICD10CM//I10"),
        (after(31), "ICD10CM//T4060"),
        (after(32), "ICD9CM//51882"),
        (after(33), "DIAGNOSIS//endocrine|glucose metabolism|diabetes mellitus"),
        (after(34), "ICD9CM//42731"),
        (after(34), "ICD9CM//V5861"),
        (after(35), "ICD9CM//E9802"),
    ]


def test_drugs(by_hand):
    _, events = by_hand
    assert times(events, "HICL//2812") == [after(10)], "not before it was ordered"
    assert times(events, "MEDICATION//SOME HERB") == [after(25)]
    assert not times(events, "HICL//1820"), "cancelled"
    assert times(events, "MEDICATION//NOREPINEPHRINE") == [after(20)], "not at a rate of zero"
    assert of(events, "CHART//NOREPINEPHRINE//mcg/min") == [(after(20), 4.0), (after(25), 0.0)]
    assert times(events, "MEDICATION//PROPOFOL") == [after(26)]


@pytest.fixture(scope="module")
def eicu_raw(shared_data, tmp_path_factory) -> Path:
    """The demo's tables, with `lab` of a part of its stays."""
    raw = tmp_path_factory.mktemp("eicu-raw")
    for path in (shared_data / "ehr/eicudemo/csv").glob("*.csv.gz"):
        (raw / path.name).symlink_to(path)
    (raw / "lab.csv.gz").symlink_to(shared_data / "ehr/eicudemo/pyhealth_subset/lab.csv.gz")
    return raw


@pytest.fixture(scope="module")
def eicu(eicu_raw, tmp_path_factory) -> tuple[dict, pl.DataFrame]:
    out = tmp_path_factory.mktemp("eicu")
    return ingest("eicu", eicu_raw, out), read_events(out)


@pytest.fixture(scope="module")
def patients(eicu_raw) -> pl.DataFrame:
    number = pl.col("uniquepid").str.split("-")
    return pl.read_csv(eicu_raw / "patient.csv.gz", infer_schema_length=None).with_columns(
        subject_id=number.list[0].cast(pl.Int64) * 10**9 + number.list[1].cast(pl.Int64)
    )


@pytest.mark.slow
def test_demo_stays(eicu, patients, balanced):
    report, events = eicu
    assert balanced(report)
    assert report["patients"] == patients["uniquepid"].n_unique() == 1_841
    heads = dict(events["code"].str.split("//").list.first().value_counts().rows())
    died = patients.filter(pl.col("hospitaldischargestatus") == "Expired")
    assert heads["MEDS_DEATH"] == died["uniquepid"].n_unique() == 181
    hospital = patients["patienthealthsystemstayid"].n_unique()
    again = 1  # the source lets one patient die twice
    assert heads["HOSPITAL_ADMISSION"] == heads["HOSPITAL_DISCHARGE"] == hospital - again == 2_173
    units = patients.filter(pl.col("unitstaytype") != "stepdown/other").height
    assert heads["ICU_ADMISSION"] == heads["ICU_DISCHARGE"] == units - again == 2_240
    assert heads["FOLLOW_UP"] == 1_841


@pytest.mark.slow
def test_demo_stays_keep_their_clock_and_do_not_overlap(eicu, patients):
    _, events = eicu
    admitted = events.filter(pl.col("code").str.starts_with("ICU_ADMISSION//"))
    once = patients.filter(pl.len().over("uniquepid") == 1).with_columns(
        clock=pl.col("unitadmittime24").str.to_time().dt.hour() * 60.0
        + pl.col("unitadmittime24").str.to_time().dt.minute()
    )
    both = admitted.join(once.select("subject_id", "clock"), on="subject_id")
    minute = both["time"].dt.hour() * 60.0 + both["time"].dt.minute()
    apart = (minute - both["clock"]).abs()
    assert both.height > 1_000 and (apart.is_between(0, 1) | (apart == 1439)).all(), (
        "some clocks have seconds"
    )
    stays = events.filter(pl.col("code").str.contains("^HOSPITAL_(ADMISSION|DISCHARGE)//"))
    opens = pl.col("code").str.starts_with("HOSPITAL_ADMISSION")
    depth = stays.select("subject_id", step=pl.when(opens).then(1).otherwise(-1))
    depth = depth.with_columns(depth=pl.col("step").cum_sum().over("subject_id"))
    assert set(depth["depth"]) == {0, 1}
    years = stays.filter(opens)["time"].dt.year().value_counts().sort("time")
    assert years["time"].to_list() == [2013, 2014, 2015], (
        "of discharge; entered a unit before midnight of 1 January"
    )
    assert years["count"][0] == 4


@pytest.mark.slow
def test_demo_distances_are_those_of_the_source(eicu, eicu_raw, patients):
    """Of patients with one unit stay, every blood pressure lies its offset after the admission to the unit."""
    _, events = eicu
    once = patients.filter(pl.len().over("uniquepid") == 1, pl.col("unitstaytype") != "stepdown/other")
    told = pl.read_csv(eicu_raw / "vitalaperiodic.csv.gz", infer_schema_length=None)
    told = told.join(once.select("subject_id", "patientunitstayid"), on="patientunitstayid")
    told = told.filter(pl.col("noninvasivemean").is_between(10, 250), pl.col("observationoffset") >= 0)
    told = told.join(once.select("patientunitstayid", end="hospitaldischargeoffset"), on="patientunitstayid")
    told = told.filter(pl.col("observationoffset") <= pl.col("end"))
    told = told.select(
        "subject_id", minutes="observationoffset", value=pl.col("noninvasivemean").cast(pl.Float32)
    )
    start = events.filter(pl.col("code").str.starts_with("ICU_ADMISSION//")).select(
        "subject_id", start="time"
    )
    found = events.filter(pl.col("code") == "VITAL//MAP").join(start, on="subject_id")
    found = found.select(
        "subject_id", minutes=(pl.col("time") - pl.col("start")).dt.total_minutes(), value="numeric_value"
    )
    assert told.height > 100_000
    assert told.join(found, on=["subject_id", "minutes", "value"], how="anti").is_empty()


@pytest.mark.slow
def test_demo_counts(eicu, eicu_raw):
    report, events = eicu
    rows = {name: table["rows"] for name, table in report["tables"].items()}
    assert (rows["medication"], rows["treatment"], rows["lab"]) == (75_604, 38_290, 29_961)
    coded = events["code"].str.contains("^ICD10CM//").sum()
    raw = pl.read_csv(eicu_raw / "diagnosis.csv.gz", infer_schema_length=None)
    with_ten = raw["icd9code"].str.contains(r"\b[A-DF-UW-Z]\d[\dA-Z]|\bE\d\d(\.|,|$)").sum()
    assert 0.9 * with_ten < coded <= with_ten, "one ICD-10-CM code for each, less duplicates"
    for table in report["tables"].values():
        for rule in table["rules"]:
            outside = sum(n for reason, n in rule["dropped"].items() if reason.endswith("the hospital stay"))
            assert outside <= 0.012 * rule["rows_in"], rule["code"]
    fractions = events.filter(pl.col("code").is_in(["LAB//FiO2//%", "CHART//FiO2//%"]))["numeric_value"]
    assert fractions.min() >= 15 and fractions.max() <= 100


def test_one_table_is_enough(tmp_path):
    (tmp_path / "patient.csv").write_text((BY_HAND / "patient.csv").read_text())
    report = ingest("eicu", tmp_path, tmp_path / "out")
    assert report["patients"] == 1
