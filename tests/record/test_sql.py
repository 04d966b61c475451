"""Whatever a name or a value holds, SQL reads the same."""

import duckdb
import pytest

from sequela.record.sql import literal, quoted


@pytest.mark.parametrize("word", ["a", "it's", 'say "x"', "'; DROP TABLE t; --", "ü\n", ""])
def test_texts_survive(word):
    assert duckdb.connect().sql(f"SELECT {literal(word)}").fetchall() == [(word,)]
    if word:
        assert duckdb.connect().sql(f"SELECT 1 AS {quoted(word)}").columns == [word]


def test_other_values():
    assert duckdb.connect().sql(f"SELECT {literal(1.5)}, {literal(None)}, {literal(True)}").fetchall() == [
        (1.5, None, True)
    ]
