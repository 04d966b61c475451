"""A small clinic's raw files and their mapping, a source that no code knows; and a small MEDS dataset."""

import datetime as dt
import gzip
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from sequela.record.dataset import read_events, write_dataset
from sequela.record.ingest.run import ingest

MAPPING = """
name = "clinic"
patient = "pid"

[tables.people]
files = ["people.csv"]
columns = { pid = "integer", sex = "text", born = "time", last = "time" }

[tables.visits]
files = ["visits.csv", "visits.csv.gz"]
columns = { pid = "integer", seen = "time", test = "text", value = "number" }

[tables.names]
columns = ["test", "code", "low", "high", "unit"]
rows = [["hb", "LAB//HB", 3, 25, "g/dL"], ["hr", "VITAL//HR", 10, 300, "beats/min"]]

[[events]]
table = "people"
code = "'GENDER//' || sex"

[[events]]
table = "people"
code = "'MEDS_BIRTH'"
time = "born"

[[events]]
table = "visits"
join = "names USING (test)"
code = "code"
time = "seen"
value = "value"
range = ["low", "high"]
description = "'Test ' || test"
unit = "unit"

[[events]]
table = "people"
code = "'FOLLOW_UP//END'"
time = "last"
"""

PEOPLE = """pid,sex,born,last
1,F,1950-03-01,2020-06-01
2,M,1960-07-15,2021-01-01 12:00:00
3,F,1970-01-01,2019-12-31
"""

VISITS = """pid,seen,test,value
1,2020-01-05 08:30:00,hb,13.5
1,2020-01-05 08:30:00,hr,72
2,2020-03-01,hb,9
2,2020-02-01,hr,88
3,2019-05-05T10:00:00,hb,
"""


@dataclass
class Clinic:
    """Writes the clinic's files into a folder, changed or not, and ingests them."""

    folder: Path
    mapping: str = MAPPING
    people: str = PEOPLE
    visits: str | None = VISITS

    @property
    def raw(self) -> Path:
        return self.folder / "raw"

    def write(self) -> None:
        self.raw.mkdir(exist_ok=True)
        (self.folder / "clinic.toml").write_text(self.mapping)
        (self.raw / "people.csv").write_text(self.people)
        if self.visits is not None:
            (self.raw / "visits.csv").write_text(self.visits)

    def ingest(self) -> dict:
        self.write()
        shutil.rmtree(self.folder / "out", ignore_errors=True)
        return ingest(self.folder / "clinic.toml", self.raw, self.folder / "out")

    def ingest_gzipped(self, size: int | None = None) -> dict:
        """Ingest with the visits as visits.csv.gz, cut off after `size` bytes."""
        packed = gzip.compress(self.visits.encode())
        self.visits = None
        self.write()
        (self.raw / "visits.csv.gz").write_bytes(packed[:size])
        return self.ingest()

    def events(self) -> pl.DataFrame:
        return read_events(self.folder / "out")


@pytest.fixture
def new_clinic(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Clinic]:
    return lambda **changes: Clinic(tmp_path_factory.mktemp("clinic"), **changes)


@pytest.fixture
def clinic(new_clinic: Callable[..., Clinic]) -> Clinic:
    return new_clinic()


SCHEMA = {
    "subject_id": pl.Int64,
    "time": pl.Datetime("us"),
    "code": pl.String,
    "numeric_value": pl.Float32,
}
DAY = dt.datetime(2020, 1, 1, 12)


@pytest.fixture
def events() -> pl.DataFrame:
    rows = []
    for patient in range(1, 41):
        rows += [
            (patient, None, "GENDER//F", None),
            (patient, dt.datetime(1950, 1, 1), "MEDS_BIRTH", None),
            (patient, DAY, "LAB//HB", 12.5),
            (patient, DAY, "LAB//A", None),
            (patient, DAY.replace(year=2021), "MEDS_DEATH", None),
        ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


@pytest.fixture
def dataset(events, tmp_path) -> Path:
    write_dataset(events, tmp_path / "meds", name="toy", descriptions={"LAB//HB": "Haemoglobin"})
    return tmp_path / "meds"


@pytest.fixture(scope="session")
def rule_of() -> Callable[[dict, str, str], dict]:
    """The account of the first rule of a report that makes `code` from `table`."""
    return lambda report, table, code: next(
        rule for rule in report["tables"][table]["rules"] if code in rule["code"]
    )


@pytest.fixture(scope="session")
def balanced() -> Callable[[dict], bool]:
    """Whether every row that went in came out as an event, or was dropped for a stated reason."""

    def check(report: dict) -> bool:
        rules = [rule for table in report["tables"].values() for rule in table["rules"]]
        return sum(rule["events_out"] for rule in rules) == report["events"] and all(
            rule["rows_in"] == rule["events_out"] + sum(rule["dropped"].values()) for rule in rules
        )

    return check


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URI of an empty database on a PostgreSQL server of our own; PGPASSWORD holds its password meanwhile.

    `tests.record.ingest.postgres.execute(uri, *statements)` puts something into it; tests use a schema each.
    """
    from tests.record.ingest.postgres import PASSWORD, server

    before = os.environ.get("PGPASSWORD")
    # Not below pytest's own folder: every other run of pytest shuts that to the server's user
    scratch = tempfile.TemporaryDirectory(prefix="sequela-postgres-", ignore_cleanup_errors=True)
    with scratch as folder, server(Path(folder) / "server") as uri:
        os.environ["PGPASSWORD"] = PASSWORD
        yield uri
    if before is None:
        del os.environ["PGPASSWORD"]
    else:
        os.environ["PGPASSWORD"] = before
