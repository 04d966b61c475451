"""A finding reads as a sentence, and survives its way through JSON."""

import json

from sequela.record.finding import Finding, as_values, findings_in


def test_shares_that_round_to_nothing_are_said_as_such():
    assert Finding(1, "rows", "odd", "Look.", of=10_000).words == "1 of 10,000 rows (under 0.1%): odd. Look."
    assert Finding(2, "rows", "odd", "Look.").words == "2 rows: odd. Look."


def test_findings_come_back_from_json():
    findings = [Finding(1, "rows", "odd", "Look.", 10, "table labs")]
    assert findings_in(json.loads(json.dumps({"findings": as_values(findings)}))) == findings
    assert findings_in({}) == [], "a folder of an older version"
