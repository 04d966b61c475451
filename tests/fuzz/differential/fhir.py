"""Made-up FHIR resources: patients, encounters, conditions, observations, prescriptions; and the events they stand for.

Written from docs/reference/sources/fhir.md.
"""

from __future__ import annotations

import calendar
import datetime as dt
import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.differential.events import Event, single

SYSTEMS = {
    "ICD10CM": "http://hl7.org/fhir/sid/icd-10-cm",
    "SNOMED": "http://snomed.info/sct",
    "LOINC": "http://loinc.org",
    "RXNORM": "http://www.nlm.nih.gov/research/umls/rxnorm",
}
CLASSES = {
    "IMP": ("HOSPITAL_ADMISSION//INPATIENT", "HOSPITAL_DISCHARGE"),
    "EMER": ("ED_ADMISSION", "ED_DISCHARGE"),
    "AMB": ("ENCOUNTER_START//OUTPATIENT", "ENCOUNTER_END//OUTPATIENT"),
}
CONDITIONS = 20  # the number of the rule whose events are known late
DAY, SECOND = dt.timedelta(days=1), dt.timedelta(seconds=1)
Resource = dict[str, Any]


@dataclass
class Fhir:
    """Resources, in no order."""

    resources: list[Resource]

    @staticmethod
    def of(rng: Random) -> Fhir:
        """Random resources whose times come from a few moments."""
        first = rng.choice([dt.datetime(2020, 2, 28, 8), dt.datetime(1999, 12, 31, 23, 59, 59)])
        steps = [0, 1, 30, 24 * 60, 24 * 60 * 20, 24 * 60 * 100]
        moments = sorted(
            {first + dt.timedelta(minutes=rng.choice(steps) * rng.choice([0, 1, 1, 2])) for _ in range(8)}
        )
        made = Fhir([])
        for number in range(rng.randint(3, 5)):
            made._person(rng, f"p-{number}", moments)
        rng.shuffle(made.resources)
        return made

    def _person(self, rng: Random, name: str, moments: list[dt.datetime]) -> None:
        def put(kind: str, **fields: Any) -> None:
            given = {key: value for key, value in fields.items() if value is not None}
            self.resources.append({"resourceType": kind, **given})

        def said(at: dt.datetime | None = None) -> str:
            return _said(rng, at or rng.choice(moments))

        died = said() if rng.random() < 0.4 else None
        put(
            "Patient",
            id=name,
            gender=rng.choice(["male", "female", None]),
            birthDate=rng.choice(["1950-02-28", "1984-02-29", "1960-05", "1971", None]),
            deceasedDateTime=died,
        )
        subject, encounters = {"reference": f"Patient/{name}"}, []
        bounds = sorted(rng.sample(moments, min(len(moments), rng.choice([0, 2, 4, 6])) // 2 * 2))
        pairs = list(zip(bounds[::2], bounds[1::2], strict=True))
        pairs += (
            [(rng.choice(bounds[::2]), bounds[-1])] if bounds and rng.random() < 0.4 else []
        )  # beside another one
        for number, (begin, end) in enumerate(pairs):
            encounters.append(f"Encounter/{name}-{number}")
            closed = end if rng.random() < 0.9 else None
            disposition = rng.choice([None, "home", "exp"])
            put(
                "Encounter",
                id=f"{name}-{number}",
                status="finished",
                subject=subject,
                **{"class": {"code": rng.choice(list(CLASSES))}},
                period={"start": said(begin)} | ({"end": said(closed)} if closed else {}),
                hospitalization=disposition and {"dischargeDisposition": {"coding": [{"code": disposition}]}},
            )
        for _ in range(rng.randint(0, 4)):
            where = rng.choice([None, "Encounter/nowhere", *encounters, *encounters])
            category = rng.choice([None, "encounter-diagnosis", "problem-list-item"])
            put(
                "Condition",
                subject=subject,
                code=_concept(rng, "ICD10CM", "E11.65", "i21.4", "J45"),
                encounter=where and {"reference": where},
                category=category and [{"coding": [{"code": category}]}],
                recordedDate=rng.choice([None, said(), said()]),
                onsetDateTime=rng.choice([None, said()]),
            )
        for _ in range(rng.randint(0, 3)):
            put(
                "Observation",
                subject=subject,
                status=rng.choice(["final", "final", "preliminary"]),
                code=_concept(rng, "LOINC", "2345-7", "718-7"),
                effectiveDateTime=rng.choice([None, said(), said()]),
                issued=rng.choice([None, _instant(rng, rng.choice(moments))]),
                valueQuantity={"value": rng.choice([5.5, -1, 0, 1e3]), "code": "mg/dL"},
            )
        for _ in range(rng.randint(0, 2)):
            put(
                "MedicationRequest",
                subject=subject,
                status="active",
                intent="order",
                authoredOn=said(),
                medicationCodeableConcept=_concept(rng, "RXNORM", "6809", "1191"),
            )

    def write(self, rng: Random, folder: Path) -> str:
        """Write bundles and NDJSON; returns the name of the source."""
        folder.mkdir(parents=True)
        cut = rng.randint(0, len(self.resources))
        lines, rest = self.resources[:cut], self.resources[cut:]
        text = "".join(json.dumps(resource, ensure_ascii=rng.random() < 0.5) + "\n" for resource in lines)
        (folder / "all.ndjson").write_text(text, encoding="utf-8")
        bundle = {
            "resourceType": "Bundle",
            "type": "collection",
            "entry": [{"resource": each} for each in rest],
        }
        (folder / "bundle.json").write_text(
            json.dumps(bundle, indent=rng.choice([None, 1])), encoding="utf-8"
        )
        return "fhir"

    def events(self) -> tuple[list[Event], Counter]:
        """The events of all rules; resources that make none are not counted here."""
        reading = _Reading(self.resources)
        return [
            event
            for resource in self.resources
            for event in reading.read(resource)
            if event.time or event.rule == 1
        ], Counter()


def _said(rng: Random, at: dt.datetime) -> str:
    """A dateTime: a day, or an instant."""
    return f"{at:%Y-%m-%d}" if rng.random() < 0.2 else _instant(rng, at)


def _instant(rng: Random, at: dt.datetime) -> str:
    minutes, zone = rng.choice([(0, "Z"), (0, "+00:00"), (60, "+01:00"), (-300, "-05:00")])
    fraction = rng.choice(["", "", ".000"])
    return f"{(at + dt.timedelta(minutes=minutes)).isoformat()}{fraction}{zone}"


def _concept(rng: Random, system: str, *codes: str) -> dict:
    coding = {"system": SYSTEMS[system], "code": rng.choice(codes)}
    other = {"system": "http://example.org", "code": "x"}
    return {"coding": rng.choice([[coding], [other, coding], [coding, other]]), "text": 'a "quoted" text, ü'}


def moment(said: str | None) -> dt.datetime | None:
    """An instant, in UTC."""
    if said is None or "T" not in said:
        return None
    return dt.datetime.fromisoformat(said).astimezone(dt.UTC).replace(tzinfo=None)


def days(said: str) -> tuple[dt.date, dt.date]:
    """The first and the last day of a date, which may be a month or a year."""
    year, month, day = (*(int(part) for part in said[:10].split("-")), None, None)[:3]
    last = calendar.monthrange(year, month or 12)[1]
    return dt.date(year, month or 1, day or 1), dt.date(year, month or 12, day or last)


def known(said: str | None, recorded: str | None = None) -> dt.datetime | None:
    """When something was known that is dated `said`: then, or when it was recorded, or at the end of the day."""
    if said is None:
        return None
    if "T" in said:
        return moment(said)
    first, last = days(said)
    written = moment(recorded)
    if written and first <= written.date() <= last:
        return written
    return dt.datetime.combine(last, dt.time()) + DAY - SECOND


class _Reading:
    """Reads resources one by one; knows when patients died and when encounters were."""

    def __init__(self, resources: list[Resource]):
        people = [each for each in resources if each["resourceType"] == "Patient"]
        self.deaths = {f"Patient/{each['id']}": known(each.get("deceasedDateTime")) for each in people}
        self.encounters = {
            f"Encounter/{each['id']}": each for each in resources if each["resourceType"] == "Encounter"
        }

    def read(self, resource: Resource) -> list[Event]:
        kind = resource["resourceType"]
        name = f"Patient/{resource['id']}" if kind == "Patient" else resource["subject"]["reference"]
        number = int(hashlib.md5(name.removeprefix("Patient/").encode()).hexdigest()[:15], 16)
        return [Event(number, *made) for made in getattr(self, kind)(resource, name)]

    def Patient(self, patient: Resource, name: str):
        if "gender" in patient:
            yield None, f"GENDER//{patient['gender'][0].upper()}", None, 1
        if "birthDate" in patient:
            yield dt.datetime.combine(days(patient["birthDate"])[0], dt.time()), "MEDS_BIRTH", None, 3
        if self.deaths[name]:
            yield self.deaths[name], "MEDS_DEATH", None, 40
            yield self.deaths[name], "FOLLOW_UP//END", None, 41

    def span(self, encounter: Resource) -> tuple[dt.datetime, dt.datetime | None]:
        """When an encounter begins and ends; death ends it."""
        period = encounter["period"]
        begin, end = known(period["start"]), known(period.get("end"))
        if end and "T" not in period["start"]:
            end = max(begin, end)
        death = self.deaths[encounter["subject"]["reference"]]
        return begin, death if death and end and begin <= death <= end else end

    def Encounter(self, encounter: Resource, name: str):
        kind, (begin, end) = encounter["class"]["code"], self.span(encounter)
        opens, closes = CLASSES[kind]
        yield begin, opens, None, 10
        coded = (
            encounter.get("hospitalization", {})
            .get("dischargeDisposition", {})
            .get("coding", [{}])[0]
            .get("code")
        )
        word = {"home": "HOME", "exp": "DIED"}.get(coded, "UNKNOWN" if kind == "IMP" else None)
        yield end, f"{closes}//{word}" if word and kind != "AMB" else closes, None, 30

    def Condition(self, condition: Resource, name: str):
        coding = next(each for each in condition["code"]["coding"] if each["system"] == SYSTEMS["ICD10CM"])
        code = f"ICD10CM//{coding['code'].replace('.', '').upper()}"
        encounter = self.encounters.get(condition.get("encounter", {}).get("reference"))
        begin, end = self.span(encounter) if encounter else (None, None)
        end = None if end and end < begin else end
        recorded, onset = known(condition.get("recordedDate")), known(condition.get("onsetDateTime"))
        category = condition.get("category", [{}])[0].get("coding", [{}])[0].get("code")
        if end is None:
            time = recorded or max((time for time in (onset, begin if onset else None) if time), default=None)
        elif category == "encounter-diagnosis":
            time = end
        elif (
            category == "problem-list-item"
            and recorded
            and recorded > begin
            and ("T" in condition["recordedDate"] or recorded.date() > begin.date())
        ):
            time = recorded
        else:
            time = max(end, recorded or end)
        if time and end and end > begin and time == begin:
            time = end
        if (
            time
            and end
            and time.time() == dt.time(23, 59, 59)
            and begin <= end < time
            and end.date() == time.date()
        ):
            time = end
        yield time, code, None, CONDITIONS, begin is not None

    def Observation(self, observation: Resource, name: str):
        if observation["status"] == "preliminary":
            return
        coding = next(each for each in observation["code"]["coding"] if each["system"] == SYSTEMS["LOINC"])
        taken = known(observation.get("effectiveDateTime"), observation.get("issued"))
        issued = moment(observation.get("issued"))
        released = issued and taken and taken <= issued <= taken + 90 * DAY
        yield (
            issued if released else taken or issued,
            f"LOINC//{coding['code']}",
            single(observation["valueQuantity"]["value"]),
            25,
        )

    def MedicationRequest(self, request: Resource, name: str):
        concept = request["medicationCodeableConcept"]
        coding = next(each for each in concept["coding"] if each["system"] == SYSTEMS["RXNORM"])
        yield known(request["authoredOn"]), f"RXNORM//{coding['code']}", None, 22
