"""Whatever a name or a value holds, SQL reads the same."""

import duckdb
import pytest

from sequela.errors import InputError
from sequela.record.ingest.tables.sql import literal, quoted, run_sql


@pytest.mark.parametrize("word", ["a", "it's", 'say "x"', "'; DROP TABLE t; --", "ü\n", ""])
def test_texts_survive(word):
    assert duckdb.connect().sql(f"SELECT {literal(word)}").fetchall() == [(word,)]
    if word:
        assert duckdb.connect().sql(f"SELECT 1 AS {quoted(word)}").columns == [word]


def test_other_values():
    assert duckdb.connect().sql(f"SELECT {literal(1.5)}, {literal(None)}, {literal(True)}").fetchall() == [
        (1.5, None, True)
    ]
    numbers = f"SELECT {literal(float('inf'))}, isnan({literal(float('nan'))})"
    assert duckdb.connect().sql(numbers).fetchall() == [(float("inf"), True)]


def test_too_little_memory_is_not_the_mappings_fault():
    con = duckdb.connect(config={"memory_limit": "20MB", "max_temp_directory_size": "0KB", "threads": 1})
    with pytest.raises(InputError, match=r"x: more memory .* increase `memory`"):
        run_sql(con, "SELECT list(range) FROM range(20000000)", "x")
    run_sql(con, "SELECT count(*) FROM range(20000000)", "x")
