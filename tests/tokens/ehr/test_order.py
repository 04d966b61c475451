import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sequela.record.events import Events
from sequela.record.timeline import STATIC
from sequela.tokens.ehr.code import order_rank
from sequela.tokens.ehr.order import in_token_order, moving
from sequela.tokens.ehr.settings import TokenSettings

NAMES = (
    "A",
    "FOLLOW_UP//END",
    "HOSPITAL_ADMISSION//X",
    "HOSPITAL_DISCHARGE//X",
    "MEDS_BIRTH",
    "MEDS_DEATH",
    "Z",
)
rows = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(0, 6), st.sampled_from([np.nan, -1.0, 2.0])),
    max_size=40,
)


def columns_of(found):
    found = sorted(found, key=lambda row: row[:2])
    patient, time, code, number = zip(*found, strict=True) if found else ((), (), (), ())
    return Events(
        np.array(patient, np.int64),
        np.array(time, np.int64),
        np.array(code, np.int32),
        np.array(number, np.float32),
        NAMES,
    )


def listed(columns):
    number = np.where(np.isnan(columns.number), -np.inf, columns.number)
    return list(zip(columns.patient, columns.time, columns.code, number, strict=True))


@settings(deadline=None)
@given(rows)
def test_the_order_is_that_of_a_plain_sort(found):
    columns = columns_of(found)
    expected = sorted(
        listed(columns), key=lambda row: (row[0], row[1], order_rank(NAMES[row[2]]), NAMES[row[2]], row[3])
    )
    assert listed(in_token_order(columns)) == expected


def test_static_events_births_and_ends_of_follow_up_do_not_move():
    columns = columns_of([(0, STATIC, 0, np.nan), (0, 1, 4, np.nan), (0, 2, 0, 1.0), (0, 3, 1, np.nan)])
    assert [NAMES[code] for code in moving(columns, TokenSettings()).code] == ["A"]
