"""Whatever a name or a value holds, SQL reads the same."""

from pathlib import Path

import duckdb
import pytest

from sequela.errors import InputError
from sequela.record.ingest.tables.sql import literal, paths_for_duckdb, plain_path, quoted, run_sql


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


def test_a_path_that_is_a_pattern_is_reached_through_a_link(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("run[1]/x", "run1/x", "~/x", "a b/x"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(f"name\n{name}\n")
    paths = [tmp_path / "run[1]/x", Path("~/x"), Path("a b/x")]
    assert plain_path(paths[2]) == paths[2] and plain_path(paths[0]).name == "x"
    sql = f"SELECT * FROM read_csv({paths_for_duckdb(paths)}, header = true)"
    assert duckdb.connect().sql(sql).fetchall() == [("run[1]/x",), ("~/x",), ("a b/x",)]
