"""What a what-if prints: the counts, the difference, and what it is not."""

import pytest

from sequela.serve.pages.whatif import print_whatif
from sequela.task.answers.contrast import MEANING

ONE = {
    "kind": "binary", "unit": "risk", "estimator": "scope", "patients": 400, "changed": 295, "compared": 295,
    "unanswered": 0, "as_recorded": 0.142, "what_if": 0.25, "standard_error": 0.0013, "variance_removed": 0.597,
    "difference": {"value": 0.108, "low": 0.104, "high": 0.112}, "rollouts": 5900,
}  # fmt: skip
NOTHING = ONE | dict.fromkeys(("as_recorded", "what_if", "difference", "standard_error", "variance_removed"))
NOTHING |= {"changed": 0, "compared": 0}


def printed(capsys: pytest.CaptureFixture, everyone: bool = False, **tasks: dict) -> str:
    edits = {"set LAB//A = 1.9": 1400, "remove LAB//B": 0}
    print_whatif({"meaning": MEANING, "edits": edits, "everyone": everyone, "tasks": tasks})
    return " ".join(capsys.readouterr().out.split())


def test_the_table_and_the_sentence(capsys: pytest.CaptureFixture) -> None:
    text = printed(capsys, death_5y=ONE)
    assert "set LAB//A = 1.9: 1,400 histories" in text
    assert "remove LAB//B: in no history, so it changes nothing" in text
    assert "295 of 400 0.142 0.250 +0.108 [+0.104, +0.112] 0.001 60 %" in text
    assert MEANING in text and "whose history the model reads differently" in text
    assert "over all patients" in printed(capsys, everyone=True, death_5y=ONE)


def test_nothing_to_compare_is_said(capsys: pytest.CaptureFixture) -> None:
    text = printed(capsys, death_5y=NOTHING, other=ONE | {"unanswered": 7})
    assert "death_5y: the edits change nothing that the model reads" in text
    assert "other: 7 have no answer" in text
