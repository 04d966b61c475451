"""Opens raw tables in a database: a DuckDB file, or a PostgreSQL server read through ADBC.

Rows stream: DuckDB reads its own file, and a server sends batches of a few megabytes. A password is used for the
connection only; `Database.label` is safe to show and store.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import duckdb

from sequela.errors import InputError, nearest, refuse_uri
from sequela.files import check_readable
from sequela.record.ingest.mapping import FileTable
from sequela.record.ingest.tables.header import match_columns
from sequela.record.ingest.tables.names import find_name
from sequela.record.ingest.tables.rows import RawRows
from sequela.record.ingest.tables.sql import literal, plain_path, quoted

DUCKDB_FILES = (".duckdb", ".db")
SERVER = re.compile(r"\s*postgres(ql)?://", re.IGNORECASE)
SHOWN = ("host", "port", "dbname", "user", "sslmode")  # parts of a URI's query that are not secret
UNCLEAR = (
    "the database's URI cannot be parsed: write postgresql://USER:PASSWORD@HOST:PORT/DATABASE with special characters "
    "in the password as %XX (@ is %40), or without the password, which may be in PGPASSWORD or ~/.pgpass."
)
# Types that ADBC transfers unchanged; every other PostgreSQL type is cast to text.
PLAIN = ("int2", "int4", "int8", "float4", "float8", "bool", "text", "varchar")
TIMES = ("date", "timestamp", "timestamptz")


@dataclass(frozen=True)
class Database:
    """A database with raw tables.

    Attributes:
        kind: "duckdb" or "postgresql".
        label: the file's path, or the server's URI without password.
        address: to connect to; includes the password if the URI has one.
        schemas: searched for tables, in this order; empty for every schema of a DuckDB file.
    """

    kind: str
    label: str
    address: str = field(repr=False)
    schemas: tuple[str, ...] = ()

    @property
    def is_server(self) -> bool:
        """Whether it is a live server, which cannot tell if its tables have changed."""
        return self.kind == "postgresql"

    def __str__(self) -> str:
        return self.label


def raw_origin(raw: str | Path | Database) -> Path | Database:
    """The origin of raw tables: the path of a folder, a DuckDB file, or a PostgreSQL server.

    Raises:
        InputError: if a server's URI cannot be parsed. The message omits it, because it may contain a password.
    """
    if isinstance(raw, Database):
        return raw
    if isinstance(raw, str) and SERVER.match(raw):
        return _server(raw.strip())
    if not str(raw):
        raise InputError("`raw` is empty: give the folder of the raw files, a DuckDB file or a postgresql:// URI.")
    refuse_uri(raw)
    path = Path(raw)
    if path.suffix.lower() in DUCKDB_FILES and not path.is_dir():
        if not path.is_file():
            raise InputError(f"there is no file {path}: give a DuckDB file, a folder or a postgresql:// URI.")
        return Database("duckdb", str(path), str(path))
    return path


def _server(uri: str) -> Database:
    try:
        parts = urlsplit(uri)
    except ValueError:
        raise InputError(UNCLEAR) from None  # its message contains the password
    user, at, host = parts.netloc.rpartition("@")
    options = dict(parse_qsl(parts.query))
    # An unescaped / ? # or @ in a password splits the URI in the wrong place and would reveal part of it.
    hosts = all(re.fullmatch(r"(\[[^\[\]]*\]|[^:\[\]]*)(:\d*)?", address) for address in host.split(","))
    if not hosts or parts.fragment or "@" in user + parts.path + parts.query:
        raise InputError(UNCLEAR)
    schemas = tuple(options.pop("schema", "public").split(","))
    name = user.partition(":")[0] + at
    shown = {key: options[key] for key in SHOWN if key in options}
    if schemas != ("public",):
        shown["schema"] = ",".join(schemas)
    query = "?" + urlencode(shown, safe="/,") if shown else ""
    address = f"postgresql://{parts.netloc}{parts.path}" + (
        "?" + urlencode(options, quote_via=quote) if options else ""
    )
    label = f"postgresql://{name}{host}{parts.path}{query}"
    return Database("postgresql", unquote(label), address, schemas)


@contextmanager
def open_table(
    con: duckdb.DuckDBPyConnection, database: Database, name: str, table: FileTable
) -> Iterator[RawRows | None]:
    """The rows of `table`, called `name` in the mapping, within the context; None if it is optional and absent.

    Raises:
        InputError: if the database cannot be opened, or the table lacks a column.
    """
    opened = _open_file if database.kind == "duckdb" else _open_server
    with opened(con, database, name, table) as rows:
        yield rows


def _wanted(name: str, table: FileTable, schemas: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
    """The schemas to search for the table, and its name there."""
    schema, dot, bare = (table.table or name).rpartition(".")
    return ((schema,) if dot else schemas), bare


def _pick(
    present: list[tuple[str, str]], database: Database, name: str, table: FileTable
) -> tuple[str, str] | None:
    """The schema and name of the table among the (schema, name) in `present`; None if it is optional and absent."""
    schemas, wanted = _wanted(name, table, database.schemas or tuple(dict.fromkeys(s for s, _ in present)))
    for schema in schemas:
        there = [other for at, other in present if at.casefold() == schema.casefold()]
        match = find_name(wanted, there, f"{database}, schema {schema}", "table")
        if match is not None:
            return next(
                (at, other) for at, other in present if (at.casefold(), other) == (schema.casefold(), match)
            )
    if table.optional:
        return None
    names = [other for _, other in present]
    where = f"schema {' or '.join(schemas)}" if schemas else "it"
    raise InputError(
        f"{database} has no table '{wanted}' in {where}{nearest(wanted, names)}: give its name with the key `table` in "
        "the mapping, or its schema with ?schema= at the end of the URI."
    )


@contextmanager
def _open_file(
    con: duckdb.DuckDBPyConnection, database: Database, name: str, table: FileTable
) -> Iterator[RawRows | None]:
    check_readable(Path(database.address))
    try:
        con.execute(f"ATTACH {literal(str(plain_path(Path(database.address))))} AS _raw (READ_ONLY)")
    except duckdb.Error as error:
        raise InputError(
            f"{database} cannot be opened as a DuckDB file: close it in any program that writes to it, or export "
            f"it again with DuckDB {duckdb.__version__} or older."
        ) from error
    try:
        tables = con.execute(
            "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = '_raw' UNION ALL "
            "SELECT schema_name, view_name FROM duckdb_views() WHERE database_name = '_raw' AND NOT internal "
            "ORDER BY schema_name <> 'main', 1, 2"
        ).fetchall()
        picked = _pick(tables, database, name, table)
        if picked is None:
            yield None
            return
        place = ".".join(picked)
        names = [row[0] for row in con.execute(f"DESCRIBE _raw.{'.'.join(map(quoted, picked))}").fetchall()]
        columns = match_columns(f"{database}, table {place}", names, table)
        cells = ", ".join(
            f"{'NULL' if other is None else quoted(other)} AS {quoted(c)}" for c, other in columns.items()
        )
        yield RawRows(
            (place,),
            f"SELECT {cells}, {literal(place)} AS _file FROM _raw.{'.'.join(map(quoted, picked))}",
            typed=True,
        )
    finally:
        con.execute("DETACH _raw")


@contextmanager
def _open_server(
    con: duckdb.DuckDBPyConnection, database: Database, name: str, table: FileTable
) -> Iterator[RawRows | None]:
    with _connection(database) as connection, connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        schemas, _ = _wanted(name, table, database.schemas)
        listed = ", ".join(literal(schema.lower()) for schema in schemas)
        cursor.execute(
            "SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            f"WHERE c.relkind IN ('r', 'v', 'm', 'p', 'f') AND lower(n.nspname) IN ({listed}) ORDER BY 1, 2"
        )
        picked = _pick(cursor.fetchall(), database, name, table)
        if picked is None:
            yield None
            return
        cursor.execute(_select(cursor, database, picked, table))
        con.register("_raw", cursor.fetch_record_batch())
        try:
            place = ".".join(picked)
            yield RawRows((place,), f"SELECT *, {literal(place)} AS _file FROM _raw", typed=True)
        finally:
            con.unregister("_raw")


def _select(cursor: Any, database: Database, picked: tuple[str, str], table: FileTable) -> str:
    """A PostgreSQL query for the wanted columns; infinite times become null."""
    full = ".".join(map(quoted, picked)).replace("'", "''")
    cursor.execute(
        "SELECT a.attname::text, t.typname::text FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid "
        f"WHERE a.attrelid = '{full}'::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"
    )
    types = dict(cursor.fetchall())
    columns = match_columns(f"{database}, table {'.'.join(picked)}", list(types), table)
    cells = []
    for column, own in columns.items():
        cell = "NULL::text" if own is None else quoted(own)
        kind = "text" if own is None else types[own]
        if kind in TIMES:
            cell = f"CASE WHEN isfinite({cell}) THEN {cell} END"
        elif kind not in PLAIN:
            cell = f"{cell}::text"
        cells.append(f"{cell} AS {quoted(column)}")
    return f"SELECT {', '.join(cells)} FROM {'.'.join(map(quoted, picked))}"


@contextmanager
def _connection(database: Database) -> Iterator[Any]:
    """A connection to the server; its errors omit the driver's message, which may quote secrets."""
    try:
        from adbc_driver_manager import Error
        from adbc_driver_postgresql import dbapi
    except ImportError as error:
        raise InputError("PostgreSQL needs a driver: pip install 'sequela[postgres]'.") from error
    try:
        connection = dbapi.connect(database.address)
    except Error as error:
        raise InputError(f"{database}: {_no_connection(str(error))}.") from None
    try:
        with connection:
            yield connection
    except Error as error:
        raise InputError(
            f"{database}: the server failed (SQLSTATE {error.sqlstate or 'unknown'}): check that this user may "
            "read its tables, and that it keeps running."
        ) from None


def _no_connection(message: str) -> str:
    if "password" in message or "authentication" in message or "pg_hba" in message:
        return "the server refuses the user or the password: give it in PGPASSWORD, ~/.pgpass or the URI"
    if "does not exist" in message:
        return "the server does not know this user or database: check the URI"
    return "no server answers there, or the URI is wrong: check host and port, and that the server runs"
