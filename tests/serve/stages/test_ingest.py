"""A changed mapping makes the dataset anew."""

from pathlib import Path

import sequela


def test_an_ingest_runs_again_where_its_mapping_or_the_one_it_extends_changes(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/people.csv").write_text("pid,sex\n1,F\n2,M\n")
    base = """
        name = "base"
        [tables.people]
        files = "people.csv"
        columns = { pid = "integer", sex = "text" }
        [[events]]
        table = "people"
        patient = "pid"
        code = "'GENDER//' || sex"
    """
    (tmp_path / "base").write_text(base)
    (tmp_path / "heir.toml").write_text('name = "heir"\nextends = "base"')

    def skipped(source: str) -> bool:
        return sequela.ingest(tmp_path / source, tmp_path / "raw", tmp_path / f"out-{source}")["skipped"]

    assert [skipped("base"), skipped("base"), skipped("heir.toml"), skipped("heir.toml")] == [False, True] * 2
    (tmp_path / "base").write_text(base.replace("GENDER//", "SEX//"))
    assert [skipped("base"), skipped("base"), skipped("heir.toml"), skipped("heir.toml")] == [False, True] * 2
