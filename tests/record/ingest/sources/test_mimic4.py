"""The mapping of MIMIC-IV: on the public demo, and on a handful of rows written by hand.

Of the demo seven raw tables are at hand. Ten more are turned back from the MEDS that another ETL made of the whole demo
(see `mimic_demo`). The rest (hcpcsevents, microbiologyevents, services, the module ed) is only in the rows by hand.
"""

import datetime as dt
from pathlib import Path

import duckdb
import polars as pl
import pytest

from sequela.record.dataset import read_events
from sequela.record.duration import DAY, MINUTE
from sequela.record.ingest.run import ingest
from sequela.task.label import labels
from tests.task.conftest import make_task

# Not real; see its README.
BY_HAND = Path(__file__).parent / "mimic4_by_hand"
LATER_VISIT = "8,,81,2151-01-01 01:00:00,2151-01-01 03:00:00,M,UNKNOWN,WALK IN,HOME\n"


def copied(raw: Path, *names: str) -> Path:
    """A raw folder with these tables of `BY_HAND` only."""
    for name in names:
        (raw / name).parent.mkdir(exist_ok=True)
        (raw / f"{name}.csv").write_text((BY_HAND / f"{name}.csv").read_text())
    return raw


def at(text: str) -> dt.datetime:
    return dt.datetime.strptime(text, "%m-%d %H:%M:%S").replace(year=2150)


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory) -> tuple[dict, pl.DataFrame]:
    out = tmp_path_factory.mktemp("mimic-by-hand")
    return ingest("mimic4", BY_HAND, out), read_events(out)


def of(events: pl.DataFrame, code: str) -> list[tuple]:
    """(time, value, text) of the events with `code`."""
    found = events.filter(pl.col("code") == code)
    return found.select("time", "numeric_value", "text_value").rows()


def times(events: pl.DataFrame, code: str) -> list[dt.datetime]:
    return events.filter(pl.col("code") == code)["time"].to_list()


def test_what_is_coded_after_the_stay_stands_at_its_end(by_hand, balanced):
    report, events = by_hand
    assert balanced(report)
    death = at("03-05 09:30:00")
    for code in (
        "ICD10CM//A419",
        "DRG//APR//720",
        "ICD9PROC//3893",
        "HOSPITAL_DISCHARGE//DIED",
        "MEDS_DEATH",
    ):
        assert times(events, code) == [death], code
    assert times(events, "ICD9CM//V5861") == [at("06-03 10:00:00")]
    assert times(events, "ICD10PCS//5A1945Z") == [at("03-02 23:59:59")], "a day without a clock"
    assert times(events, "CPT4//43239") == [at("03-02 23:59:59")]
    assert times(events, "HCPCS//G0378") == [at("06-03 10:00:00")], "not after the stay"
    assert times(events, "ICD10CM//R6521") == times(events, "ICD9CM//486") == [at("03-01 13:00:00")]


def test_stays_are_told_once(by_hand):
    _, events = by_hand
    assert times(events, "ED_ADMISSION//AMBULANCE") == [at("03-01 08:00:00")]
    assert times(events, "ED_DISCHARGE//ADMITTED") == [at("03-01 13:00:00")]
    assert times(events, "ED_ADMISSION") == [at("02-01 20:00:00")], "known from the transfers only"
    assert times(events, "ED_DISCHARGE") == [at("02-01 23:00:00")]
    assert times(events, "ICU_ADMISSION//Medical Intensive Care Unit (MICU)") == [at("03-01 13:00:00")]
    assert times(events, "ICU_DISCHARGE//Surgical Intensive Care Unit (SICU)") == [at("03-05 09:30:00")]
    assert times(events, "DEPARTMENT//Medicine") == [at("06-01 07:00:00")]
    assert times(events, "DEPARTMENT//SURG") == [at("06-01 07:05:00")]


def test_results_stand_when_they_were_known(by_hand):
    report, events = by_hand
    creatinine = of(events, "LAB//50912//mg/dL")
    assert [(time, round(value, 1)) for time, value, _ in creatinine] == [
        (at("03-01 15:10:00"), 1.9),
        (at("03-02 14:00:00"), 2.4),
    ], "the last one was stored after the death"
    assert of(events, "LAB//51492//mg/dL") == [(at("03-01 15:00:00"), 300.0, None)]
    assert of(events, "LAB//51514//UNK") == [(at("03-01 15:00:00"), None, "NEG")]
    assert of(events, "LAB//50827//UNK") == [(at("03-01 15:00:00"), None, "35/.")]
    culture = "MICROBIOLOGY//TEST//Blood Culture, Routine//BLOOD CULTURE"
    assert times(events, culture) == [at("03-01 14:00:00")]
    assert times(events, "MICROBIOLOGY//ORGANISM//ESCHERICHIA COLI") == [at("03-04 09:00:00")]
    assert times(events, "MICROBIOLOGY//SENSITIVITY//AMPICILLIN//R") == [at("03-04 09:00:00")]
    assert of(events, "MICROBIOLOGY//RESULT//URINE CULTURE") == [(at("03-03 23:59:59"), None, "NO GROWTH.")]
    assert not events["code"].str.contains("CANCELLED").any()
    assert report["tables"]["microbiologyevents"]["rules"][1]["dropped"]["test cancelled"] == 1


def test_deaths_are_known_until_a_year_after_the_last_discharge(by_hand, tmp_path):
    _, events = by_hand
    ends = events.filter(pl.col("code") == "FOLLOW_UP//END").sort("subject_id")["time"].to_list()
    assert ends == [at("03-05 09:30:00"), at("06-03 10:00:00").replace(year=2151)]
    raw = copied(tmp_path, "hosp/patients", "hosp/admissions", "ed/edstays")
    with (raw / "ed/edstays.csv").open("a") as file:
        file.write(LATER_VISIT)
    ingest("mimic4", raw, tmp_path / "out")
    ends = times(read_events(tmp_path / "out"), "FOLLOW_UP//END")
    assert ends[1] == dt.datetime(2152, 1, 1, 3), "a visit to the emergency department counts too"


def test_given_doses_take_the_place_of_orders(by_hand):
    report, events = by_hand
    assert times(events, "MEDICATION//PHENYLEPHRINE") == [at("03-01 16:00:00")]
    assert times(events, "MEDICATION//NICOTINE PATCH") == [at("03-01 18:00:00")]
    assert times(events, "MEDICATION//DOCUSATE SODIUM") == [at("06-01 08:00:00")], (
        "ordered, in a stay without doses"
    )
    (account,) = report["tables"]["prescriptions"]["rules"]
    assert account["dropped"] == {"diluent": 1, "doses recorded in emar": 1}
    assert times(events, "GSN//000390") == [at("03-01 08:20:00")]
    assert times(events, "MEDICATION//SOME HERB") == [at("03-01 08:20:00")]
    assert times(events, "GSN//004490") == [at("03-01 08:40:00")]


def test_bedside_measurements(by_hand):
    _, events = by_hand
    (_, triage, _), (_, fahrenheit, _) = of(events, "VITAL//TEMP")
    assert (round(triage, 3), round(fahrenheit, 3)) == (38.0, 37.0)
    assert [value for _, value, _ in of(events, "VITAL//HR")] == [110, 104, 88]
    assert [round(value, 1) for _, value, _ in of(events, "CHART//220045//Hz")] == [1.4], (
        "units are not mixed"
    )
    assert of(events, "CHART//220048//UNK") == [(at("03-01 14:00:00"), None, "AF (Atrial Fibrillation)")]
    assert times(events, "CHIEF_COMPLAINT//DYSPNEA") == times(events, "CHIEF_COMPLAINT//FEVER")
    assert times(events, "VITAL//DBP") == [at("03-01 08:00:00")], "only where measured"
    assert [value for _, value, _ in of(events, "VITAL//PAIN")] == [7]
    codes = set(events["code"])
    assert not {"CHART//220046//bpm", "CHART//220615//UNK"} & codes, "alarm settings, copies of labevents"


def test_what_triage_says_without_a_stay_or_a_number_is_counted(tmp_path, balanced):
    raw = copied(tmp_path, "hosp/patients", "hosp/admissions", "ed/edstays", "ed/triage", "ed/vitalsign")
    with (raw / "ed/triage.csv").open("a") as file:
        file.write('7,72,98.6,80,16,99,120,80,3,3,"Cough, Rash"\n')
    report = ingest("mimic4", raw, raw / "out")
    assert balanced(report)
    (complaints,) = report["tables"]["complaints"]["rules"]
    assert (complaints["rows_in"], complaints["dropped"]) == (4, {"no such stay": 2})
    (vitals,) = report["tables"]["ed_vitals"]["rules"]
    assert (vitals["rows_in"], vitals["events_out"]) == (23, 12)
    assert vitals["dropped"] == {"no such stay": 8, "no value": 3}, "pain in words, and two empty cells"


def test_what_runs_in_intensive_care(by_hand):
    _, events = by_hand
    assert times(events, "MEDICATION//NOREPINEPHRINE") == [at("03-01 14:00:00")], "not the cancelled one"
    assert [round(value, 2) for _, value, _ in of(events, "CHART//221906//mcg/kg/min")] == [0.1]
    assert of(events, "CHART//220949//ml") == [(at("03-01 14:30:00"), 250.0, None)], (
        "an amount is known at the end"
    )
    assert of(events, "CHART//226559//ml") == [(at("03-01 16:00:00"), 120.0, None)]
    assert times(events, "PROCEDURE//INVASIVE VENTILATION") == [at("03-01 14:00:00")]


def test_patients_and_admissions_are_enough(tmp_path):
    raw = copied(tmp_path, "hosp/patients", "hosp/admissions")
    report = ingest("mimic4", raw, tmp_path / "out")
    assert report["patients"] == 2
    assert times(read_events(tmp_path / "out"), "ED_ADMISSION") == [at("03-01 08:00:00")]


def test_without_the_module_icu_stays_are_made_of_transfers(tmp_path):
    raw = copied(tmp_path, "hosp/patients", "hosp/admissions", "hosp/transfers")
    ingest("mimic4", raw, tmp_path / "out")
    events = read_events(tmp_path / "out")
    assert times(events, "ICU_ADMISSION//Medical Intensive Care Unit (MICU)") == [at("03-01 13:00:00")]
    assert times(events, "ICU_DISCHARGE//Surgical Intensive Care Unit (SICU)") == [at("03-05 09:30:00")]
    assert events["code"].str.starts_with("ICU_ADMISSION").sum() == 1, "from unit to unit is one stay"


def test_a_database_gives_the_same(by_hand, tmp_path):
    """The schemas are those of the scripts in mimic-code, which load MIMIC-IV into PostgreSQL or DuckDB."""
    with duckdb.connect(tmp_path / "mimic.duckdb") as con:
        for path in sorted(BY_HAND.glob("*/*.csv")):
            schema = f"mimiciv_{path.parent.name}"
            con.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
            con.execute(f"CREATE TABLE {schema}.{path.stem} AS SELECT * FROM read_csv('{path}')")
    ingest("mimic4", tmp_path / "mimic.duckdb", tmp_path / "out")
    assert read_events(tmp_path / "out").equals(by_hand[1])


@pytest.fixture(scope="module")
def mimic(mimic_demo, tmp_path_factory) -> tuple[dict, pl.DataFrame]:
    out = tmp_path_factory.mktemp("mimic")
    return ingest("mimic4", mimic_demo, out), read_events(out)


@pytest.fixture(scope="module")
def other_etl(shared_data) -> pl.DataFrame:
    """The same 100 patients as another ETL tells them."""
    return pl.read_parquet(shared_data / "ehr/mimic4demo_meds_full/data/*/*.parquet")


def count(events: pl.DataFrame, pattern: str) -> int:
    return events["code"].str.contains(pattern).sum()


def test_demo_counts_are_those_of_the_other_etl(mimic, other_etl, balanced):
    report, events = mimic
    assert balanced(report)
    assert report["patients"] == other_etl["subject_id"].n_unique() == 100
    same = {
        "^HOSPITAL_ADMISSION//": "^HOSPITAL_ADMISSION//",
        "^HOSPITAL_DISCHARGE//": "^HOSPITAL_DISCHARGE//",
        "^ICU_ADMISSION//": "^ICU_ADMISSION//",
        "^ICU_DISCHARGE//": "^ICU_DISCHARGE//",
        "^MEDS_DEATH$": "^MEDS_DEATH$",
        "^(ICD9CM|ICD10CM)//": "^DIAGNOSIS//ICD//",
        "^DRG//": "^DRG//",
    }
    for ours, theirs in same.items():
        assert count(events, ours) == count(other_etl, theirs), ours
    labs = report["tables"]["labevents"]["rules"][0]
    assert labs["rows_in"] == 107_727 and count(events, r"^LAB//\d+//") == labs["events_out"]
    late = labs["dropped"]["after follow-up end"]
    assert 300 < late < 400 and labs["events_out"] + late >= count(other_etl, r"^LAB//5\d{4}//") == 107_549
    chart = report["tables"]["chartevents"]["rules"][0]
    assert chart["rows_in"] == count(other_etl, r"^LAB//22\d{4}//") == 668_862
    infusions = report["tables"]["inputevents"]["rules"]
    started = sum(rule["rows_in"] - rule["dropped"]["not selected"] for rule in infusions[1:])
    assert started == count(other_etl, "^INFUSION_START//") == 20_404


def test_demo_means_are_those_of_the_other_etl(mimic, other_etl):
    """The same number comes out for a code that is renamed, and for one that is converted."""
    _, events = mimic
    mean = {
        code: events.filter(pl.col("code") == code)["numeric_value"].mean()
        for code in ("VITAL//HR", "VITAL//TEMP")
    }
    theirs = other_etl.filter(pl.col("code") == "LAB//220045//bpm")["numeric_value"]
    assert mean["VITAL//HR"] == pytest.approx(theirs.filter(theirs.is_between(10, 300)).mean(), rel=1e-3)
    celsius = pl.concat(
        [
            (other_etl.filter(pl.col("code") == "LAB//223761//°F")["numeric_value"] - 32) / 1.8,
            other_etl.filter(pl.col("code") == "LAB//223762//°C")["numeric_value"],
        ]
    )
    assert mean["VITAL//TEMP"] == pytest.approx(celsius.filter(celsius.is_between(25, 45)).mean(), rel=1e-3)


def test_demo_diagnoses_stand_at_a_discharge(mimic):
    _, events = mimic
    ends = events.filter(pl.col("code").str.starts_with("HOSPITAL_DISCHARGE//")).select("subject_id", "time")
    coded = events.filter(pl.col("code").str.contains("^(ICD9CM|ICD10CM|DRG)//"))
    assert coded.join(ends, on=["subject_id", "time"], how="anti").is_empty()
    assert not coded["code"].str.contains(r"\.").any(), "codes without the dot"


def test_demo_mortality_after_discharge_is_that_of_all_who_were_followed(mimic):
    """Without an end for survivors 39 of the 95 were not decided, and weighing the others made .138 of it."""
    _, events = mimic
    asked = {"after": "HOSPITAL_DISCHARGE*", "offset": MINUTE, "exclude": ("MEDS_DEATH",), "horizon": 180 * DAY}
    task = make_task(outcome=("MEDS_DEATH",), ends=(), **asked)
    found = labels(task, events, task.prediction_times(events))
    survivors = events.filter(pl.col("code") != "FOLLOW_UP//END")
    before = labels(task, survivors, task.prediction_times(survivors))
    assert (len(found), (found["decided"] == "censored").sum(), (before["decided"] == "censored").sum()) == (95, 0, 39)
    assert found["label"].mean() == pytest.approx(9 / 95)


def test_demo_death_is_last(mimic, other_etl):
    _, events = mimic

    def after_death(timeline: pl.DataFrame) -> int:
        deaths = timeline.filter(pl.col("code") == "MEDS_DEATH").select("subject_id", death="time")
        return timeline.join(deaths, on="subject_id").filter(pl.col("time") > pl.col("death")).height

    assert after_death(events) == 0
    assert after_death(other_etl) == 626, "the source has what was charted later"


def test_demo_one_code_has_one_unit(mimic):
    """Every code ends with its unit, or has a unit of its own in the mapping."""
    _, events = mimic
    numbers = events.filter(pl.col("numeric_value").is_not_null())["code"].unique()
    assert numbers.str.contains(r"^(VITAL//|LAB//EGFR$|(LAB|CHART)//\d+//)").all()


def test_demo_each_stay_tells_doses_or_orders(mimic):
    """Of the 35,835 rows of emar those that say a dose was given are events; orders only where there are no doses."""
    report, events = mimic
    (doses,), (orders,) = (report["tables"][name]["rules"] for name in ("emar", "prescriptions"))
    assert (doses["rows_in"], doses["dropped"]["not given"]) == (35_835, 8_667)
    assert (orders["rows_in"], orders["dropped"]["doses recorded in emar"]) == (14_180, 9_358)
    medication = count(events, "^MEDICATION//")
    running = report["tables"]["inputevents"]["rules"][0]["events_out"]
    assert medication == doses["events_out"] + orders["events_out"] + running
