import numpy as np
import polars as pl

from sequela.record.events import NEVER, Events, births
from sequela.record.schema import BIRTH
from sequela.record.timeline import STATIC


def frame(*rows):
    """Rows of (patient, minutes or None, code, value or None)."""
    return pl.DataFrame(
        [(p, None if m is None else m * 60_000_000, c, v) for p, m, c, v in rows],
        schema={"subject_id": pl.Int64, "time": pl.Int64, "code": pl.String, "numeric_value": pl.Float32},
        orient="row",
    ).with_columns(pl.col("time").cast(pl.Datetime("us")))


def rows_of(columns):
    return list(
        zip(
            columns.patient.tolist(),
            [None if time == STATIC else time // 60_000_000 for time in columns.time.tolist()],
            [columns.names[code] for code in columns.code],
            [None if np.isnan(number) else number for number in columns.number.tolist()],
            strict=True,
        )
    )


ROWS = [(4, None, "GENDER//F", None), (4, 5, "A", 1.5), (4, 6, "B", None), (7, 1, "A", -2.0)]


def test_a_frame_becomes_columns_and_nothing_is_lost():
    columns = Events.of(frame(*ROWS))
    assert (
        rows_of(columns) == ROWS
        and columns.starts.tolist() == [0, 3]
        and columns.names == ("A", "B", "GENDER//F")
    )
    assert columns.frame().equals(frame(*ROWS)) and Events.of(frame()).frame().equals(frame())
    assert len(Events.of(frame())) == 0 and Events.of(frame()).starts.tolist() == []


def payload(*cells):
    return pl.Series(cells, dtype=pl.String)


def test_payloads_survive_and_are_none_where_no_event_has_one():
    whole = frame(*ROWS).with_columns(
        text_value=payload(None, "note", None, "other"), media=payload(None, None, "a/1.png", None)
    )
    events = Events.of(whole)
    assert events.frame().equals(whole)
    assert events.take(np.array([3, 1])).text.to_list() == ["other", "note"]
    second = events.take(np.array([False, False, True, False]))
    assert second.media.to_list() == ["a/1.png"] and second.text is None
    recoded = events.recoded([("X", "Y"), ("B",), ()])
    assert recoded.text.to_list() == ["note", "note", None, "other", "other"]
    assert recoded.media.to_list() == [None, None, "a/1.png", None, None]
    bare = Events.of(whole.with_columns(text_value=payload(None, None, None, None)).drop("media"))
    assert bare.text is None and bare.media is None and bare.frame().equals(frame(*ROWS))


def test_a_code_with_several_targets_becomes_several_events_and_one_without_none():
    columns = Events.of(frame(*ROWS))
    recoded = columns.recoded([("X", "Y"), (), ("GENDER//F",)])
    assert rows_of(recoded) == [
        (4, None, "GENDER//F", None), (4, 5, "X", 1.5), (4, 5, "Y", 1.5), (7, 1, "X", -2.0), (7, 1, "Y", -2.0),
    ]  # fmt: skip
    renamed = columns.recoded([("X",), ("X",), ("GENDER//F",)])
    assert [code for _, _, code, _ in rows_of(renamed)] == ["GENDER//F", "X", "X", "X"]


def test_the_first_birth_counts_and_a_missing_one_is_never():
    columns = Events.of(
        frame((1, 9, BIRTH, None), (1, 10, BIRTH, None), (2, 1, "A", None), (3, -4, BIRTH, None))
    )
    assert births(columns).tolist() == [9 * 60_000_000, NEVER, -4 * 60_000_000]
    assert births(Events.of(frame((2, 1, "A", None)))).tolist() == [NEVER]


def test_a_birth_may_say_more():
    columns = Events.of(frame((1, 9, f"{BIRTH}//SELF_REPORTED", None), (2, 7, f"{BIRTH}DAY", None)))
    assert births(columns).tolist() == [9 * 60_000_000, NEVER]
