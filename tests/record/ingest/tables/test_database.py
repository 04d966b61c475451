"""Databases as raw data: a DuckDB file, and a live PostgreSQL server whose password is told to nobody."""

import datetime as dt
import json
from pathlib import Path

import duckdb
import pytest

from sequela.errors import InputError
from sequela.record.ingest.mapping import FileTable
from sequela.record.ingest.run import ingest
from sequela.record.ingest.tables.database import Database, open_table, raw_origin
from sequela.record.ingest.tables.load import load_files
from tests.record.ingest.postgres import PASSWORD, execute

COLUMNS = {
    "Pid": "integer",
    "at": "time",
    "value": "number",
    "word": "text",
    "day": "time",
    "dose": "quantity",
}
TABLE = FileTable(("*",), COLUMNS)
ROWS = [
    (1, dt.datetime(2020, 1, 5, 8, 30), 1.5, "yes", dt.datetime(2020, 1, 5), 5.0),
    (2, None, None, None, None, None),
]


def read(raw, name="visits", **said):
    con = duckdb.connect()
    table = FileTable(**({"files": ("*",), "columns": COLUMNS} | said))
    loaded = load_files(con, name, table, raw_origin(raw))
    columns = ", ".join(f'"{column}"' for column in table.columns)
    return loaded, con.sql(f"SELECT {columns} FROM {name} ORDER BY _row").fetchall(), con


def refused(raw, *words, **said):
    with pytest.raises(InputError) as caught:
        read(raw, **said)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message and "SECRET" not in message and PASSWORD not in message


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "clinic.duckdb"
    with duckdb.connect(str(path)) as con:
        con.execute(
            'CREATE TABLE VISITS (PID INT, "AT" TIMESTAMP, VALUE DECIMAL(5, 2), WORD TEXT, DAY DATE, DOSE TEXT)'
        )
        con.execute(
            "INSERT INTO visits VALUES (1, '2020-01-05 08:30', 1.5, 'yes', '2020-01-05', '5 mg'), "
            "(2, NULL, NULL, NULL, NULL, NULL)"
        )
        con.execute("CREATE SCHEMA other")
        con.execute("CREATE TABLE other.visits AS SELECT 7 AS pid, 'SECRET' AS value")
        con.execute("CREATE VIEW seen AS SELECT * FROM visits WHERE pid = 1")
        con.execute("CREATE TABLE nobody (pid INT)")
    return path


@pytest.fixture(scope="session")  # once for each database: a worker may come back to these tests
def server(postgres):
    execute(
        postgres,
        'CREATE TABLE "VISITS" ("PID" bigint, at timestamp, value numeric(5, 2), word char(5), day date, dose text)',
        """INSERT INTO "VISITS" VALUES (1, '2020-01-05 08:30', 1.5, 'yes', '2020-01-05', '5 mg'),
           (2, NULL, NULL, NULL, 'infinity', NULL)""",
        "CREATE SCHEMA cdm",
        "CREATE TABLE cdm.visits AS SELECT 7 AS pid, 'SECRET' AS value, timestamptz '2020-07-01 00:00+02' AS at",
        "CREATE TABLE cdm.many AS SELECT i AS pid, i::text AS value FROM generate_series(1, 100000) AS i",
    )
    return postgres


def test_what_raw_may_be(tmp_path, file):
    assert raw_origin(tmp_path) == tmp_path
    assert raw_origin(str(tmp_path / "nothing")) == tmp_path / "nothing"
    assert raw_origin(file) == Database("duckdb", str(file), str(file))
    (tmp_path / "folder.db").mkdir()
    assert raw_origin(tmp_path / "folder.db") == tmp_path / "folder.db"
    with pytest.raises(InputError, match=r"no file .*gone\.duckdb"):
        raw_origin(tmp_path / "gone.duckdb")


def test_a_label_has_no_password():
    place = raw_origin(
        "postgresql://me:SECRET@host:5433/db?schema=cdm,vocab&sslmode=require&sslpassword=SECRET&password=SECRET"
    )
    assert str(place) == "postgresql://me@host:5433/db?sslmode=require&schema=cdm,vocab"
    assert "SECRET" not in repr(place) and "SECRET" in place.address and "schema" not in place.address
    assert place.schemas == ("cdm", "vocab")
    assert raw_origin("postgres://host/db").schemas == ("public",)
    assert str(raw_origin("postgresql:///db?host=/run/pg")) == "postgresql:///db?host=/run/pg"
    assert raw_origin(place) is place


@pytest.mark.parametrize("word", ["SEC/RET", "SEC@RET", "SEC#RET", "SEC?RET", "SEC:RET@x"])
def test_an_unescaped_password_is_not_shown(word):
    with pytest.raises(InputError, match="%40") as caught:
        raw_origin(f"postgresql://me:{word}@host/db")
    assert "SEC" not in str(caught.value)


@pytest.mark.parametrize(
    "uri", ["postgresql+psycopg2://me:SECRET@h/db", "mysql://me:SECRET@h/db", " jdbc:postgresql://me:SECRET@h/db"]
)
def test_a_uri_of_another_kind_is_not_shown(uri):
    for raw in (uri, Path(uri)):
        with pytest.raises(InputError, match="URI") as caught:
            ingest("meds", raw, Path("never"))
        assert "SECRET" not in str(caught.value)


def test_the_scheme_of_a_uri_knows_no_case():
    assert raw_origin("POSTGRESQL://me:SECRET@h/db").label == "postgresql://me@h/db"
    with pytest.raises(InputError) as caught:
        raw_origin(Path("POSTGRESQL://me:SECRET@h/db"))
    assert "SECRET" not in str(caught.value)


def test_a_strange_uri_takes_no_time():
    """Found by fuzzing: an expression over all hosts at once tried every way to cut them."""
    with pytest.raises(InputError, match="cannot be parsed"):
        raw_origin("postgresql://d" + "," * 5000 + ":g")
    assert raw_origin("postgresql://a:1,[::1]:2,c/db").label == "postgresql://a:1,[::1]:2,c/db"


def test_a_duckdb_file(file):
    loaded, rows, con = read(file)
    assert (loaded.files, loaded.rows, rows) == (("main.VISITS",), 2, ROWS)
    assert loaded.facts == {"comparators": {"dose": {"unit": 1}}}
    assert con.sql("SELECT DISTINCT _file FROM visits").fetchall() == [("main.VISITS",)]
    assert (
        con.sql("SELECT database_name FROM duckdb_databases() WHERE database_name = '_raw'").fetchall() == []
    )


def test_tables_of_a_duckdb_file(file):
    some = {"columns": {"pid": "integer"}}
    assert read(file, **some, name="seen")[1] == [(1,)]
    assert read(file, **some, table="other.Visits")[1] == [(7,)]
    assert read(file, columns={"pid": "integer", "no": "text"}, optional_columns=frozenset({"no"}))[1][0] == (
        1,
        None,
    )
    assert read(file, **some, name="gone", optional=True)[0].rows == 0
    refused(file, "no table 'visit'", "did you mean", "`table`", name="visit", **some)
    refused(file, "nobody has no rows", name="nobody", **some)
    refused(file, "main.VISITS has no column 'no'", columns={"no": "text"})
    refused(
        file, "other.visits, row 1", "'value'", "a number", table="other.visits", columns={"value": "number"}
    )


def test_what_is_no_duckdb_file(tmp_path, file):
    (tmp_path / "no.duckdb").write_bytes(b"SECRET" * 4000)
    refused(tmp_path / "no.duckdb", "cannot be opened as a DuckDB file")
    (tmp_path / "cut.duckdb").write_bytes(file.read_bytes()[:5000])
    refused(tmp_path / "cut.duckdb", "DuckDB file")


def test_a_server(server):
    loaded, rows, _ = read(server)
    assert (loaded.files, loaded.rows, rows) == (("public.VISITS",), 2, ROWS)
    assert loaded.unreadable == {}, "an infinite date is no date, and no wrong one"
    assert read(f"{server}?schema=CDM", columns={"pid": "integer"})[1] == [(7,)]
    assert read(f"{server}?schema=nothing,cdm", columns={"pid": "integer"})[1] == [(7,)]
    assert read(server, columns={"pid": "integer"}, table="cdm.visits")[1] == [(7,)]
    zoned = {"columns": {"at": "time"}, "table": "cdm.visits", "timezone": "America/New_York"}
    loaded, rows, _ = read(server, **zoned)
    assert rows == [(dt.datetime(2020, 6, 30, 18),)] and loaded.facts == {"times_with_offset": {"at": 1}}
    many, rows, _ = read(
        server, name="many", table="cdm.many", columns={"pid": "integer", "value": "integer"}
    )
    assert many.rows == 100_000 and all(pid == value for pid, value in rows)
    assert read(server, name="gone", optional=True)[0].rows == 0


def test_what_a_server_refuses(server, monkeypatch):
    refused(server, "no table 'gone'", "public", name="gone")
    refused(server, "public.VISITS has no column 'no'", columns={"no": "text"})
    refused(server, "cdm.visits, row 1", "'value'", table="cdm.visits", columns={"value": "number"})
    refused(server.replace("/raw", "/nothing"), "database")
    refused(server.replace("reader@", "reader:SECRET@"), "refuses the user or the password")
    refused("postgresql://reader:SECRET@127.0.0.1:1/raw", "127.0.0.1:1/raw", "no server")
    monkeypatch.delenv("PGPASSWORD")
    refused(server, "password", "PGPASSWORD")
    with_password = server.replace("reader@", f"reader:{PASSWORD}@")
    assert read(with_password)[0].rows == 2
    refused(with_password, "no column", columns={"no": "text"})


def test_a_table_is_open_for_as_long_as_it_is_read(file):
    con = duckdb.connect()
    with open_table(con, raw_origin(file), "seen", FileTable(("*",), {"pid": "integer"})) as rows:
        assert con.sql(rows.sql).fetchall() == [(1, "main.seen")]
    with pytest.raises(duckdb.Error):
        con.sql(rows.sql).fetchall()


MAPPING = """
name = "clinic"
patient = "pid"

[tables.visits]
files = "visits.csv"
columns = { pid = "integer", at = "time", value = "number" }

[[events]]
table = "visits"
code = "'VISIT'"
time = '"at"'
value = "value"
missing_times = 1
"""


@pytest.fixture
def mapping(tmp_path):
    (tmp_path / "clinic.toml").write_text(MAPPING)
    return tmp_path / "clinic.toml"


def test_a_stage_knows_its_duckdb_file(file, mapping, tmp_path):
    from sequela import ingest

    first = ingest(mapping, file, tmp_path / "out")
    assert first["result"]["events"] == 1 and not first["skipped"]
    assert ingest(mapping, file, tmp_path / "out")["skipped"]
    with duckdb.connect(str(file)) as con:
        con.execute("INSERT INTO visits (pid, \"AT\", value) VALUES (3, '2021-01-01', 2)")
    assert ingest(mapping, file, tmp_path / "out")["result"]["events"] == 2


def test_json_is_not_looked_for_in_a_database(file, mapping, tmp_path):
    from sequela.record.ingest.run import ingest

    json_table = '[tables.more]\njson = "*.ndjson"\n\n[[events]]'
    mapping.write_text(MAPPING.replace("[[events]]", json_table))
    with pytest.raises(InputError, match="table 'more' is JSON, which is read from files"):
        ingest(mapping, file, tmp_path / "out")


def test_a_server_is_never_skipped_and_its_password_written_nowhere(server, mapping, tmp_path, capfd, monkeypatch):
    from sequela.serve.cli import run

    monkeypatch.delenv("PGPASSWORD")
    uri = server.replace("reader@", f"reader:{PASSWORD}@")
    out = tmp_path / "out"
    times = []
    for _ in range(2):
        assert run(["ingest", str(mapping), uri, str(out)]) == 0
        facts = json.loads((out / "manifest.json").read_text())
        assert facts["settings"]["raw"] == server and facts["result"]["events"] == 1
        times.append(facts["settings"]["read_at"])
    assert times[0] < times[1]
    monkeypatch.setattr("sys.argv", ["sequela"])
    assert run(["ingest", str(mapping), uri.replace("/raw", "/nothing"), str(tmp_path / "no")]) == 2
    said = "".join(capfd.readouterr())
    assert "nothing" in said
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 5 and not any(PASSWORD.encode() in content for content in (*written, said.encode()))
