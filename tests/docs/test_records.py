"""What a study printed is what its record says."""

import json
import re
from pathlib import Path

import pytest

RECORDS = Path(__file__).resolve().parents[2] / "docs" / "records"


def missing(rows: list[dict], page: str) -> list[str]:
    """The claims whose value no line of the page gives beside their name."""
    lines = page.splitlines()

    def told(row: dict) -> bool:
        digits = re.escape(f"{row['value']:.3f}".removeprefix("0"))
        return any(row["claim"] in line and re.search(rf"(?<![\d.])0?{digits}(?!\d)", line) for line in lines)

    return [row["claim"] for row in rows if not told(row)]


@pytest.mark.parametrize("path", sorted(RECORDS.glob("*.json")), ids=lambda path: path.stem)
def test_tables_hold_what_the_study_wrote(path: Path) -> None:
    record = json.loads(path.read_text(encoding="utf-8"))
    assert {"command", "commit", "machine", "seeds", "rows"} <= set(record)
    assert missing(record["rows"], path.with_suffix(".md").read_text(encoding="utf-8")) == []


def test_a_number_that_was_typed_in_is_found() -> None:
    rows = [{"claim": "a/b AUROC", "value": 0.8701}, {"claim": "a/c AUROC", "value": 1.25}]
    assert missing(rows, "| a/b AUROC | .870 |\n| a/c AUROC | 1.250 |") == []
    assert missing(rows, "| a/b AUROC | .871 |\n| a/c AUROC | 11.250 |") == ["a/b AUROC", "a/c AUROC"]
