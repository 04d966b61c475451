"""Parts hold whole patients and all rows; scratch goes away; a database keeps to its memory."""

import duckdb
import polars as pl
import pytest

from sequela.errors import InputError
from sequela.record.ingest.spill import Spill, database_in, parts_for, scratch_in

ROWS = "SELECT range % 10 AS subject_id, range AS n FROM range(1000)"


def test_enough_parts_and_never_none():
    assert [parts_for(rows, 10) for rows in (0, 1, 10, 11, 100, 101)] == [1, 1, 1, 2, 10, 11]


@pytest.mark.parametrize("parts", [1, 3])
def test_every_row_is_in_one_part_and_every_patient_in_one(tmp_path, parts):
    spill = Spill(tmp_path / "it's", parts)
    spill.folder.mkdir()
    con = duckdb.connect()
    con.execute(spill.write(ROWS, "rule=1"))
    assert con.sql(f"SELECT sum(n) FROM {spill.all('rule=1')}").fetchall() == [(499_500,)]
    patients = []
    for part in range(parts):
        own = [pl.read_parquet(path, hive_partitioning=False) for path in spill.part("rule=*", part)]
        patients += pl.concat(own)["subject_id"].unique().to_list() if own else []
    assert sorted(patients) == list(range(10))


def test_a_row_without_patient_is_kept_and_no_row_is_no_file(tmp_path):
    spill, con = Spill(tmp_path, 3), duckdb.connect()
    con.execute(spill.write("SELECT NULL::BIGINT AS subject_id", "rule=1"))
    assert con.sql(f"SELECT count(*) FROM {spill.all('rule=1')}").fetchall() == [(1,)]
    con.execute(spill.write("SELECT 1 AS subject_id WHERE false", "rule=2"))
    assert spill.all("rule=2") is None


def test_scratch_goes_and_takes_a_folder_that_was_not_there_with_it(tmp_path):
    with scratch_in(tmp_path / "out") as scratch:
        assert scratch.is_dir() and scratch.parent == (tmp_path / "out").resolve()
    assert list((tmp_path / "out").iterdir()) == []
    (tmp_path / "old").mkdir()
    for out in ("new", "old"):
        with pytest.raises(KeyError), scratch_in(tmp_path / out):
            raise KeyError
    assert not (tmp_path / "new").exists() and (tmp_path / "old").exists()


def test_a_database_overflows_to_disk_and_keeps_to_its_memory(tmp_path):
    with database_in(tmp_path, "60MB") as con:
        con.execute("SET threads = 1")
        con.execute("CREATE TABLE t AS SELECT range AS n, md5(range::VARCHAR) AS word FROM range(1_000_000)")
        assert con.sql("SELECT count(DISTINCT word) FROM t").fetchall() == [(1_000_000,)]


def test_memory_needs_a_unit(tmp_path):
    with pytest.raises(InputError, match="`memory` is 'much'"), database_in(tmp_path, "much"):
        pass


def test_a_database_draws_nothing(tmp_path):
    with database_in(tmp_path, "100MB") as con:
        assert con.sql("SELECT current_setting('enable_progress_bar')").fetchall() == [(False,)]
