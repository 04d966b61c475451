"""Parses cells as the types that a mapping declares: integers, numbers, quantities, times and durations.

All of it is SQL. Expressions of a mapping can call the same parsers, created by `add_macros`:
`number_in(text)`, `comparator_in(text)`, `unit_in(text)`, `whole_in(text)`, `time_in(text)`.
"""

from __future__ import annotations

import duckdb

from sequela.errors import InputError
from sequela.record.ingest.tables.sql import literal

MEANING = {"integer": "a whole number", "number": "a number"}
TIMES = ("time", "duration")
WRONG = "wrong"  # the first note of every type but text: the cell is not of the type
SENTINEL = "sentinel"  # of times: the cell stands for no time
PADDED_WITH_ZEROS = "padded"  # of integers
# Of quantities. 1,250 and 1.250 are one and a quarter where others have a decimal comma, and over a thousand elsewhere.
DECIMAL_COMMA, GROUPED = "decimal comma", "grouped"

# Cells that are numbers already, by the type of the column
NUMBERS = {
    "integer": "CASE WHEN TRY_CAST({0} AS DOUBLE) = TRY_CAST({0} AS BIGINT) THEN TRY_CAST({0} AS BIGINT) END",
    "number": "TRY_CAST({0} AS DOUBLE)",
    "quantity": "CASE WHEN isfinite(TRY_CAST({0} AS DOUBLE)) THEN TRY_CAST({0} AS DOUBLE) END",
}
# In text SQL reads more than people write: 1_23 and 12_3 would be one patient, 0x1F another. Of 1.2E+11 the last digits
# are lost, so that it is no whole number; 12.0 is how tools write one in a column with empty cells.
WHOLE = r"\s*[+-]?[0-9]+(?:\.0*)?\s*"
PADDED = r"\s*[+-]?0[0-9]+(?:\.0*)?\s*"  # a whole number with leading zeros

# A clock time may be followed by an offset, or by AM or PM. Only years from 1000 to 9999.
DATE = r"[1-9][0-9]{3}[-/][0-9]{1,2}[-/][0-9]{1,2}"
CLOCK = r"(?:[Tt]| +)[0-9]{1,2}:[0-9]{1,2}(?::[0-9]{1,2}(?:[.,][0-9]+)?)?"
LOCAL = rf"\s*{DATE}(?:{CLOCK})?\s*"
OFFSET = rf"\s*{DATE}{CLOCK}\s*(?:Z|z|UTC|GMT|(?:UTC|GMT)?[+-](?:0[0-9]|1[0-4]):?(?:[0-5][0-9])?)\s*"
HALF_DAY = (r"\s*([1-9][0-9]{3})[-/]([0-9]{1,2})[-/]([0-9]{1,2})(?:[Tt]| +)([0-9]{1,2}:[0-9]{1,2})(:[0-9]{1,2})?"
            r"\s*([AaPp])\.?[Mm]\.?\s*")  # fmt: skip

# A number, optionally with a comparator before it and a unit, flag or pluses ("2+") after it.
COMPARATOR = "<=|>=|=<|=>|≤|≥|<|>|=|~|≈"
NUMBER = r"[+\-−]?(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
WORD = r"(?:[xX]10|/[\p{L}µ\[(]|\([\p{L}]|[a-wyzA-WYZ%°‰µμ\[{*#Ωα-ω])[^\s,;:–-]*"
BEFORE = rf"\s*(?:{COMPARATOR})?\s*"
QUANTITY = rf"{BEFORE}{NUMBER}\s*(?:\++|{WORD}(?:\s+{WORD}){{0,3}})?\s*"
# A decimal comma that is certain, and digits in groups of three, which a comma or a point may separate
AFTER = r"(?:[^0-9,.].*)?"
COMMA = (rf"{BEFORE}[+\-−]?(?:[0-9]+,(?:[0-9]{{1,2}}|[0-9]{{4,}})|0[0-9]*,[0-9]+|[0-9]{{4,}},[0-9]+|"
         rf"[0-9.]+\.[0-9]{{3}},[0-9]+){AFTER}")  # fmt: skip
GROUPS = rf"{BEFORE}[+\-−]?[1-9][0-9]{{0,2}}(?:(?:,[0-9]{{3}})+(?:\.[0-9]+)?|(?:\.[0-9]{{3}})+){AFTER}"
# Looks like a number but is not: "3 to 5", "1 of 2", a letter mistyped for a digit
SEVERAL = r"(?i)(?:\b(?:to|or|and|of)\b)|(?:[0-9][oil][0-9.,])"

# Common formats besides ISO 8601, tried on unreadable cells to suggest the right one.
DAYS = ("%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%m-%d-%Y", "%d-%m-%Y", "%d-%b-%Y", "%d-%b-%y", "%m/%d/%y",
        "%d/%m/%y", "%d.%m.%y", "%Y%m%d", "%Y%m%d%H%M", "%Y%m%d%H%M%S", "%Y-%m-%d")  # fmt: skip
CLOCKS = ("%H:%M", "%H:%M:%S", "%H:%M:%S.%f", "%I:%M %p", "%I:%M:%S %p")


def add_macros(con: duckdb.DuckDBPyConnection, zone: str = "UTC", sentinels: tuple[str, ...] = ()) -> None:
    """Create the parsing functions on this connection.

    Args:
        zone: `time_in` returns its local times.
        sentinels: days ("9999-12-31") that stand for no time; `is_sentinel` tells them, `time_in` reads them as null.
    """
    made_for = f"{zone} {sentinels}"
    try:
        if con.execute("SELECT _made_for()").fetchall() == [(made_for,)]:
            return  # creating them takes longer than reading a small table
    except duckdb.CatalogException:
        con.execute("SET TimeZone = 'UTC'")
    for head, sql in ({"_made_for()": literal(made_for)} | _macros(zone, sentinels)).items():
        con.execute(f"CREATE OR REPLACE TEMP MACRO {head} AS {sql}")


def check_type(kind: str) -> str | None:
    """What is wrong with the column type `kind` of a mapping, to follow its name; None if it is valid."""
    if kind in ("text", "duration", "time", *NUMBERS):
        return None
    formats = _formats(kind)
    if not formats:
        return "is unknown"
    for format in formats:
        try:
            duckdb.execute("SELECT try_strptime('', ?)", [format]).fetchall()
        except duckdb.Error:
            return f"has the format '{format}', which strptime does not know"
        if not any(year in format for year in ("%Y", "%y")):
            return f"has the format '{format}' without a year (%Y)"
    return None


def check_zone(zone: str) -> None:
    """Check that `zone` is an IANA name, such as "Europe/Berlin".

    Raises:
        InputError: if it is not.
    """
    try:
        duckdb.execute("SELECT TIMESTAMP '2000-01-01' AT TIME ZONE ?", [zone])
    except duckdb.Error as error:
        raise InputError(f"'{zone}' is not a time zone; give an IANA name such as Europe/Berlin.") from error


def check_day(day: str) -> bool:
    """Whether `day` is a date that `time` columns can hold, written as "9999-12-31"."""
    sql = "SELECT regexp_full_match($1, '[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}') AND TRY_CAST($1 AS DATE) IS NOT NULL"
    return duckdb.execute(sql, [day]).fetchall()[0][0]


def is_time(kind: str) -> bool:
    """Whether unreadable cells of this type are dropped and counted instead of being an error."""
    return kind.partition(" ")[0] in TIMES


def read_cell(kind: str, cell: str, zone: str, type: str = "VARCHAR") -> str:
    """SQL that parses `cell`, an SQL expression of the DuckDB type `type`, as `kind`; null if that fails."""
    if type == "TIMESTAMP WITH TIME ZONE" and kind != "text":
        cell, type = f"({cell} AT TIME ZONE {literal(zone)})", "TIMESTAMP"
    if is_time(kind) and (type == "DATE" or type.startswith("TIMESTAMP")):
        return f"TRY_CAST({cell} AS TIMESTAMP)"
    if kind in NUMBERS and _is_number(type):
        return NUMBERS[kind].format(cell)
    text = cell if type == "VARCHAR" else f"CAST({cell} AS VARCHAR)"
    if kind == "text":
        return text
    if kind == "quantity":
        return f"number_in({text})"
    if kind == "duration":
        return f"CASE WHEN contains({text}, ':') THEN TRY_CAST({text} AS INTERVAL) END"
    if kind == "time":
        return f"_moment_in({text})"
    if formats := _formats(kind):
        return f"coalesce({', '.join(_strptime(text, format, zone) for format in formats)})"
    if kind == "integer":
        return f"whole_in({text})"
    return f"CASE WHEN NOT contains({text}, '_') THEN TRY_CAST({text} AS DOUBLE) END"


def value_or_null(kind: str, value: str) -> str:
    """SQL that turns a time outside the years 1000 to 9999 into null; `value` is a column, because it is used twice."""
    return value if kind == "duration" or not is_time(kind) else f"_sane({value})"


def notes(kind: str, cell: str, value: str, type: str = "VARCHAR") -> dict[str, str]:
    """What to count about the cells of a column: note -> SQL condition; `value` is the parsed cell."""
    if kind == "text":
        return {}
    wrong = f"{cell} IS NOT NULL AND {value} IS NULL"
    counted = {WRONG: wrong}
    if is_time(kind) and kind != "duration":
        counted[SENTINEL] = f"_stands_for_none({cell}, {value})"
        counted[WRONG] = wrong = f"{wrong} AND NOT is_sentinel({cell})"
    if is_time(kind) and type == "TIMESTAMP WITH TIME ZONE":
        counted["offset"] = f"{cell} IS NOT NULL"
    if type != "VARCHAR":
        return counted
    if kind == "integer":
        counted[PADDED_WITH_ZEROS] = f"regexp_full_match({cell}, '{PADDED}')"
    if kind == "quantity":
        counted[DECIMAL_COMMA] = f"regexp_full_match({cell}, '{COMMA}')"
        counted[GROUPED] = f"regexp_full_match({cell}, '{GROUPS}')"
        counted["comparator"] = f"comparator_in({cell}) IS NOT NULL"
        counted["unit"] = f"unit_in({cell}) IS NOT NULL"
    elif kind == "time":
        usual = f"length({cell}) < 17 OR {cell} LIKE '____-__-__ __:__:__'"
        counted["offset"] = f"NOT ({usual}) AND regexp_full_match({cell}, '{OFFSET}')"
    elif zoned := [format for format in _formats(kind) if "%z" in format.lower()]:
        counted["offset"] = " OR ".join(
            f"try_strptime({cell}, {literal(format)}) IS NOT NULL" for format in zoned
        )
    if is_time(kind) and kind != "duration":
        day, clock = (
            f"split_part(trim({cell}), ' ', 1)",
            f"substr(trim({cell}), strpos(trim({cell}), ' ') + 1)",
        )
        for formats, part in ((DAYS, day), (CLOCKS, clock)):
            for format in formats:
                fits = f"_sane(try_strptime({part}, '{format}')) IS NOT NULL" if part is day else (
                       f"try_strptime({part}, '{format}') IS NOT NULL")  # fmt: skip
                counted[format] = f"CASE WHEN {wrong} THEN {fits} END"
    return counted


def likely_format(counts: dict[str, int]) -> str:
    """The likely format of the unreadable cells of a time column, for an error message, from the counted `notes`."""
    best = max((counts.get(day, 0) for day in DAYS), default=0)
    if best == 0:
        return ""
    clock = max(CLOCKS, key=lambda format: counts.get(format, 0))
    clock = f" {clock}" if counts.get(clock, 0) * 2 > best else ""
    alike = [f'"time {day}{clock}"' for day in DAYS if counts.get(day, 0) == best]
    return f" (cells like these are of the type {' or '.join(alike)})"


def _formats(kind: str) -> list[str]:
    head, _, rest = kind.partition(" ")
    return [format.strip() for format in rest.split(" | ")] if head == "time" and rest.strip() else []


def _strptime(text: str, format: str, zone: str) -> str:
    parsed = f"try_strptime(trim({text}), {literal(format)})"
    return f"({parsed}::TIMESTAMPTZ AT TIME ZONE {literal(zone)})" if "%z" in format.lower() else parsed


def _is_number(type: str) -> bool:
    return type.startswith("DECIMAL") or type in (
        "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT",
        "UHUGEINT", "FLOAT", "DOUBLE", "BOOLEAN")  # fmt: skip


def _macros(zone: str, sentinels: tuple[str, ...]) -> dict[str, str]:
    return _number_macros() | _time_macros(zone) | _sentinel_macros(sentinels)


def _number_macros() -> dict[str, str]:
    text = "CAST(cell AS VARCHAR)"
    plain = f"isfinite(TRY_CAST({text} AS DOUBLE)) AND NOT contains({text}, '_')"
    # Matching the whole cell is cheap and splitting it is not, so only matching cells are split.
    mixed = (
        f"NOT coalesce({plain}, false) AND regexp_full_match({text}, '{QUANTITY}') "
        f"AND NOT regexp_matches({text}, '{SEVERAL}')"
    )
    number = f"replace(replace(regexp_extract({text}, '{NUMBER}'), ',', ''), '−', '-')"
    sign = f"regexp_extract({text}, '{COMPARATOR}')"
    unit = f"trim(regexp_replace({text}, '^{BEFORE}{NUMBER}', ''), e' +\\t\\r\\n')"
    return {
        "_finite(number)": "CASE WHEN isfinite(number) THEN number END",
        # What is written as SQL writes it needs no match, which takes longer
        "whole_in(cell)": f"CASE WHEN CAST(TRY_CAST({text} AS BIGINT) AS VARCHAR) = {text} "
                          f"THEN TRY_CAST({text} AS BIGINT) "
                          f"WHEN regexp_full_match({text}, '{WHOLE}') THEN TRY_CAST({text} AS BIGINT) END",
        "number_in(cell)": f"CASE WHEN {plain} THEN TRY_CAST({text} AS DOUBLE) "
                           f"WHEN {mixed} THEN _finite(TRY_CAST({number} AS DOUBLE)) "
                           f"WHEN regexp_full_match({text}, '\\s*\\+{{1,5}}\\s*') THEN length(trim({text}))::DOUBLE "
                           "END",
        "comparator_in(cell)": f"CASE WHEN {mixed} THEN CASE {sign} WHEN '' THEN NULL WHEN '=' THEN NULL "
                               "WHEN '≤' THEN '<=' WHEN '=<' THEN '<=' WHEN '≥' THEN '>=' WHEN '=>' THEN '>=' "
                               f"WHEN '≈' THEN '~' ELSE {sign} END END",
        "unit_in(cell)": f"CASE WHEN {mixed} THEN nullif({unit}, '') END",
    }  # fmt: skip


def _time_macros(zone: str) -> dict[str, str]:
    text = "CAST(cell AS VARCHAR)"
    # The two usual forms are recognized by their shape, at a third of the cost.
    usual = "".join(
        f"WHEN {text} LIKE '{form}' AND {text} >= '1' AND right({text}, 1) <= '9' THEN {{}} "
        for form in ("____-__-__ __:__:__", "____-__-__")
    ).format(*2 * [f"nullif(TRY_CAST({text} AS TIMESTAMP), TIMESTAMP '10000-01-01 00:00:00')"])
    # As SQL reads it: a point, and an offset without a space before it
    tidy = (
        f"regexp_replace(regexp_replace(replace(trim({text}), ',', '.'), '\\s*(?:UTC|GMT)?([+-][0-9:]+)$', '\\1'), "
        "'\\s*(?:Z|z|UTC|GMT)$', 'Z')"
    )
    halves = f"regexp_replace({text}, '{HALF_DAY}', '\\1-\\2-\\3 \\4\\5 \\6M')"
    beyond = "TIMESTAMP '10000-01-01 00:00:00'"
    unusual = (
        f"WHEN regexp_full_match({text}, '{LOCAL}') "
        f"THEN nullif(TRY_CAST(replace(trim({text}), ',', '.') AS TIMESTAMP), {beyond}) "
        f"WHEN regexp_full_match({text}, '{OFFSET}') "
        f"THEN nullif(least(TRY_CAST({tidy} AS TIMESTAMPTZ) AT TIME ZONE {literal(zone)}, {beyond}), {beyond}) "
        f"WHEN regexp_full_match({text}, '{HALF_DAY}') "
        f"THEN try_strptime({halves}, ['%Y-%m-%d %I:%M:%S %p', '%Y-%m-%d %I:%M %p']) END"
    )
    return {
        "_sane(moment)": "CASE WHEN moment >= TIMESTAMP '1000-01-01' AND moment < TIMESTAMP '10000-01-01' "
                         "THEN moment END",
        "_moment_in(cell)": f"CASE {usual} {unusual}",
        # SQL copies the argument of a macro to every place where it stands, and an argument may be long: planning such
        # a query takes longer than what the usual forms save
        "_moment_in_words(cell)": f"CASE {unusual}",
    }  # fmt: skip


def _sentinel_macros(sentinels: tuple[str, ...]) -> dict[str, str]:
    days = ", ".join(literal(day) for day in sentinels)
    dates = ", ".join(f"DATE {literal(day)}" for day in sentinels)
    # By its text, because the offset of a time may lead to another day; a column's also by its value, because a date
    # may be written in other ways
    named = f"coalesce(list_contains([{days}], left(trim(CAST(cell AS VARCHAR)), 10)), false)"
    read = f"coalesce(CAST(moment AS DATE) IN ({dates}), false)"
    if not sentinels:
        return {
            "is_sentinel(cell)": "false",
            "_stands_for_none(cell, moment)": "false",
            "_meant(cell, moment)": "moment",
            "time_in(cell)": "_moment_in_words(cell)",
        }
    return {
        "is_sentinel(cell)": named,
        "_stands_for_none(cell, moment)": f"({named} OR {read})",
        "_meant(cell, moment)": f"CASE WHEN NOT ({named} OR {read}) THEN moment END",
        "time_in(cell)": f"CASE WHEN NOT {named} THEN _moment_in_words(cell) END",
    }
