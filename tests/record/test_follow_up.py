"""Follow-up that depends on the outcome is found, and follow-up that does not is none of anybody's business."""

import pytest

from sequela.record.events import Events
from sequela.record.follow_up import follow_up, follow_up_findings
from sequela.record.schema import BIRTH, DEATH, FOLLOW_UP_END
from tests.task.conftest import make_events

DIES_LATE = [(0, "VISIT"), (30, DEATH), (30, FOLLOW_UP_END)]
DIES_IN_HOSPITAL = [(0, "VISIT"), (0.9, DEATH)]
STOPS = [(0, "VISIT")]
ENDS_WITH_A_VISIT = [(0, "VISIT"), (0.5, FOLLOW_UP_END)]
FOLLOWED = [(0, "VISIT"), (30, FOLLOW_UP_END)]


def counted(*patients: list[tuple]) -> dict[str, int]:
    everyone = [(None, "GENDER//F"), (-9999, BIRTH)]
    rows = [(number, *row) for number, own in enumerate(patients) for row in everyone + own]
    return follow_up(Events.of(make_events(rows)))


def test_who_is_known_to_be_silent_is_counted():
    counts = counted(DIES_LATE, DIES_IN_HOSPITAL, STOPS, ENDS_WITH_A_VISIT, FOLLOWED, [], [(5, FOLLOW_UP_END)])
    assert counts == {"dead": 2, "others": 5, "late": 1, "stated": 3, "silent": 1}
    billed = [(0, "VISIT"), (30, DEATH), (40, "BILL")]
    assert counted(billed)["late"] == 1, "what comes after death does not hide the silence before"
    assert follow_up(Events.of(make_events([]))) == dict.fromkeys(counts, 0)


@pytest.mark.parametrize(
    ("dead", "others", "words"),
    [
        (DIES_LATE, STOPS, "20 of 20 patients who do not die (100%): a record that does not go on beyond the last "
         "event, while 10 of 10 deaths come after more than a day without one"),
        (DIES_LATE, ENDS_WITH_A_VISIT, "20 of 20 patients who do not die (100%): a record that does not go on"),
        (DIES_IN_HOSPITAL, STOPS, "20 of 20 patients who do not die (100%): no stated end of follow-up, so "),
        (DIES_IN_HOSPITAL, ENDS_WITH_A_VISIT, None),
        (DIES_LATE, FOLLOWED, None),
        (DIES_IN_HOSPITAL, FOLLOWED, None),
    ],
)  # fmt: skip
def test_what_is_said_of_it(dead, others, words):
    said = [finding.words for finding in follow_up_findings(counted(*[dead] * 10, *[others] * 20), "patients")]
    assert len(said) == (words is not None) and all(sentence.startswith(words) for sentence in said)
    assert not list(follow_up_findings(counted(*[dead] * 3, *[others] * 3), "patients")), "too few to tell"
