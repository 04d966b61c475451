"""The mapping of FHIR R4: resources written by hand after the specification's examples, and bundles of a generator.

The numbers of the generated bundles are checked against the same generator's own flat table of events.
"""

import datetime as dt
import gzip
import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path
from random import Random

import polars as pl
import pytest

from sequela.errors import InputError
from sequela.record.dataset import read_events
from sequela.record.ingest.run import ingest

SCT, LOINC, RXNORM = (
    "http://snomed.info/sct",
    "http://loinc.org",
    "http://www.nlm.nih.gov/research/umls/rxnorm",
)
ICD10CM, ICD9CM = "http://hl7.org/fhir/sid/icd-10-cm", "http://hl7.org/fhir/sid/icd-9-cm"
ACT = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
US_CORE = "http://hl7.org/fhir/us/core/StructureDefinition/"
ANN = {
    "resourceType": "Patient",
    "id": "ann",
    "identifier": [{"system": "urn:oid:1.2.36", "value": "12345"}],
    "gender": "female",
    "birthDate": "1974-12-25",
}


def number(id: str) -> int:
    return int(hashlib.md5(id.encode()).hexdigest()[:15], 16)


def day(*parts: int) -> dt.datetime:
    return dt.datetime(*parts)


def last(*parts: int) -> dt.datetime:
    """The last second of a day."""
    return dt.datetime(*parts, 23, 59, 59)


def concept(*codings: tuple, text: str | None = None) -> dict:
    made = [dict(zip(("system", "code", "display"), coding, strict=False)) for coding in codings]
    return {"coding": made} | ({"text": text} if text else {})


def of(kind: str, **said: object) -> dict:
    """A resource of the patient Ann."""
    about = "patient" if kind == "Immunization" else "subject"
    return {"resourceType": kind, about: {"reference": "Patient/ann"}} | said


class Server:
    """Resources written to a folder, as NDJSON or as bundles, and ingested."""

    def __init__(self, folder: Path) -> None:
        self.raw, self.out = folder / "raw", folder / "out"
        self.raw.mkdir()
        self.mapping: str | Path = "fhir"
        self.report: dict = {}

    def ingest(self, *resources: dict, people: tuple[dict, ...] = (ANN,)) -> list[tuple]:
        """Dated events that are neither birth nor death: (time, code, value, text)."""
        kinds: dict[str, list[dict]] = {}
        for one in (*people, *resources):
            kinds.setdefault(one["resourceType"], []).append(one)
        for kind, some in kinds.items():
            (self.raw / f"{kind}.ndjson").write_text("".join(json.dumps(one) + "\n" for one in some))
        return self.told()

    def told(self) -> list[tuple]:
        shutil.rmtree(self.out, ignore_errors=True)
        self.report = ingest(self.mapping, self.raw, self.out)
        events = read_events(self.out).filter(pl.col("time").is_not_null())
        events = events.filter(~pl.col("code").str.starts_with("MEDS_"))
        if "text_value" not in events.columns:
            events = events.with_columns(text_value=pl.lit(None, pl.String))
        return events.select("time", "code", "numeric_value", "text_value").rows()

    def codes(self, *resources: dict, **said: object) -> list[tuple]:
        """As `ingest`, without what is null."""
        return [tuple(cell for cell in row if cell is not None) for row in self.ingest(*resources, **said)]

    def dropped(self, table: str) -> dict[str, int]:
        """Why rows of a table make no event, over all its rules but those that do not select them."""
        total: Counter[str] = Counter()
        for rule in self.report["tables"][table]["rules"]:
            total.update(
                {reason: rows for reason, rows in rule["dropped"].items() if reason != "not selected"}
            )
        return dict(total)


@pytest.fixture
def server(tmp_path) -> Server:
    return Server(tmp_path)


def test_patients(server):
    race = {
        "url": US_CORE + "us-core-race",
        "extension": [
            {"url": "ombCategory", "valueCoding": {"code": "2106-3", "display": "White"}},
            {"url": "text", "valueString": "white, of Irish descent"},
        ],
    }
    several = {
        "url": US_CORE + "us-core-race",
        "extension": [
            {"url": "ombCategory", "valueCoding": {"code": "2106-3", "display": "White"}},
            {"url": "ombCategory", "valueCoding": {"code": "2028-9", "display": "Asian"}},
            {"url": "text", "valueString": "Mixed"},
        ],
    }
    unknown = {
        "url": US_CORE + "us-core-race",
        "extension": [{"url": "ombCategory", "valueCoding": {"code": "UNK"}}],
    }
    birth_sex = {"url": US_CORE + "us-core-birthsex", "valueCode": "M"}
    people = (
        ANN | {"extension": [race], "deceasedDateTime": "2020-02"},
        {
            "resourceType": "Patient",
            "id": "ben",
            "gender": "female",
            "birthDate": "1950",
            "extension": [birth_sex, several],
        },
        {
            "resourceType": "Patient",
            "id": "cy",
            "gender": "other",
            "birthDate": "1950-13-01",
            "extension": [unknown],
        },
        {
            "resourceType": "Patient",
            "id": "di",
            "gender": "male",
            "birthDate": "1960-02",
            "deceasedBoolean": True,
        },
        {
            "resourceType": "Patient",
            "id": "ed",
            "gender": "unknown",
            "deceasedDateTime": "2019-05-05T10:00:00-05:00",
        },
    )
    server.ingest(people=people)
    assert read_events(server.out).sort("subject_id", "time", "code").select(
        "subject_id", "time", "code"
    ).rows() == sorted(
        [
            (number("ann"), None, "GENDER//F"),
            (number("ann"), None, "RACE//WHITE"),
            (number("ann"), day(1974, 12, 25), "MEDS_BIRTH"),
            (number("ann"), last(2020, 2, 29), "FOLLOW_UP//END"),
            (number("ann"), last(2020, 2, 29), "MEDS_DEATH"),
            (number("ben"), None, "GENDER//M"),
            (number("ben"), None, "RACE//MIXED"),
            (number("ben"), day(1950, 1, 1), "MEDS_BIRTH"),
            (number("cy"), None, "GENDER//OTHER"),
            (number("di"), None, "GENDER//M"),
            (number("di"), day(1960, 2, 1), "MEDS_BIRTH"),
            (number("ed"), None, "GENDER//UNKNOWN"),
            (number("ed"), day(2019, 5, 5, 15), "FOLLOW_UP//END"),
            (number("ed"), day(2019, 5, 5, 15), "MEDS_DEATH"),
        ],
        key=lambda row: (row[0], row[1] or day(1, 1, 1), row[2]),
    )
    assert server.dropped("people") == {
        "unreadable time": 1,
        "no time": 1,
        "race not known": 1,
        "death without a date": 2,
    }, "death without a date: neither a death nor an end of the record"


def test_the_record_ends_with_death(server):
    said = {"status": "final", "code": concept((LOINC, "1-1"))}
    results = [of("Observation", effectiveDateTime=f"2020-02-0{i}T10:00:00Z", **said) for i in (1, 2, 3)]
    rows = server.codes(*results, people=(ANN | {"deceasedDateTime": "2020-02-02T10:00:00Z"},))
    assert rows == [
        (day(2020, 2, 1, 10), "LOINC//1-1"),
        (day(2020, 2, 2, 10), "LOINC//1-1"),
        (day(2020, 2, 2, 10), "FOLLOW_UP//END"),
    ]
    assert server.dropped("observations") == {"after follow-up end": 1}


def test_an_extension_may_say_until_when_the_living_were_followed(server, tmp_path):
    server.mapping = tmp_path / "ours.toml"
    server.mapping.write_text(
        'name = "ours"\nextends = "fhir"\n[macros]\n"complete_until()" = "TIMESTAMP \'2020-02-10\'"\n'
    )
    said = {"status": "final", "code": concept((LOINC, "1-1")), "effectiveDateTime": "2020-02-01T10:00:00Z"}
    first, late = (day(2020, 2, 1, 10), "LOINC//1-1"), day(2020, 2, 10)
    for died, end in ((None, late), ("2020-02-02T10:00:00Z", day(2020, 2, 2, 10)), ("2020-03-01T10:00:00Z", late)):
        dead = {} if died is None else {"deceasedDateTime": died}
        rows = server.codes(of("Observation", **said), people=(ANN | dead,))
        assert rows == [first, (end, "FOLLOW_UP//END")], died
    server.codes(of("Observation", **said), people=(ANN | {"deceasedBoolean": True},))
    assert server.dropped("people")["death without a date"] == 2, "nobody knows until when"


def test_death_ends_the_stay_that_was_closed_later(server):
    found = of(
        "Condition",
        code=concept((ICD10CM, "A41.9")),
        category=[concept((None, "encounter-diagnosis"))],
        encounter={"reference": "Encounter/v"},
    )
    stay = visit("v", "IMP", "2020-02-01T10:00:00Z", "2020-02-02T12:00:00Z")
    rows = server.codes(stay, found, people=(ANN | {"deceasedDateTime": "2020-02-02T10:00:00Z"},))
    assert sorted(rows) == [
        (day(2020, 2, 1, 10), "HOSPITAL_ADMISSION//INPATIENT"),
        (day(2020, 2, 2, 10), "FOLLOW_UP//END"),
        (day(2020, 2, 2, 10), "HOSPITAL_DISCHARGE//UNKNOWN"),
        (day(2020, 2, 2, 10), "ICD10CM//A419"),
    ]


def test_a_visit_that_became_a_stay_is_one_stay_from_its_arrival(server):
    """Only its class at the end is told; `classHistory` is not read."""
    period = {"start": "2020-01-01T10:00:00Z", "end": "2020-01-01T14:00:00Z"}
    history = [{"class": {"system": ACT, "code": "EMER"}, "period": period}]
    rows = server.codes(
        visit("v", "IMP", "2020-01-01T10:00:00Z", "2020-01-05T10:00:00Z", classHistory=history)
    )
    assert rows == [
        (day(2020, 1, 1, 10), "HOSPITAL_ADMISSION//INPATIENT"),
        (day(2020, 1, 5, 10), "HOSPITAL_DISCHARGE//UNKNOWN"),
    ]


TIMES = [  # effectiveDateTime, issued, when it was known
    ("2015-02-07T13:28:17.239+02:00", None, day(2015, 2, 7, 11, 28, 17, 239_000)),
    ("2015-02-07T13:28:17.239Z", None, day(2015, 2, 7, 13, 28, 17, 239_000)),
    ("2016-12-31T23:59:60Z", None, last(2016, 12, 31)),
    ("2015-02-07", None, last(2015, 2, 7)),
    ("2015-02-07", "2015-02-07T14:00:00Z", day(2015, 2, 7, 14)),
    ("2015-02-07", "2015-02-09T14:00:00Z", day(2015, 2, 9, 14)),
    ("2015-02-07T10:00:00Z", "2015-05-08T10:00:00Z", day(2015, 5, 8, 10)),  # 90 days
    ("2015-02-07T10:00:00Z", "2015-05-08T10:00:01Z", day(2015, 2, 7, 10)),  # longer: an import
    ("2015-02-07T10:00:00Z", "2015-02-07T09:00:00Z", day(2015, 2, 7, 10)),  # before the sample
    ("2016-02", None, last(2016, 2, 29)),
    ("2016-02", "2016-02-03T08:00:00Z", day(2016, 2, 3, 8)),
    ("2015", None, last(2015, 12, 31)),
    (None, "2015-02-07T14:00:00Z", day(2015, 2, 7, 14)),
]
NO_TIMES = ["2015-02-30", "2015-13", "15", "next week", "2015-02-07T25:00:00Z", "0001-01-01"]


def test_when_something_was_known(server):
    def seen(code: str, said: str | None, issued: str | None = None) -> dict:
        return of(
            "Observation", status="final", code=concept((LOINC, code)), effectiveDateTime=said, issued=issued
        )

    good = [seen(f"{i}-0", said, issued) for i, (said, issued, _) in enumerate(TIMES)]
    rows = server.ingest(*good, *[seen("X", said) for said in NO_TIMES], seen("X", None))
    assert {row[1]: row[0] for row in rows} == {
        f"LOINC//{i}-0": known for i, (_, _, known) in enumerate(TIMES)
    }
    assert server.dropped("observations") == {"unreadable time": len(NO_TIMES), "no time": 1}
    (rule,) = server.report["tables"]["observations"]["rules"]
    assert rule["counted"] == {
        "stands at its release": 3,
        "released before it was taken": 1,
        "released too long after": 1,
        "release not readable": 0,
    }
    report = of(
        "DiagnosticReport", status="final", code=concept((LOINC, "1-0")), effectiveDateTime="2015-02-07"
    )
    rows = server.ingest(
        report | {"issued": "2015-02-09T14:00:00Z"}, report | {"issued": "2019-02-09T14:00:00Z"}
    )
    assert [row[0] for row in rows if row[1] == "LOINC//1-0"][-2:] == [last(2015, 2, 7), day(2015, 2, 9, 14)]


def test_an_extension_may_choose_the_zone_and_when_results_are_known(server, tmp_path):
    server.mapping = tmp_path / "ours.toml"
    server.mapping.write_text(
        'name = "ours"\nextends = "fhir"\ntimezone = "Europe/Berlin"\n'
        '[macros]\n"longest_wait()" = "INTERVAL 1 DAY"\n"result_time(effective, issued)" = "effective"\n'
    )
    said = {"status": "final", "code": concept((LOINC, "1-1")), "issued": "2020-07-03T10:00:00Z"}
    sampled = of("Observation", effectiveDateTime="2020-07-01T10:00:00-05:00", **said)
    vaccine = of(
        "Immunization",
        status="completed",
        vaccineCode=concept(text="x"),
        occurrenceDateTime="2020-01-01T23:30:00Z",
    )
    assert [row[0] for row in server.ingest(sampled, vaccine)] == [
        day(2020, 1, 2, 0, 30),
        day(2020, 7, 1, 17),
    ]
    own = server.mapping.read_text()
    for wait, known in ((1, day(2020, 7, 1, 17)), (2, day(2020, 7, 3, 12))):
        server.mapping.write_text(own.replace("1 DAY", f"{wait} DAY").rpartition('"result_time')[0])
        assert server.told()[-1][0] == known


def test_values(server):
    lab = concept(("http://terminology.hl7.org/CodeSystem/observation-category", "laboratory"))
    vital = concept(("http://terminology.hl7.org/CodeSystem/observation-category", "vital-signs"))

    def seen(number: int, code: dict, category: dict | None = lab, **value: object) -> dict:
        time = f"2020-01-01T00:{number:02}:00Z"
        more = {"category": [category]} if category else {}
        return of(
            "Observation", id=str(number), status="final", code=code, effectiveDateTime=time, **more, **value
        )

    glucose = concept(("urn:local", "GLU", "Glucose"), (LOINC, "15074-8", "Glucose [Moles/volume] in Blood"))
    unit = {"unit": "mmol/l", "system": "http://unitsofmeasure.org", "code": "mmol/L"}
    smoking = concept((LOINC, "72166-2"))
    rows = server.codes(
        seen(1, glucose, valueQuantity={"value": 6.3} | unit),
        seen(2, glucose, valueQuantity={"value": 0.5, "comparator": "<"} | unit),
        seen(3, concept(("urn:local", "GLU")), valueQuantity={"value": 6} | unit),
        seen(4, concept(text="Glucose//fasting"), valueQuantity={"value": 6, "unit": "mmol/l"}),
        seen(5, concept(("urn:local", "pain")), vital, valueInteger=7),
        seen(6, smoking, None, valueCodeableConcept=concept((SCT, "266919005", "Never smoked"))),
        seen(7, smoking, valueString="some words"),
        seen(8, smoking, valueString="> 12.5 mg/dL"),
        seen(9, smoking, valueBoolean=True),
        seen(10, concept((SCT, "271594007")), valueBoolean=False),
        seen(11, smoking, valueInteger=0),
        seen(12, smoking, dataAbsentReason=concept(text="not asked")),
        seen(13, smoking, valueQuantity={"value": 1e400}),
        seen(14, smoking),
        seen(15, {}, valueInteger=1),
    )
    assert [row[1:] for row in rows] == [
        ("LOINC//15074-8", pytest.approx(6.3)),
        ("LOINC//15074-8", 0.5, "< 0.5"),
        ("LAB//GLU//mmol/L", 6.0),
        ("LAB//Glucose/fasting//mmol/l", 6.0),
        ("CHART//pain//UNK", 7.0),
        ("LOINC//72166-2//NEVER SMOKED", "Never smoked"),
        ("LOINC//72166-2//SOME WORDS", "some words"),
        ("LOINC//72166-2", 12.5, "> 12.5"),
        ("LOINC//72166-2//YES", "YES"),
        ("SNOMED//271594007//NO", "NO"),
        ("LOINC//72166-2", 0.0),
        ("LOINC//72166-2",),  # what is no finite number
        ("LOINC//72166-2",),
    ]
    assert server.dropped("observations") == {"data absent": 1, "no code": 1}
    codes = pl.read_parquet(server.out / "metadata/codes.parquet")
    assert codes.filter(pl.col("code") == "LOINC//15074-8")["description"][0].startswith(
        "Glucose [Moles/volume]"
    )


def test_components_are_events_and_a_panel_is_none(server):
    def part(code: str, **value: object) -> dict:
        return {"code": concept((LOINC, code))} | value

    mercury = {"unit": "mmHg", "system": "http://unitsofmeasure.org", "code": "mm[Hg]"}
    pressure = of(
        "Observation",
        status="final",
        code=concept((LOINC, "85354-9")),
        effectivePeriod={"start": "2020-01-01T08:00:00Z", "end": "2020-01-01T08:05:00Z"},
        component=[
            part("8480-6", valueQuantity={"value": 107} | mercury),
            part("8462-4", dataAbsentReason=concept(text="error")),
        ],
    )
    score = of(
        "Observation",
        status="final",
        code=concept((LOINC, "9272-6")),
        effectiveInstant="2020-01-01T09:00:00Z",
        valueQuantity={"value": 10},
        component=[part("32406-1", valueCodeableConcept=concept(text="pink"))],
    )
    group = of(
        "Observation",
        status="final",
        code=concept((LOINC, "58410-2")),
        hasMember=[{"reference": "Observation/1"}],
    )
    assert server.codes(pressure, score, group) == [
        (day(2020, 1, 1, 8, 5), "LOINC//8480-6", 107.0),
        (day(2020, 1, 1, 9), "LOINC//32406-1//PINK", "pink"),
        (day(2020, 1, 1, 9), "LOINC//9272-6", 10.0),
    ]
    assert server.dropped("observations") == {"data absent": 1, "only a panel": 2}


STATUSES = {
    "Observation": (
        {"effectiveDateTime": "2020-01-01", "code": concept((LOINC, "1-1"))},
        {"final", "amended", "corrected", "unknown"},
        {"registered": "not final", "preliminary": "not final", "cancelled": "cancelled"},
    ),
    "DiagnosticReport": (
        {"issued": "2020-01-01T00:00:00Z", "code": concept((LOINC, "1-1"))},
        {"final", "amended", "corrected", "appended", "unknown"},
        {
            "registered": "not final",
            "partial": "not final",
            "preliminary": "not final",
            "cancelled": "cancelled",
        },
    ),
    "MedicationRequest": (
        {"authoredOn": "2020-01-01", "intent": "order", "medicationCodeableConcept": concept((RXNORM, "1"))},
        {"active", "on-hold", "completed", "stopped", "unknown"},
        {"cancelled": "cancelled", "draft": "draft"},
    ),
    "MedicationAdministration": (
        {"effectiveDateTime": "2020-01-01", "medicationCodeableConcept": concept((RXNORM, "1"))},
        {"in-progress", "on-hold", "completed", "stopped", "unknown"},
        {"not-done": "not done"},
    ),
    "Procedure": (
        {"performedDateTime": "2020-01-01", "code": concept((SCT, "80146002"))},
        {"in-progress", "on-hold", "stopped", "completed", "unknown"},
        {"preparation": "planned", "not-done": "not done"},
    ),
    "Immunization": (
        {"occurrenceDateTime": "2020-01-01", "vaccineCode": concept(("http://hl7.org/fhir/sid/cvx", "08"))},
        {"completed"},
        {"not-done": "not done"},
    ),
}
TABLES = {"Observation": "observations", "DiagnosticReport": "reports", "Procedure": "procedures"}
TABLES |= {"MedicationRequest": "drugs", "MedicationAdministration": "drugs", "Immunization": "immunizations"}


def test_what_did_not_happen_is_no_event(server):
    made, kept_years = [], set()
    for kind, (said, kept, dropped) in STATUSES.items():
        time = next(key for key in said if key in ("issued", "authoredOn") or key.endswith("DateTime"))
        for status in [*sorted(kept), *sorted(dropped), "entered-in-error"]:
            year = 1980 + len(made)
            made.append(of(kind, status=status, **said | {time: f"{year}-01-01"}))
            kept_years |= {year} if status in kept else set()
    assert {row[0].year for row in server.ingest(*made)} == kept_years
    for table in set(TABLES.values()):
        told = [STATUSES[kind][2].values() for kind, own in TABLES.items() if own == table]
        reasons = Counter(reason for one in told for reason in one) + Counter({"entered in error": len(told)})
        assert server.dropped(table) == reasons


def test_orders_that_are_none(server):
    drug = {
        "authoredOn": "2020-01-01",
        "status": "active",
        "medicationCodeableConcept": concept((RXNORM, "1")),
    }
    intents = [
        "proposal",
        "plan",
        "order",
        "original-order",
        "reflex-order",
        "filler-order",
        "instance-order",
        "option",
    ]
    orders = [
        of("MedicationRequest", **drug | {"intent": one, "authoredOn": f"200{i}"})
        for i, one in enumerate(intents)
    ]
    forbidden = of("MedicationRequest", intent="order", doNotPerform=True, **drug)
    assert [row[0].year for row in server.ingest(*orders, forbidden)] == [2002, 2003, 2004, 2005, 2006]
    assert server.dropped("drugs") == {"no order": 3, "not to be given": 1}


def test_which_coding_is_taken(server):
    made = []

    def add(kind: str, time: str, where: str, *codings: tuple, text: str | None = None) -> None:
        more = {"intent": "order"} if kind == "MedicationRequest" else {}
        moment = f"2020-01-01T{len(made):02}:00:00Z"
        made.append(
            of(kind, status="completed", **{time: moment, where: concept(*codings, text=text)}, **more)
        )

    for codings, text in [
        ([(SCT, "44054006"), (ICD10CM, "e11.65"), (ICD9CM, "250.00")], None),
        ([(SCT, "44054006"), (ICD9CM, "250.00")], None),
        ([("urn:oid:2.16.840.1.113883.6.96", "44054006"), ("http://hl7.org/fhir/sid/icd-10", "E11.9")], None),
        ([(SCT, "44054006", "Diabetes")], "type 2 diabetes"),
        ([(SCT, ""), (None, "X1", "Fever of unknown origin")], None),
    ]:
        add("Condition", "recordedDate", "code", *codings, text=text)
    for codings, text in [
        ([("http://www.whocc.no/atc", "A10BA02"), (RXNORM, "6809")], None),
        ([("http://hl7.org/fhir/sid/ndc", "0069-2587-10"), ("http://www.whocc.no/atc", "A10BA02")], None),
        ([("http://hl7.org/fhir/sid/ndc", "0069-2587-10")], None),
        ([("http://hl7.org/fhir/sid/ndc", "12345-678-90")], None),
        ([], "Aspirin // chewable"),
    ]:
        add("MedicationRequest", "authoredOn", "medicationCodeableConcept", *codings, text=text)
    for codings in [
        [(SCT, "80146002"), ("http://www.ama-assn.org/go/cpt", "44950")],
        [("http://www.cms.gov/Medicare/Coding/ICD10", "0DTJ4ZZ"), (SCT, "80146002")],
        [("https://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets/", "G0008")],
        [(ICD9CM, "47.01")],
        [(SCT, "80146002", "Appendectomy")],
        [("urn:local", "A", "Appendectomy")],
    ]:
        add("Procedure", "performedDateTime", "code", *codings)
    add(
        "Immunization",
        "occurrenceDateTime",
        "vaccineCode",
        (RXNORM, "1"),
        ("http://hl7.org/fhir/sid/cvx", "140"),
    )
    assert [row[1] for row in server.ingest(*made)] == [
        "ICD10CM//E1165",
        "ICD9CM//25000",
        "ICD10//E119",
        "SNOMED//44054006",
        "DIAGNOSIS//FEVER OF UNKNOWN ORIGIN",
        "RXNORM//6809",
        "ATC//A10BA02",
        "NDC//00069258710",
        "NDC//12345067890",
        "MEDICATION//ASPIRIN / CHEWABLE",
        "CPT4//44950",
        "ICD10PCS//0DTJ4ZZ",
        "HCPCS//G0008",
        "ICD9PROC//4701",
        "PROCEDURE//SNOMED//80146002",
        "PROCEDURE//APPENDECTOMY",
        "CVX//140",
    ]


def visit(id: str, code: str, start: str | None, end: str | None, **said: object) -> dict:
    period = {key: value for key, value in (("start", start), ("end", end)) if value}
    return (
        of("Encounter", id=id, status="finished", **{"class": {"system": ACT, "code": code}}, period=period)
        | said
    )


NUBC = "https://www.nubc.org/CodeSystem/PatDischargeStatus"
HL7 = "http://terminology.hl7.org/CodeSystem/discharge-disposition"
GERMAN = "http://fhir.de/CodeSystem/dkgev/EntlassungsgrundErsteUndZweiteStelle"


def test_where_a_discharge_leads(server):
    words = [
        (concept((HL7, "exp", "Expired")), "DIED"),
        (concept((HL7, "EXP")), "DIED"),
        (concept((HL7, "hosp")), "HOSPICE"),
        (concept((None, "home", "Home")), "HOME"),
        (concept((NUBC, "20", "Expired")), "DIED"),
        (concept((NUBC, "20")), "DIED"),
        (concept(("urn:oid:2.16.840.1.113883.6.301.5", "41")), "DIED"),
        (concept(("http://www.nubc.org/patient-discharge", "01", "Discharged to home care")), "HOME"),
        (concept((NUBC, "1")), "HOME"),
        (concept((None, "03")), "SKILLED NURSING FACILITY"),
        (concept((NUBC, "86")), "HOME HEALTH CARE"),
        (concept(("http://local", "X1", "Ward 7"), (NUBC, "20")), "DIED"),
        (concept((SCT, "371828006", "Patient deceased during stay")), "DIED"),
        (concept((GERMAN, "07", "Tod")), "DIED"),
        (concept((GERMAN, "01", "regulaer")), "REGULAER"),
        (concept(("http://local", "D", "Patient expired in ED")), "DIED"),
        (concept(("http://local", "20", "Rehab")), "REHAB"),
        (concept(("http://local", "HOSP", "Other hospital")), "OTHER HOSPITAL"),
        (concept(text="Deceased"), "DIED"),
        (concept(text="Not dead"), "NOT DEAD"),
        (concept(text="Nursing home"), "NURSING HOME"),
        (concept((NUBC, "99")), "99"),
    ]
    stays = [
        visit(str(n), "IMP", f"2020-01-{n:02}T08:00:00Z", f"2020-01-{n:02}T09:00:00Z", hospitalization=said)
        for n, said in enumerate(({"dischargeDisposition": said} for said, _ in words), 1)
    ]
    ends = [code for _, code in server.codes(*stays) if code.startswith("HOSPITAL_DISCHARGE")]
    assert ends == [f"HOSPITAL_DISCHARGE//{word}" for _, word in words]


def test_encounters(server):
    disposition = {"dischargeDisposition": concept((None, "home", "Home"))}
    icu = {"resourceType": "Location", "id": "icu", "name": "Medical ICU", "type": [concept((None, "ICU"))]}
    ward = {"resourceType": "Location", "id": "w1", "name": "Ward 1"}
    places = [
        {"location": {"reference": "Location/w1"}, "period": {"start": "2020-01-01T11:00:00Z"}},
        {
            "location": {"reference": "Location/icu"},
            "period": {"start": "2020-01-02T11:00:00Z", "end": "2020-01-03T11:00:00Z"},
        },
        {"location": {"display": "x"}},
    ]
    stay = visit(
        "stay",
        "IMP",
        "2020-01-01T10:00:00Z",
        "2020-01-05T10:00:00Z",
        hospitalization=disposition,
        location=places,
    )
    part = visit(
        "part",
        "ACUTE",
        "2020-01-02T10:00:00Z",
        "2020-01-03T10:00:00Z",
        partOf={"reference": "Encounter/stay"},
    )
    emergency = visit("er", "EMER", "2020-01-01T08:00:00Z", "2020-01-01T10:00:00Z")
    dated = visit("day", "AMB", "2020-02-01", "2020-02-01T10:00:00Z")
    others = [
        visit(code, code, f"2021-01-0{i}", f"2021-01-0{i}")
        for i, code in enumerate(["VR", "HH", "OBSENC", "odd"], 1)
    ]
    still = visit("open", "NONAC", "2022-01-01T00:00:00Z", None)
    wrong = [
        visit(status, "IMP", "2020-01-01", "2020-01-02", status=status)
        for status in ("cancelled", "planned", "entered-in-error")
    ]
    assert server.codes(stay, part, emergency, dated, *others, still, *wrong, icu, ward) == [
        (day(2020, 1, 1, 8), "ED_ADMISSION"),
        (day(2020, 1, 1, 10), "HOSPITAL_ADMISSION//INPATIENT"),
        (day(2020, 1, 1, 10), "ED_DISCHARGE"),
        (day(2020, 1, 1, 11), "DEPARTMENT//WARD 1"),
        (day(2020, 1, 2, 10), "ENCOUNTER_START//ACUTE"),
        (day(2020, 1, 2, 11), "ICU_ADMISSION//MEDICAL ICU"),
        (day(2020, 1, 3, 10), "ENCOUNTER_END//ACUTE"),
        (day(2020, 1, 3, 11), "ICU_DISCHARGE//MEDICAL ICU"),
        (day(2020, 1, 5, 10), "HOSPITAL_DISCHARGE//HOME"),
        (last(2020, 2, 1), "ENCOUNTER_START//OUTPATIENT"),
        (last(2020, 2, 1), "ENCOUNTER_END//OUTPATIENT"),
        (last(2021, 1, 1), "ENCOUNTER_START//TELEHEALTH"),
        (last(2021, 1, 1), "ENCOUNTER_END//TELEHEALTH"),
        (last(2021, 1, 2), "ENCOUNTER_START//HOME"),
        (last(2021, 1, 2), "ENCOUNTER_END//HOME"),
        (last(2021, 1, 3), "HOSPITAL_ADMISSION//OBSERVATION"),
        (last(2021, 1, 3), "HOSPITAL_DISCHARGE//UNKNOWN"),
        (last(2021, 1, 4), "ENCOUNTER_START//ODD"),
        (last(2021, 1, 4), "ENCOUNTER_END//ODD"),
        (day(2022, 1, 1), "HOSPITAL_ADMISSION//NONACUTE"),
    ]
    assert server.dropped("visits") == {"cancelled": 2, "planned": 2, "entered in error": 2, "still open": 1}


def test_diagnoses_are_known_when_recorded_and_those_of_a_stay_at_its_end(server):
    stay = visit("stay", "IMP", "2020-01-01T10:00:00Z", "2020-01-05T10:00:00Z")
    still = visit("open", "AMB", "2021-01-01T10:00:00Z", None)

    def found(code: str, **said: object) -> dict:
        return of("Condition", id=code, code=concept((ICD10CM, code))) | said

    billed = {
        "category": [concept((None, "encounter-diagnosis"))],
        "encounter": {"reference": "Encounter/stay"},
    }
    listed = {
        "category": [concept((None, "problem-list-item"))],
        "encounter": {"reference": "Encounter/stay"},
    }
    state = {"recordedDate": "2020-03-01", "category": billed["category"]}
    rows = server.codes(
        stay,
        still,
        found("A01", onsetDateTime="2020-01-01T10:00:00Z", recordedDate="2020-01-02T10:00:00Z", **billed),
        found("A02", onsetDateTime="2019-06", recordedDate="2020-01-02T10:00:00Z", **listed),
        found("A03", onsetDateTime="2019-06", **listed),
        found("A04", onsetDateTime="2019-06", recordedDate="2020-02-01"),
        found("A05", onsetDateTime="2019-06"),
        found("A06", onsetPeriod={"start": "2019-01", "end": "2019-02"}),
        found("A07", onsetString="as a child"),
        found(
            "A08",
            onsetDateTime="2019-06",
            category=billed["category"],
            encounter={"reference": "Encounter/open"},
        ),
        found(
            "A09",
            recordedDate="2020-02-02",
            category=billed["category"],
            encounter={"reference": "Encounter/gone"},
        ),
        *[
            found(code, verificationStatus=concept((None, said)), **state)
            for code, said in [
                ("B01", "confirmed"),
                ("B02", "provisional"),
                ("B03", "unconfirmed"),
                ("B04", "differential"),
                ("B05", "refuted"),
                ("B06", "entered-in-error"),
            ]
        ],
    )
    diagnoses = {code.removeprefix("ICD10CM//"): time for time, code in rows if code.startswith("ICD")}
    assert diagnoses == {
        "A01": day(2020, 1, 5, 10),
        "A02": day(2020, 1, 2, 10),
        "A03": day(2020, 1, 5, 10),
        "A04": last(2020, 2, 1),
        "A05": last(2019, 6, 30),
        "A06": last(2019, 2, 28),
        "A08": day(2021, 1, 1, 10),
        "A09": last(2020, 2, 2),
        "B01": last(2020, 3, 1),
        "B02": last(2020, 3, 1),
        "B03": last(2020, 3, 1),
    }
    assert server.dropped("conditions") == {
        "no time": 1,
        "differential": 1,
        "refuted": 1,
        "entered in error": 1,
    }


@pytest.mark.parametrize("code", ["6809", "11289"])
def test_of_two_medications_with_one_name_the_same_is_taken_whatever_their_order(server, code):
    other = {"6809": "11289", "11289": "6809"}[code]
    both = [{"resourceType": "Medication", "id": name, "code": concept((RXNORM, said))}
            for name, said in (("m1", code), ("M1", other))]  # fmt: skip
    given = of("MedicationRequest", status="active", intent="order", authoredOn="2020-01-01T08:00:00Z",
               medicationReference={"reference": "urn:uuid:m1"})  # fmt: skip
    assert server.codes(*both, given) == [(day(2020, 1, 1, 8), "RXNORM//11289")]


def test_a_condition_recorded_as_the_stay_opens_stands_at_its_end_and_a_finding_does_not(server):
    stay = visit("stay", "IMP", "2020-01-01T10:00:00Z", "2020-01-05T10:00:00Z")
    begin = "2020-01-01T10:00:00Z"
    rows = server.codes(
        stay,
        of("Condition", code=concept((SCT, "22298006")), recordedDate=begin),
        of("Observation", status="final", code=concept((SCT, "77176002")), effectiveDateTime=begin),
    )
    when = {code: time for time, code in rows}
    assert when["SNOMED//22298006"] == day(2020, 1, 5, 10) and when["SNOMED//77176002"] == day(2020, 1, 1, 10)
    assert server.report["moved"] == {"at admission -> at discharge": 1}


NOON, LATER = "2020-01-01T12:00:00Z", "2020-01-04T12:00:00Z"
# Encounters (name, class, start, end), the one that a condition names, recorded at noon, and when it is known
OWN_ENDS = {
    "a short one within a long one": ([("v", "AMB", NOON, "2020-02-15T12:00:00Z"),
                                       ("w", "AMB", "2020-01-20T12:00:00Z", "2020-01-20T12:30:00Z")], "v",
                                      day(2020, 2, 15, 12)),
    "two that begin together": ([("v", "AMB", NOON, "2020-01-15T12:00:00Z"),
                                 ("w", "AMB", NOON, "2020-01-01T12:30:00Z")], "v", day(2020, 1, 15, 12)),
    "the shorter of them": ([("v", "AMB", NOON, "2020-01-15T12:00:00Z"), ("w", "AMB", NOON, "2020-01-01T12:30:00Z")],
                            "w", day(2020, 1, 1, 12, 30)),
    "beside one until 2059": ([("v", "IMP", NOON, LATER), ("w", "EMER", NOON, "2059-01-01T12:00:00Z")], "v",
                              day(2020, 1, 4, 12)),
    "one opens as its own closes": ([("v", "EMER", NOON, LATER), ("w", "IMP", LATER, "2020-01-09T12:00:00Z")], "v",
                                    day(2020, 1, 4, 12)),
    "open": ([("v", "IMP", NOON, None), ("w", "IMP", NOON, LATER)], "v", day(2020, 1, 1, 12)),
    "until the end of time": ([("v", "IMP", NOON, "9999-12-31")], "v", day(2020, 1, 1, 12)),
    "ends before it begins": ([("v", "IMP", NOON, "2019-12-31T12:00:00Z")], "v", day(2020, 1, 1, 12)),
    "not in the export: by time": ([("w", "IMP", NOON, LATER)], "v", day(2020, 1, 4, 12)),
}  # fmt: skip


def test_a_condition_stands_at_the_end_of_its_own_encounter(server):
    people, resources = [], []
    for number, (encounters, own, _) in enumerate(OWN_ENDS.values()):
        patient = {"reference": f"Patient/p{number}"}
        people.append(ANN | {"id": f"p{number}", "identifier": []})
        resources += [visit(f"{number}{name}", *rest, subject=patient) for name, *rest in encounters]
        said = {"recordedDate": NOON, "onsetDateTime": NOON, "encounter": {"reference": f"Encounter/{number}{own}"}}
        resources.append(of("Condition", code=concept((SCT, f"{number}00")), **said) | {"subject": patient})
    rows = server.codes(*resources, people=people)
    when = {code.removeprefix("SNOMED//"): time for time, code in rows if code.startswith("SNOMED")}
    assert when == {f"{number}00": known for number, (_, _, known) in enumerate(OWN_ENDS.values())}
    (rule,) = server.report["tables"]["conditions"]["rules"]
    assert rule["counted"]["encounter not in the export"] == 1
    assert server.report["moved"]["not moved: the end of the stay is not known"] == 3


def test_a_part_without_an_end_ends_with_its_whole_and_nobody_shares_an_encounter(server):
    whole = visit("whole", "IMP", NOON, LATER)
    parts = [visit(name, "ACUTE", NOON, end, partOf={"reference": "Encounter/whole"})
             for name, end in (("part", "2020-01-02T12:00:00Z"), ("open", None))]  # fmt: skip
    bob = ANN | {"id": "bob", "identifier": []}
    other = visit("other", "IMP", NOON, "2020-01-31T12:00:00Z", subject={"reference": "Patient/bob"})
    named = [of("Condition", code=concept((SCT, f"{i}00")), recordedDate=NOON, encounter={"reference": name})
             for i, name in enumerate(f"Encounter/{one}" for one in ("whole", "part", "open", "other"))]  # fmt: skip
    rows = server.codes(whole, *parts, other, *named, people=(ANN, bob))
    when = [time for time, code in sorted(rows, key=lambda row: row[1]) if code.startswith("SNOMED")]
    assert when == [day(2020, 1, 4, 12), day(2020, 1, 2, 12), day(2020, 1, 4, 12), day(2020, 1, 4, 12)]
    (rule,) = server.report["tables"]["conditions"]["rules"]
    assert rule["counted"]["encounter of another patient"] == 1


def test_when_a_condition_was_recorded_counts_on_a_list_of_problems_and_after_the_encounter(server):
    def noted(code: str, recorded: str, category: str | None = None) -> dict:
        said = {"category": [concept((None, category))]} if category else {}
        said |= {"recordedDate": recorded, "encounter": {"reference": "Encounter/v"}}
        return of("Condition", code=concept((SCT, code)), **said)

    rows = server.codes(
        visit("v", "IMP", NOON, LATER),
        noted("100", "2020-01-02T12:00:00Z"), noted("200", "2020-01-09T12:00:00Z"), noted("300", "nonsense"),
        noted("400", "2020-01-02T12:00:00Z", "problem-list-item"), noted("500", NOON, "problem-list-item"),
        noted("600", "2020-01-01", "health-concern"), noted("700", "2020-01-02", "health-concern"),
        noted("800", "2020-01-09T12:00:00Z", "encounter-diagnosis"),
    )  # fmt: skip
    end = day(2020, 1, 4, 12)
    assert {code.removeprefix("SNOMED//"): time for time, code in rows if code.startswith("SNOMED")} == {
        "100": end, "200": day(2020, 1, 9, 12), "300": end, "400": day(2020, 1, 2, 12), "500": end, "600": end,
        "700": last(2020, 1, 2), "800": end,
    }  # fmt: skip
    (rule,) = server.report["tables"]["conditions"]["rules"]
    assert rule["counted"]["recorded date not readable"] == 1


def test_what_is_dated_by_the_day_is_known_by_the_end_of_the_stay_or_of_life_on_that_day(server):
    def ordered(name: str, at: str, **said: object) -> dict:
        drug = {"medicationCodeableConcept": {"text": name}}
        return of("MedicationRequest", status="active", intent="order", authoredOn=at, **drug, **said)

    stay, visited = visit("v", "IMP", NOON, LATER), visit("w", "AMB", "2020-01-04T15:00:00Z", "2020-01-04T16:00:00Z")
    orders = [ordered("before", "2020-01-03"), ordered("own", "2020-01-04", encounter={"reference": "Encounter/v"}),
              ordered("clock", "2020-01-04T23:59:58Z"), ordered("last", "2020-02-02")]  # fmt: skip
    dead = (ANN | {"deceasedDateTime": "2020-02-02T10:00:00Z"},)
    rows = server.codes(stay, visited, *orders, ordered("unnamed", "2020-01-04"), people=dead)
    when = {code.removeprefix("MEDICATION//"): time for time, code in rows}
    assert when["BEFORE"] == last(2020, 1, 3) and when["CLOCK"] == day(2020, 1, 4, 23, 59, 58)
    assert when["OWN"] == day(2020, 1, 4, 12) and when["LAST"] == day(2020, 2, 2, 10)
    assert when["UNNAMED"] == last(2020, 1, 4), "it may be of the visit in the afternoon"
    rows = server.codes(stay, ordered("unnamed", "2020-01-04"))
    assert (day(2020, 1, 4, 12), "MEDICATION//UNNAMED") in rows


def test_medications_may_lie_elsewhere(server):
    drug = concept((RXNORM, "6809"))
    medicine = {"resourceType": "Medication", "id": "m1", "code": drug}
    said = {
        "status": "completed",
        "effectivePeriod": {"start": "2020-01-01T08:00:00Z", "end": "2020-01-01T09:00:00Z"},
    }
    inside = {"contained": [{"resourceType": "Medication", "id": "med", "code": concept((RXNORM, "2"))}]}
    rows = server.codes(
        medicine,
        of("MedicationAdministration", medicationReference={"reference": "Medication/m1"}, **said),
        of("MedicationAdministration", medicationReference={"reference": "#med"}, **inside, **said),
        of(
            "MedicationAdministration",
            medicationReference={"reference": "Medication/gone", "display": "Gone"},
            **said,
        ),
        of("MedicationAdministration", medicationReference={"reference": "#gone"}, **said),
    )
    start = day(2020, 1, 1, 8)
    assert sorted(rows) == [(start, "MEDICATION//GONE"), (start, "RXNORM//2"), (start, "RXNORM//6809")]
    assert server.dropped("drugs") == {"no code": 1}


def test_a_reported_vaccination_was_known_when_it_was_recorded(server):
    cvx = concept(("http://hl7.org/fhir/sid/cvx", "08"))
    said = {"status": "completed", "vaccineCode": cvx, "occurrenceDateTime": "2010", "recorded": "2020-05-05"}
    rows = server.ingest(
        of("Immunization", primarySource=False, **said), of("Immunization", primarySource=True, **said)
    )
    assert [row[0] for row in rows] == [last(2010, 12, 31), last(2020, 5, 5)]


REFERENCES = {
    "relative": {"reference": "Patient/ann"},
    "version": {"reference": "Patient/ann/_history/3"},
    "absolute": {"reference": "https://server.example/fhir/Patient/ann"},
    "uuid": {"reference": "urn:uuid:ANN"},
    "conditional": {"reference": "Patient?identifier=urn:oid:1.2.36%7C12345"},
    "logical": {"identifier": {"system": "urn:oid:1.2.36", "value": "12345"}},
}


def test_references(server):
    said = {"status": "final", "effectiveDateTime": "2020"}
    results = [
        of("Observation", code=concept((LOINC, how)), **said) | {"subject": one}
        for how, one in REFERENCES.items()
    ]
    assert {row[1] for row in server.ingest(*results)} == {f"LOINC//{how}" for how in REFERENCES}


def test_whose_is_not_known_is_dropped(server):
    result = of("Observation", status="final", code=concept((LOINC, "1-1")), effectiveDateTime="2020")
    same = {"system": "s", "value": "shared"}
    twins = tuple(ANN | {"id": id, "identifier": [same]} for id in ("bob", "cyd"))
    wrong = [
        {"reference": "Patient/gone"},
        {"reference": "Group/ann"},
        {"reference": "#ann"},
        {"identifier": same},
        {},
    ]
    assert server.ingest(*[result | {"subject": one} for one in wrong], people=(ANN, *twins)) == []
    assert server.dropped("observations") == {"no such patient": 5}


def test_the_last_version_counts(server):
    def version(value: int, updated: str | None, id: str | None = "o1") -> dict:
        more = {"meta": {"lastUpdated": updated}} if updated else {}
        result = of(
            "Observation",
            status="final",
            code=concept((LOINC, "1-1")),
            effectiveDateTime="2020",
            valueInteger=value,
        )
        return result | more | ({"id": id} if id else {})

    rows = server.ingest(
        version(1, "2021-01-01T00:00:00+05:00"),
        version(2, "2021-01-01T00:00:00Z"),
        version(3, None),
        version(4, None, "o2"),
        version(5, None, "o2"),
        version(6, None, None),
        version(7, None, None),
        people=(
            ANN | {"gender": "male", "meta": {"lastUpdated": "2020-01-01T00:00:00Z"}},
            ANN | {"meta": {"lastUpdated": "2021-01-01T00:00:00Z"}},
        ),
    )
    assert sorted(row[2] for row in rows) == [2, 5, 6, 7]
    assert server.dropped("observations") == {"older version": 3}
    assert read_events(server.out).filter(pl.col("time").is_null())["code"].to_list() == ["GENDER//F"]
    assert server.dropped("people") == {"older version": 2}


def test_damaged_lines_are_put_aside(server):
    good = of("Observation", status="final", code=concept((LOINC, "1-1")), effectiveDateTime="2020")
    lines = [
        json.dumps(good).encode(),
        b'{"resourceType": "Observa',
        b'{"id": "x"}',
        b'{"resourceType": "\xff"}',
    ]
    (server.raw / "o.ndjson").write_bytes(b"\n".join(lines))
    assert len(server.ingest()) == 1
    assert server.report["tables"]["resources"]["quarantined"] == {
        "no resourceType": {"rows": 1, "first": ["o.ndjson, line 3"]},
        "not JSON": {"rows": 1, "first": ["o.ndjson, line 2"]},
        "not UTF-8": {"rows": 1, "first": ["o.ndjson, line 4"]},
    }
    (server.raw / "o.ndjson").unlink()
    (server.raw / "o.ndjson.gz").write_bytes(gzip.compress(b"\n".join(lines))[:-5])
    server.out = server.out.with_name("again")
    with pytest.raises(InputError, match=r"o\.ndjson\.gz is damaged or incomplete"):
        server.ingest()


def resources_in(bundles: Path) -> list[dict]:
    found = [json.loads(gzip.decompress(path.read_bytes())) for path in sorted(bundles.glob("*.json.gz"))]
    return [entry["resource"] for bundle in found for entry in bundle["entry"]]


@pytest.fixture(scope="module")
def bundles(shared_data, tmp_path_factory) -> tuple[Path, dict, pl.DataFrame]:
    folder, out = shared_data / "ehr/pysynthea_50/sample_fhir", tmp_path_factory.mktemp("fhir")
    return folder, ingest("fhir", folder, out), read_events(out)


def test_bundles_and_ndjson_give_the_same_events(bundles, tmp_path):
    folder, report, events = bundles
    raw = tmp_path / "raw"
    (raw / "deep").mkdir(parents=True)
    for resource in reversed(resources_in(folder)):
        kind = resource["resourceType"]
        with (raw / "deep" / f"{kind}.000.ndjson").open("a") as file:
            file.write(json.dumps(resource) + "\r\n")
    again = ingest("fhir", raw, tmp_path / "out")
    assert read_events(tmp_path / "out").equals(events)
    assert again["tables"]["resources"]["kinds"] == report["tables"]["resources"]["kinds"]


def test_the_generators_own_table_has_the_same_events(bundles, shared_data, balanced):
    _, report, events = bundles
    assert balanced(report)
    assert report["tables"]["resources"]["quarantined"] == {}
    assert (report["patients"], report["events"]) == (4, 895)
    flat = pl.read_parquet(shared_data / "ehr/pysynthea_50/events.parquet")
    born = pl.col("code") == "MEDS_BIRTH"  # these four are the only ones with their birthdays
    whose = (
        events.filter(born)
        .select("time", subject="subject_id")
        .join(flat.filter(born).select("time", "subject_id"), on="time")
    )
    assert whose.height == 4
    flat = flat.join(whose.select("subject_id", "subject"), on="subject_id")

    def known(kind: str, head: str) -> set[tuple]:
        own = flat.filter((pl.col("type") == kind) & ~pl.col("code").str.starts_with("DX_END"))
        code = pl.lit(head) + pl.col("code").str.split("//").list.last()
        return set(
            own.select("subject", "time", code, pl.col("numeric_value").cast(pl.Float32), "text_value").rows()
        )

    def made(head: str) -> set[tuple]:
        own = events.filter(pl.col("code").str.starts_with(head))
        question = pl.col("code").str.replace("^(LOINC//[^/]*)//.*$", "$1")  # there, without answers
        return set(own.select("subject_id", "time", question, "numeric_value", "text_value").rows())

    assert known("MedicationRequest", "RXNORM//") == made("RXNORM//")
    assert known("Immunization", "CVX//") == made("CVX//")
    assert known("Procedure", "PROCEDURE//SNOMED//") == made("PROCEDURE//")
    # The flat table leaves reports and observations without a value out
    without = made("LOINC//") - known("Observation", "LOINC//")
    assert known("Observation", "LOINC//") < made("LOINC//") and len(without) == 44
    smokers = events.filter(pl.col("code").str.starts_with("LOINC//72166-2"))["code"]
    assert len(smokers) and smokers.str.starts_with("LOINC//72166-2//").all()
    assert all(value is None and text is None for *_, value, text in without)
    assert report["tables"]["reports"]["rows"] == 44
    # The flat table has a diagnosis at its onset, here it stands at the end of the encounter that found it
    diagnoses = Counter((row[0], row[2]) for row in known("Condition", "SNOMED//"))
    assert Counter((row[0], row[2]) for row in made("SNOMED//")) == diagnoses
    assert sum(diagnoses.values()) == 53
    starts = events.filter(pl.col("code").str.contains("^(ENCOUNTER_START|ED_ADMISSION)"))
    assert starts.height == flat.filter(pl.col("code").str.starts_with("ENCOUNTER_START")).height == 49


JUNK = [
    None,
    True,
    0,
    -1.5,
    1e300,
    "",
    "x",
    "2020-02-31",
    "%",
    "urn:uuid:",
    "#",
    "Patient/",
    [],
    [None],
    {},
    {"coding": 3},
    [[{}]],
]


def broken(value: object, random: Random) -> object:
    """A copy with about one node in eight replaced by something that does not belong there."""
    if random.random() < 0.12:
        return random.choice(JUNK)
    if isinstance(value, dict):
        return {key: one if key == "resourceType" else broken(one, random) for key, one in value.items()}
    if isinstance(value, list):
        return [broken(one, random) for one in value]
    return value


@pytest.mark.parametrize("seed", [0, 1])
def test_any_resource_is_an_event_or_is_counted(server, balanced, seed):
    random = Random(seed)
    coded = concept((LOINC, "1-1", "words"), ("urn:local", "2"), text="more words")
    period = {"start": "2020-01-01", "end": "2020-01-02T10:00:00Z"}
    quantity = {"value": 1.5, "comparator": "<", "unit": "mg", "code": "mg"}
    result = {
        "valueQuantity": quantity,
        "valueCodeableConcept": coded,
        "valueString": "> 3",
        "valueInteger": 3,
    }
    drug = {
        "medicationCodeableConcept": coded,
        "medicationReference": {"reference": "#m"},
        "contained": [{"id": "m", "code": coded}],
    }
    whole = [
        ANN
        | {
            "extension": [
                {"url": US_CORE + "us-core-race", "extension": [{"url": "text", "valueString": "x"}]}
            ]
        },
        ANN
        | {
            "meta": {"lastUpdated": "2020-01-01T00:00:00Z"},
            "deceasedDateTime": "2021",
            "deceasedBoolean": True,
        },
        visit(
            "e",
            "IMP",
            "2020-01-01",
            "2020-01-02",
            location=[{"location": {"reference": "Location/l"}, "period": period}],
        ),
        {"resourceType": "Location", "id": "l", "name": "ICU", "type": [concept((None, "ICU"))]},
        {"resourceType": "Medication", "id": "m", "code": coded},
        of(
            "Condition",
            code=coded,
            category=[coded],
            verificationStatus=coded,
            onsetPeriod=period,
            encounter={"reference": "Encounter/e"},
        ),
        of(
            "Observation",
            status="final",
            code=coded,
            category=[coded],
            effectivePeriod=period,
            issued="2020",
            component=[{"code": coded} | result],
            **result,
        ),
        of(
            "MedicationRequest",
            status="active",
            intent="order",
            doNotPerform=False,
            authoredOn="2020-01",
            **drug,
        ),
        of("MedicationAdministration", status="completed", effectivePeriod=period, **drug),
        of("Procedure", status="completed", code=coded, performedPeriod=period),
        of(
            "Immunization",
            status="completed",
            vaccineCode=coded,
            occurrenceDateTime="2020",
            recorded="2020",
            primarySource=False,
        ),
        of("DiagnosticReport", status="final", code=coded, issued="2020-01-01T10:00:00Z"),
    ]
    resources = [broken(one, random) if number else one for number in range(60) for one in whole]
    lines = [json.dumps(one) for one in resources if isinstance(one, dict)]
    (server.raw / "all.ndjson").write_text("\n".join(lines))
    assert len(server.told()) > 50
    assert balanced(server.report)
