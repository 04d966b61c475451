"""A made-up OMOP CDM: persons, visits, conditions, drugs, measurements, death; and the events that it stands for.

Written from docs/reference/sources/omop.md.
"""

from __future__ import annotations

import csv
import datetime as dt
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.differential.events import Event, single

# concept -> (vocabulary, code, name)
CONCEPTS = {
    8507: ("Gender", "M", "MALE"),
    8532: ("Gender", "F", "FEMALE"),
    9201: ("Visit", "IP", "Inpatient Visit"),
    9203: ("Visit", "ER", "Emergency Room Visit"),
    9202: ("Visit", "OP", "Outpatient Visit"),
    201826: ("SNOMED", "44054006", "Type 2 diabetes"),
    312327: ("SNOMED", "57054005", "Acute myocardial infarction"),
    1567956: ("ICD10CM", "E11.65", "Type 2 diabetes with hyperglycemia"),
    45596282: ("ICD10CM", "I21.4", "NSTEMI"),
    1503297: ("RxNorm", "6809", "metformin"),
    3004501: ("LOINC", "2345-7", "Glucose"),
    8840: ("UCUM", "mg/dL", "milligram per deciliter"),
}
VISITS = {
    9201: ("HOSPITAL_ADMISSION//INPATIENT", "HOSPITAL_DISCHARGE//UNKNOWN"),
    9203: ("ED_ADMISSION", "ED_DISCHARGE"),
    9202: ("ENCOUNTER_START//OUTPATIENT", "ENCOUNTER_END//OUTPATIENT"),
}
CLAIM, EHR = 32810, 32817
CONDITIONS = 20  # the number of the rule whose events are known late
COLUMNS = {
    "person": "person_id gender_concept_id year_of_birth month_of_birth day_of_birth race_concept_id "
    "ethnicity_concept_id",
    "visit_occurrence": "visit_occurrence_id person_id visit_concept_id visit_start_date visit_start_datetime "
    "visit_end_date visit_end_datetime",
    "condition_occurrence": "person_id condition_concept_id condition_source_concept_id condition_source_value "
    "condition_start_date condition_start_datetime condition_type_concept_id visit_occurrence_id",
    "drug_exposure": "person_id drug_concept_id drug_source_value drug_exposure_start_date "
    "drug_exposure_start_datetime",
    "measurement": "person_id measurement_concept_id measurement_source_value measurement_date measurement_datetime "
    "value_as_number unit_concept_id",
    "death": "person_id death_date death_datetime",
    "observation_period": "person_id observation_period_end_date",
    "concept": "concept_id concept_name vocabulary_id concept_code",
}
DAY, SECOND = dt.timedelta(days=1), dt.timedelta(seconds=1)
NEVER = dt.datetime(9999, 12, 31)  # stands for no date


@dataclass
class Omop:
    """The tables of a CDM: name -> rows; a cell is None, a number, a text, or a moment."""

    tables: dict[str, list[dict[str, Any]]]

    @staticmethod
    def of(rng: Random) -> Omop:
        """A random CDM whose times come from a few moments."""
        first = rng.choice([dt.datetime(2020, 2, 28), dt.datetime(1999, 12, 31, 8, 30)])
        steps = [0, 1, 24 * 60, 24 * 60 * 3 + 75, 24 * 60 * 40, 600]
        moments = sorted(
            {first + dt.timedelta(minutes=rng.choice(steps) * rng.choice([0, 1, 2])) for _ in range(8)}
        )
        omop = Omop({name: [] for name in COLUMNS})
        concepts = ("concept_id", "vocabulary_id", "concept_code", "concept_name")
        listed = [number for number in CONCEPTS if rng.random() < 0.95]
        omop.tables["concept"] = [dict(zip(concepts, (n, *CONCEPTS[n]), strict=True)) for n in listed]
        visit = 100
        for person in rng.sample([1, 2, 3, 42, 2**40], rng.randint(3, 5)):
            visit = omop._person(rng, person, moments, visit)
        for rows in omop.tables.values():
            rng.shuffle(rows)
        return omop

    def _person(self, rng: Random, person: int, moments: list[dt.datetime], visit: int) -> int:
        def put(table: str, prefix: str, at: dt.datetime, **cells: Any) -> dict[str, Any]:
            """A row with a date, and a datetime that is sometimes absent or midnight."""
            day = at.replace(hour=0, minute=0, second=0)
            clock = rng.choice([at, at, None, day])
            row = {"person_id": person, f"{prefix}_date": day, f"{prefix}_datetime": clock, **cells}
            self.tables[table].append(row)
            return row

        if rng.random() < 0.95:
            year, month, day = rng.choice(
                [(1950, 2, 28), (1984, 2, 29), (1960, None, None), (1960, 13, 1), (None, None, None)]
            )
            self.tables["person"].append(
                {
                    "person_id": person,
                    "gender_concept_id": rng.choice([8507, 8532, 8551, 0]),
                    "year_of_birth": year,
                    "month_of_birth": month,
                    "day_of_birth": day,
                    "race_concept_id": 0,
                    "ethnicity_concept_id": 0,
                }
            )
        visits = []
        bounds = sorted(rng.sample(moments, min(len(moments), rng.choice([0, 2, 4])) // 2 * 2))
        for begin, end in zip(bounds[::2], bounds[1::2], strict=True):
            visit += 1
            row = put(
                "visit_occurrence",
                "visit_start",
                begin,
                visit_occurrence_id=visit,
                visit_concept_id=rng.choice(list(VISITS)),
            )
            midnight = row["visit_start_datetime"] in (None, row["visit_start_date"])
            row["visit_end_date"] = end.replace(hour=0, minute=0, second=0)
            row["visit_end_datetime"] = None if midnight else end
            visits.append(visit)
        for _ in range(rng.randint(0, 4)):
            source = rng.choice([0, 1567956, 45596282, 99])
            standard = rng.choice([0, 201826, 312327, 77])
            word = rng.choice([None, "E11.65", "own 'word'"])
            put(
                "condition_occurrence",
                "condition_start",
                rng.choice(moments),
                condition_source_concept_id=source,
                condition_concept_id=standard,
                condition_source_value=word,
                condition_type_concept_id=rng.choice([CLAIM, EHR]),
                visit_occurrence_id=rng.choice([None, 999, *visits, *visits]),
            )
        for _ in range(rng.randint(0, 2)):
            put(
                "drug_exposure",
                "drug_exposure_start",
                rng.choice(moments),
                drug_concept_id=rng.choice([1503297, 0, 5]),
                drug_source_value=rng.choice([None, "aspirin, 100 mg"]),
            )
        for _ in range(rng.randint(0, 3)):
            put(
                "measurement",
                "measurement",
                rng.choice(moments),
                measurement_concept_id=rng.choice([3004501, 0]),
                measurement_source_value=rng.choice([None, "GLU"]),
                value_as_number=rng.choice([None, 5.5, -1, 1e3]),
                unit_concept_id=rng.choice([8840, 0]),
            )
        if rng.random() < 0.4:
            for _ in range(rng.choice([1, 1, 2])):
                put("death", "death", rng.choice(moments))
        for _ in range(rng.choice([0, 0, 1, 2])):
            end = rng.choice([*moments, NEVER]).replace(hour=0, minute=0, second=0)
            self.tables["observation_period"].append(
                {"person_id": person, "observation_period_end_date": end}
            )
        return visit

    def write(self, rng: Random, folder: Path) -> str:
        """Write the tables as CSV; returns the name of the source."""
        folder.mkdir(parents=True)
        for name, rows in self.tables.items():
            if name in ("person", "concept") or rows or rng.random() < 0.5:
                columns = COLUMNS[name].split()
                rng.shuffle(columns)
                spelled = rng.choice([name, name.upper()])
                with (folder / f"{spelled}.csv").open("w", encoding="utf-8", newline="") as file:
                    writer = csv.writer(
                        file,
                        delimiter=rng.choice(",\t") if name != "concept" else "\t",
                        quoting=csv.QUOTE_ALL,
                    )
                    writer.writerow([rng.choice([str, str.upper])(column) for column in columns])
                    for row in rows:
                        writer.writerow([_cell(rng, column, row.get(column)) for column in columns])
        return "omop"

    def events(self) -> tuple[list[Event], Counter]:
        """The events of all rules; rows that make none are not counted here."""
        return _Reading(self.tables).events(), Counter()


def _cell(rng: Random, column: str, value: Any) -> str:
    if value is None:
        return rng.choice(["", "\\N", "NULL"])
    if isinstance(value, dt.datetime):
        day = column.endswith("_date")
        return f"{value:%Y-%m-%d}" if day else f"{value:%Y-%m-%d}{rng.choice('T ')}{value:%H:%M:%S}"
    return f"{value}"


class _Reading:
    """Reads the tables of a CDM, person by person."""

    def __init__(self, tables: dict[str, list[dict[str, Any]]]):
        self.tables = tables
        self.concepts = {row["concept_id"]: row for row in tables["concept"]}
        self.persons = {row["person_id"] for row in tables["person"]}
        self.deaths: dict[int, dt.datetime] = {}
        for row in sorted(tables["death"], key=lambda row: (row["death_date"], self.known(row, "death"))):
            self.deaths.setdefault(row["person_id"], self.known(row, "death"))
        self.visits = {row["visit_occurrence_id"]: row for row in tables["visit_occurrence"]}

    def known(self, row: dict, prefix: str) -> dt.datetime:
        """When a date, or a datetime at midnight, was known: at the end of its day."""
        moment = row.get(f"{prefix}_datetime") or row[f"{prefix}_date"]
        return moment + DAY - SECOND if moment.time() == dt.time() else moment

    def at(self, row: dict, prefix: str) -> dt.datetime:
        """The same, but on the day of death no later than death."""
        moment = row.get(f"{prefix}_datetime") or row[f"{prefix}_date"]
        death = self.deaths.get(row["person_id"])
        if moment.time() == dt.time() and death and death.date() == moment.date():
            return death
        return self.known(row, prefix)

    def span(self, visit: dict) -> tuple[dt.datetime, dt.datetime]:
        """When a visit begins and ends; death ends it."""
        begin, end = self.at(visit, "visit_start"), self.at(visit, "visit_end")
        death = self.deaths.get(visit["person_id"])
        if death and begin <= death <= end:
            return begin, death
        return begin, max(begin, end) if begin.date() == end.date() else end

    def code(self, head: str, standard: int, source: int | None = None) -> str | None:
        """The code of a row's concepts; the source concept counts first where it is ICD-10-CM."""
        first = self.concepts.get(source)
        if first and first["vocabulary_id"] == "ICD10CM":
            return f"ICD10CM//{first['concept_code'].replace('.', '')}"
        for number in (standard, source):
            if number in self.concepts:
                concept = self.concepts[number]
                return f"{concept['vocabulary_id'].upper()}//{concept['concept_code']}"
        number = standard or source
        return f"{head}//{number}" if number else None

    def events(self) -> list[Event]:
        out = [
            event
            for rule in (
                self.people,
                self.begins,
                self.conditions,
                self.drugs,
                self.measurements,
                self.ends,
                self.last,
            )
            for event in rule()
        ]
        return [event for event in out if event.patient in self.persons]

    def people(self):
        for row in self.tables["person"]:
            person, concept = row["person_id"], row["gender_concept_id"]
            if concept in (8507, 8532):
                yield Event(person, None, "GENDER//M" if concept == 8507 else "GENDER//F", None, 1)
            if row["year_of_birth"]:
                month, day = row["month_of_birth"], row["day_of_birth"]
                month, day = (month or 1, day or 1) if (month or 1) <= 12 else (1, 1)
                yield Event(person, dt.datetime(row["year_of_birth"], month, day), "MEDS_BIRTH", None, 4)

    def begins(self):
        for visit in self.visits.values():
            yield Event(
                visit["person_id"], self.span(visit)[0], VISITS[visit["visit_concept_id"]][0], None, 10
            )

    def conditions(self):
        for row in self.tables["condition_occurrence"]:
            standard, source = row["condition_concept_id"], row["condition_source_concept_id"]
            word = row["condition_source_value"]
            code = self.code("OMOP_CONDITION_OCCURRENCE", standard, source) or (word and f"DIAGNOSIS//{word}")
            visit = self.visits.get(row["visit_occurrence_id"])
            if not code:
                continue
            time = self.at(row, "condition_start")
            if visit and visit["person_id"] == row["person_id"]:
                begin, end = self.span(visit)
                time = max(time, end if row["condition_type_concept_id"] == CLAIM else begin)
                by_day = time.date() == end.date() and time.time() == dt.time(23, 59, 59)
                if time == begin or (by_day and end < time):  # known late, or by the last day alone
                    time = end
                yield Event(row["person_id"], time, code, None, CONDITIONS, named=True)
            else:
                yield Event(row["person_id"], time, code, None, CONDITIONS)

    def drugs(self):
        for row in self.tables["drug_exposure"]:
            word = row["drug_source_value"]
            code = self.code("OMOP_DRUG_EXPOSURE", row["drug_concept_id"]) or (
                word and f"MEDICATION//{word.upper()}"
            )
            if code:
                yield Event(row["person_id"], self.at(row, "drug_exposure_start"), code, None, 21)

    def measurements(self):
        for row in self.tables["measurement"]:
            word, unit = row["measurement_source_value"], self.concepts.get(row["unit_concept_id"])
            spelled = unit["concept_code"] if unit else "UNK"
            code = self.code("OMOP_MEASUREMENT", row["measurement_concept_id"]) or (
                word and f"LAB//{word}//{spelled}"
            )
            if code:
                yield Event(
                    row["person_id"], self.at(row, "measurement"), code, single(row["value_as_number"]), 23
                )

    def ends(self):
        for visit in self.visits.values():
            yield Event(
                visit["person_id"], self.span(visit)[1], VISITS[visit["visit_concept_id"]][1], None, 30
            )

    def last(self):
        for person in self.persons:
            stated = [
                self.known(row, "observation_period_end")
                for row in self.tables["observation_period"]
                if row["person_id"] == person and row["observation_period_end_date"] != NEVER
            ]
            death = self.deaths.get(person)
            if death and (not stated or death <= max(stated)):  # that the others lived is not known later
                yield Event(person, death, "MEDS_DEATH", None, 40)
                stated = [death]
            if stated:
                yield Event(person, max(stated), "FOLLOW_UP//END", None, 41)
