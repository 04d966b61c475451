"""Timelines: cutting, joining, and where they end."""

import datetime as dt
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sequela.record.timeline import STATIC, Timeline, timelines


def timeline(times: list[int], end: int | None = None, patient: int = 7) -> Timeline:
    codes = np.array([f"CODE//{i}" for i in range(len(times))], dtype=object)
    return Timeline(patient, np.array(times, np.int64), codes, np.arange(len(times), dtype=np.float32), end)


def same(a: Timeline, b: Timeline) -> bool:
    columns = ("time", "code", "number")
    return a.patient == b.patient and all(np.array_equal(getattr(a, c), getattr(b, c)) for c in columns)


def test_history_is_strictly_before_and_keeps_static_events():
    whole = timeline([STATIC, 10, 20, 20, 30], end=40)
    assert whole.until(20).time.tolist() == [STATIC, 10]
    assert whole.since(20).time.tolist() == [20, 20, 30]
    assert whole.until(20).end == 20, "what is known at 20 says nothing of later"
    assert whole.until(50).end == 40
    assert whole.since(20).end == 40


def test_events_before_1970_are_dated_and_not_static():
    assert timeline([STATIC, -5, -1]).until(-1).time.tolist() == [STATIC, -5]


@settings(deadline=None, derandomize=True)
@given(st.lists(st.integers(-(10**15), 10**15), max_size=12), st.integers(-(10**15), 10**15), st.booleans())
def test_a_cut_timeline_is_whole_again_when_joined(times, at, with_static):
    whole = timeline(([STATIC] if with_static else []) + sorted(times), end=10**15)
    joined = whole.until(at).then(whole.since(at))
    assert same(joined, whole)
    assert joined.end == whole.end


def test_the_later_part_decides_the_end():
    assert timeline([1], end=5).then(timeline([6], end=9)).end == 9
    assert timeline([1], end=5).then(timeline([], end=None)).end == 5


def test_joining_in_the_wrong_order_is_refused():
    with pytest.raises(AssertionError):
        timeline([10]).then(timeline([5]))
    with pytest.raises(AssertionError):
        timeline([1]).then(timeline([2], patient=8))


def test_payloads_are_cut_and_joined_with_their_events():
    noted = replace(timeline([1, 2], end=9), text=np.array(["a", None], object))
    seen = replace(timeline([3], end=9), media=np.array(["1.png"], object))
    joined = noted.then(seen)
    assert joined.text.tolist() == ["a", None, None] and joined.media.tolist() == [None, None, "1.png"]
    assert joined.until(2).text.tolist() == ["a"] and joined.since(3).media.tolist() == ["1.png"]
    assert timeline([1]).then(timeline([2])).text is None


def test_a_frame_becomes_one_timeline_a_patient():
    day = dt.datetime(2020, 1, 1)
    events = pl.DataFrame(
        {
            "subject_id": [3, 3, 3, 5, 9, 9],
            "time": [None, day, day.replace(month=2), None, day, day.replace(day=2)],
            "code": ["GENDER//F", "LAB//X", "FOLLOW_UP//END", "GENDER//M", "LAB//X", "LAB//Y"],
            "numeric_value": [None, 1.5, None, None, 2.0, None],
        },
        schema={
            "subject_id": pl.Int64,
            "time": pl.Datetime("us"),
            "code": pl.String,
            "numeric_value": pl.Float32,
        },
    )
    first, static_only, last = timelines(events)
    stamp = 1_577_836_800_000_000
    assert (first.patient, len(first), first.time.tolist()[:2]) == (3, 3, [STATIC, stamp])
    assert first.code.tolist() == ["GENDER//F", "LAB//X", "FOLLOW_UP//END"]
    assert first.number.dtype == np.float32 and first.number[1] == 1.5 and np.isnan(first.number[0])
    assert first.end == stamp + 31 * 86_400_000_000
    assert static_only.end is None
    assert last.end == stamp + 86_400_000_000, "without FOLLOW_UP//END: the last event"
    assert first.text is None and first.media is None
    noted = events.with_columns(text_value=pl.Series(["x", None, None, None, "y", None]))
    assert [one.text.tolist() for one in timelines(noted)] == [["x", None, None], [None], ["y", None]]
    assert list(timelines(events.clear())) == []


def test_an_end_of_follow_up_may_say_why():
    day = dt.datetime(2020, 1, 1)
    rows = [(1, day, "FOLLOW_UP//END//MOVED"), (1, day + dt.timedelta(1), "A"), (2, day, "FOLLOW_UP//ENDED")]
    schema = {"subject_id": pl.Int64, "time": pl.Datetime("us"), "code": pl.String}
    events = pl.DataFrame(rows, schema=schema, orient="row").with_columns(numeric_value=pl.lit(None, pl.Float32))
    ends = [timeline.end for timeline in timelines(events)]
    assert ends == [int(day.replace(tzinfo=dt.UTC).timestamp()) * 10**6] * 2
