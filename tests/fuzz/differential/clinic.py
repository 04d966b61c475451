"""A made-up clinic with a mapping of its own: odd but legal tables, and the events that they stand for."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import io
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import polars as pl

from tests.fuzz.differential.cells import EMPTY, Cell, quantity_cell, text_cell, time_cell
from tests.fuzz.differential.events import Event, single

Row = dict[str, Cell]
PATIENTS = (1, 2, 3, 17, 0, -5, 1000003, 2**53 + 1, 10**15)
TESTS = (
    "HB",
    "CREA",
    "K+",
    "a b",
    "x//y",
    "q'q",
    'd"d',
    "ü ß",
    "50%",
    "*",
    "semi;colon",
    "tab\tbed",
    "line\nbreak",
)
KNOWN = {"HB": (2.0, 25.0), "CREA": (0.1, 30.0)}  # tests with plausible values
DIAGNOSES = ("E11.65", "E1165", "E11", "I21.4", "J45", "Z00.00")
KINDS = ("EMERGENCY", "ELECTIVE")
TYPES = {
    "people": {
        "id": "integer",
        "sex": "text",
        "ward": "text",
        "born": "time",
        "died": "time",
        "last_seen": "time",
    },
    "stays": {"id": "integer", "kind": "text", "opens": "time", "closes": "time"},
    "results": {"id": "integer", "taken": "time", "test": "text", "result": "quantity", "flag": "text"},
    "diagnoses": {"id": "integer", "noted": "time", "code": "text"},
}
RULES = """
[[events]]
table = "people"
code = "'GENDER//' || sex"

[[events]]
table = "people"
code = "'MEDS_BIRTH'"
time = "born"
missing_times = 1

[[events]]
table = "stays"
code = "'HOSPITAL_ADMISSION//' || kind"
time = "opens"
missing_times = 1

[[events]]
table = "results"
join = "known USING (test)"
code = "'LAB//' || test"
time = "taken"
value = "result"
range = ["low", "high"]
drop = { "cancelled" = "flag = 'CANCELLED'" }
missing_times = 1

[[events]]
table = "diagnoses"
code = "'ICD10CM//' || code"
time = "noted"
missing_times = 1

[[events]]
table = "stays"
where = "closes IS NOT NULL"
code = "'HOSPITAL_DISCHARGE'"
time = "closes"
missing_times = 1

[[events]]
table = "people"
where = "died IS NOT NULL"
code = "'MEDS_DEATH' || coalesce('//' || ward, '')"
time = "died"
missing_times = 1

[[events]]
table = "people"
where = "coalesce(died, last_seen) IS NOT NULL"
code = "'FOLLOW_UP//END'"
time = "coalesce(died, last_seen)"
missing_times = 1
"""


@dataclass
class Clinic:
    """The tables of a clinic, not yet written.

    Attributes:
        zone: of its times.
        tables: name -> rows.
    """

    zone: str
    tables: dict[str, list[Row]]
    dropped: Counter = field(default_factory=Counter)

    @staticmethod
    def of(rng: Random) -> Clinic:
        """A random clinic. Its times come from a few moments, so that many events stand at one of them."""
        zone = rng.choice(["UTC", "UTC", "Europe/Berlin", "America/New_York"])
        first = rng.choice(
            [dt.datetime(2020, 2, 28), dt.datetime(1969, 12, 30, 23, 59, 59), dt.datetime(2021, 3, 27, 12)]
        )
        steps = [
            dt.timedelta(),
            dt.timedelta(seconds=59),
            dt.timedelta(hours=7),
            dt.timedelta(days=1),
            dt.timedelta(days=33),
            dt.timedelta(days=400, microseconds=rng.choice([0, 250000])),
        ]
        moments = sorted(first + rng.choice(steps) * rng.choice([0, 1, 1, 2]) for _ in range(7))
        clinic = Clinic(zone, {name: [] for name in TYPES})
        for patient in rng.sample(PATIENTS, rng.randint(4, 8)):
            clinic._person(rng, patient, moments)
        for rows in clinic.tables.values():
            rng.shuffle(rows)
        clinic._settle()
        return clinic

    def _settle(self) -> None:
        """Make true what a cell cannot know: what it means beside the others of its column."""
        results = self.tables["results"]
        if any(row["result"].text == "1,5" for row in results):  # then commas do not mean thousands
            for row in results:
                if row["result"].text == "1,234":
                    row["result"] = Cell("1,234")
        for name, rows in self.tables.items():
            for column, kind in TYPES[name].items():
                held = [row[column] for row in rows if row[column].text not in ("", "n/a")]
                if kind == "time" and 2 * sum(cell.unreadable for cell in held) > len(
                    held
                ):  # would be an error
                    for row in rows:
                        row[column] = EMPTY if row[column].unreadable else row[column]

    def _person(self, rng: Random, patient: int, moments: list[dt.datetime]) -> None:
        def moment(missing: float = 0.1) -> dt.datetime | None:
            return None if rng.random() < missing else rng.choice(moments)

        def dated(time: dt.datetime | None) -> Cell:
            return time_cell(rng, time, self.zone)

        number = Cell(rng.choice([f"{patient}", f"{patient}"]), patient)
        born = rng.choice([None, moments[0], dt.datetime(1960, 2, 29), dt.datetime(1988, 7, 15)])
        died = rng.choice([None, None, moment(), max(moments)])
        person = {
            "id": number,
            "sex": text_cell(rng, ("F", "M", "female")),
            "ward": text_cell(rng, ("A",), 0.7),
            "born": dated(born),
            "died": dated(died),
            "last_seen": dated(moment(0.4)),
        }
        self.tables["people"] += [dict(person) for _ in range(rng.choice([1, 1, 1, 2]))]
        at, stays = sorted(rng.sample(moments, rng.choice([0, 2, 4]))), []
        for opens, closes in zip(at[::2], at[1::2], strict=True):
            stays.append(
                {"id": number, "kind": text_cell(rng, KINDS), "opens": dated(opens), "closes": dated(closes)}
            )
        self.tables["stays"] += stays
        for _ in range(rng.randint(0, 6)):
            who = number if rng.random() < 0.95 else EMPTY
            self.tables["results"].append(
                {
                    "id": who,
                    "taken": dated(moment()),
                    "test": text_cell(rng, TESTS),
                    "result": quantity_cell(rng),
                    "flag": text_cell(rng, ("CANCELLED", "final"), 0.5),
                }
            )
        for _ in range(rng.randint(0, 4)):
            self.tables["diagnoses"].append(
                {"id": number, "noted": dated(moment()), "code": text_cell(rng, DIAGNOSES)}
            )

    def write(self, rng: Random, folder: Path) -> Path:
        """Write the tables and the mapping; returns the path of the mapping."""
        folder.mkdir(parents=True)
        known = ", ".join(f'["{test}", {low}, {high}]' for test, (low, high) in KNOWN.items())
        head = [f'name = "clinic"\npatient = "id"\ntimezone = "{self.zone}"']
        head.append(f'[tables.known]\ncolumns = ["test", "low", "high"]\nrows = [{known}]')
        for name, rows in self.tables.items():
            columns = ", ".join(f'{column} = "{kind}"' for column, kind in TYPES[name].items())
            head.append(f'[tables.{name}]\nfiles = "{name}-*"\nmissing = ["n/a"]\ncolumns = {{ {columns} }}')
            _write_table(rng, rows, TYPES[name], folder, name)
        path = folder / "clinic.toml"
        path.write_text("\n\n".join(head) + "\n" + RULES, encoding="utf-8")
        return path

    def events(self) -> tuple[list[Event], Counter]:
        """The events of all rules in the order of the mapping, and the rows that make none, by (rule, reason)."""
        out: list[Event] = []
        dropped: Counter = Counter()
        for number, (table, rule) in enumerate(_RULES, 1):
            for row in self.tables[table]:
                made = rule(row)
                if isinstance(made, str):
                    dropped[number, made] += 1
                else:
                    time, code, value = made
                    out.append(Event(row["id"].value, time, code, value, number))
        return out, dropped


def _write_table(rng: Random, rows: list[Row], kinds: dict[str, str], folder: Path, name: str) -> None:
    columns = list(kinds)
    rng.shuffle(columns)
    cut = rng.randint(0, len(rows)) if rng.random() < 0.4 else len(rows)
    parquet, delimiter = rng.random() < 0.3, rng.choice(",;\t|")
    for part, chunk in enumerate([rows[:cut], rows[cut:]]):
        if part == 0 or chunk:
            stem = folder / f"{name}-{part}"
            if parquet:
                _write_parquet(chunk, columns, stem)
            else:
                _write_csv(rng, chunk, columns, delimiter, stem)


def _write_csv(rng: Random, rows: list[Row], columns: list[str], delimiter: str, stem: Path) -> None:
    # Between tabs, quotes are plain characters unless the header has some.
    quoting = csv.QUOTE_ALL if delimiter == "\t" else rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, quoting=quoting, lineterminator=rng.choice(["\n", "\r\n"]))
    writer.writerow([*columns, "remark"])
    for row in rows:
        remark = rng.choice(["", 'says "no"', "two\nlines", f"a{delimiter}b"])
        writer.writerow([*(row[column].text for column in columns), remark])
    content = out.getvalue().encode(rng.choice(["utf-8", "utf-8-sig"]))
    if rng.random() < 0.3:
        stem.with_name(f"{stem.name}.csv.gz").write_bytes(gzip.compress(content))
    else:
        stem.with_name(f"{stem.name}.csv").write_bytes(content)


def _write_parquet(rows: list[Row], columns: list[str], stem: Path) -> None:
    def column(name: str) -> pl.Series:
        if name == "id":
            return pl.Series([row[name].value for row in rows], dtype=pl.Int64)
        texts = [row[name].text for row in rows]
        return pl.Series([text or None for text in texts], dtype=pl.String)

    pl.DataFrame({name: column(name) for name in columns}).write_parquet(
        stem.with_name(f"{stem.name}.parquet")
    )


Made = tuple[dt.datetime | None, str, float | None]


def _dated(row: Row, column: str, code: str | None, value: float | None = None) -> Made | str:
    """The event of a row, or the reason why it makes none."""
    if row["id"].value is None:
        return "no patient"
    if row[column].value is None:
        return "unreadable time" if row[column].unreadable else "no time"
    return (row[column].value, code, value) if code else "no code"


def _joined(head: str, cell: Cell) -> str | None:
    return None if cell.value is None else head + cell.value


def _sex(row: Row) -> Made | str:
    code = _joined("GENDER//", row["sex"])
    return (None, code, None) if code else "no code"


def _result(row: Row) -> Made | str:
    if row["flag"].value == "CANCELLED":
        return "cancelled"
    made = _dated(row, "taken", _joined("LAB//", row["test"]))
    if isinstance(made, str):
        return made
    value = single(row["result"].value)
    if value is None:
        return "no value"
    low, high = KNOWN.get(row["test"].value, (-float("inf"), float("inf")))
    if not low <= row["result"].value <= high:
        return "out of range"
    return (made[0], made[1], value)


def _death(row: Row) -> Made | str:
    code = "MEDS_DEATH" if row["ward"].value is None else f"MEDS_DEATH//{row['ward'].value}"
    return "not selected" if row["died"].value is None else _dated(row, "died", code)


def _discharge(row: Row) -> Made | str:
    return "not selected" if row["closes"].value is None else _dated(row, "closes", "HOSPITAL_DISCHARGE")


def _follow_up(row: Row) -> Made | str:
    column = "last_seen" if row["died"].value is None else "died"
    return "not selected" if row[column].value is None else _dated(row, column, "FOLLOW_UP//END")


_RULES = (
    ("people", _sex),
    ("people", lambda row: _dated(row, "born", "MEDS_BIRTH")),
    ("stays", lambda row: _dated(row, "opens", _joined("HOSPITAL_ADMISSION//", row["kind"]))),
    ("results", _result),
    ("diagnoses", lambda row: _dated(row, "noted", _joined("ICD10CM//", row["code"]))),
    ("stays", _discharge),
    ("people", _death),
    ("people", _follow_up),
)
