"""Edits by hand: what is put in, taken out and replaced, and that nothing else changes."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sequela.errors import InputError
from sequela.record.duration import DAY, HOUR, MINUTE
from sequela.record.edit import NO_EDITS, Addition, Edits, Removal, Replacement, edited
from sequela.record.events import Events

ROWS = [
    (1, None, "GENDER//F", None),
    (1, -9000, "MEDS_BIRTH", None),
    (1, 1, "LAB//A", 1.0),
    (1, 2, "DRUG//X", None),
    (1, 3, "LAB//A", 3.0),
    (1, 3, "LAB//A", 4.0),
    (1, 5, "LAB//A", 5.0),
    (1, 6, "DRUG//X", None),
    (2, 2, "LAB//B", 7.0),
    (2, 4, "DRUG//Y", None),
    (3, None, "GENDER//M", None),
    (3, -9000, "MEDS_BIRTH", None),
    (3, 5, "LAB//A", 2.0),
]
AT = np.array([5, 5, 5]) * DAY


def frame(rows=ROWS) -> pl.DataFrame:
    schema = {"subject_id": pl.Int64, "time": pl.Float64, "code": pl.String, "numeric_value": pl.Float32}
    events = pl.DataFrame(rows, schema=schema, orient="row")
    return events.with_columns((pl.col("time") * DAY).cast(pl.Int64).cast(pl.Datetime("us")))


def rows_of(columns: Events) -> list[tuple]:
    days = pl.col("time").to_physical() / DAY
    return columns.frame().with_columns(time=days).rows()


def edit(**words) -> tuple[list[tuple], np.ndarray]:
    columns, found = edited(Events.of(frame()), AT, Edits.parse(**words))
    return rows_of(columns), found


def test_no_edits_change_nothing():
    rows, found = edit()
    assert rows == ROWS and found.shape == (0, 3) and not NO_EDITS


def test_payloads_stay_with_their_events_and_an_addition_has_none():
    noted = frame().with_columns(text_value=pl.format("{}", pl.int_range(pl.len())))
    edits = Edits.parse(add=["DRUG//Z @ 12 hours"], remove=["DRUG//X"], set=["LAB//B = 8"])
    events, _ = edited(Events.of(noted), AT, edits)
    assert events.text.to_list() == ["0", "1", "2", "4", "5", None, "6", "7", "8", "9", None, "10", "11", "12"]
    codes = [code for _, _, code, *_ in rows_of(events.take(events.text.is_not_null().to_numpy()))]
    assert codes == [ROWS[int(text)][2] for text in events.text.drop_nulls()]


def test_an_addition_lies_before_the_prediction_time_of_those_who_have_a_history():
    rows, found = edit(add=["DRUG//Z @ 12 hours", "LAB//A = 9.5 @ 2 days"])
    assert (
        rows
        == [
            *ROWS[:6],
            (1, 3, "LAB//A", 9.5),  # after what was there at that time
            (1, 4.5, "DRUG//Z", None),
            *ROWS[6:9],
            (2, 3, "LAB//A", 9.5),
            ROWS[9],
            (2, 4.5, "DRUG//Z", None),
            *ROWS[10:],  # patient 3 has nothing dated before
        ]
    )
    assert found.tolist() == [[True, True, False]] * 2


def test_an_addition_before_the_record_begins_is_refused():
    with pytest.raises(
        InputError, match=r"add DRUG//Z @ 84 hours: 1 of 2 histories .*: add it closer to the prediction time"
    ) as told:
        edit(add=["DRUG//Z @ 3.5 days"])
    assert "2000" not in str(told.value)
    assert (2, 2, "DRUG//Z", None) in edit(add=["DRUG//Z @ 3 days"])[0]  # at the first event itself


def test_removals_are_of_a_code_or_a_prefix_and_of_a_time():
    rows, found = edit(remove=["LAB//*"])
    assert rows == [ROWS[i] for i in (0, 1, 3, 6, 7, 9, 10, 11, 12)]
    assert found.tolist() == [[True, True, False]]
    assert edit(remove=["LAB//A @ 3 days"])[0] == [row for i, row in enumerate(ROWS) if i not in (4, 5)]
    assert edit(remove=["LAB//A @ 2 days"])[0] == [row for i, row in enumerate(ROWS) if i not in (4, 5)]
    assert edit(remove=["LAB//A @ 47 hours"])[0] == ROWS
    assert edit(remove=["LAB//"])[0] == ROWS  # no star, no prefix
    assert edit(remove=["GENDER//*"])[0] == [row for row in ROWS if "GENDER" not in row[2]]
    rows, found = edit(remove=["NO//SUCH"])
    assert rows == ROWS and not found.any()


def test_a_replacement_is_of_the_latest_value_at_its_time():
    rows, found = edit(set=["LAB//A = 1.5"])
    assert rows == [*ROWS[:4], (1, 3, "LAB//A", 1.5), *ROWS[6:]]  # two values at that time become one
    assert found.tolist() == [[True, False, False]]
    assert edit(set=["DRUG//X = 2"])[0] == ROWS  # never with a value: nothing to replace


def test_removals_come_first_then_values_then_additions():
    rows, found = edit(remove=["LAB//A @ 2 days"], set=["LAB//A = 8"], add=["LAB//A = 2 @ 1 hour"])
    assert [row for row in rows if row[0] == 1 and row[2] == "LAB//A"] == [
        (1, 1, "LAB//A", 8.0),
        (1, pytest.approx(5 - 1 / 24), "LAB//A", 2.0),
        (1, 5, "LAB//A", 5.0),
    ]
    assert found.tolist() == [[True, False, False], [True, False, False], [True, True, False]]


def test_a_patient_may_lose_everything():
    columns, found = edited(Events.of(frame(ROWS[8:10])), AT[:1], Edits.parse(remove=["LAB//*", "DRUG//*"]))
    assert len(columns) == 0 and found.all()
    again, found = edited(columns, AT[:0], Edits.parse(add=["DRUG//Z @ 1 hour"]))
    assert len(again) == 0 and found.shape == (1, 0)


def test_edits_are_said_as_they_are_read():
    words = {
        "remove": ["LAB//A", "ICD10CM//E11* @ 30 days"],
        "set": ["LAB//50912//mg/dL = 1.25"],
        "add": ["DRUG//Z @ 1 hour", "a = b = -2 @ 90 minutes"],
    }
    edits = Edits.parse(**words)
    assert edits == Edits(
        (Removal("LAB//A"), Removal("ICD10CM//E11*", 30 * DAY)),
        (Replacement("LAB//50912//mg/dL", 1.25),),
        (Addition("DRUG//Z", HOUR), Addition("a = b", 90 * MINUTE, -2.0)),
    )
    said = [f"{verb} {text}" for verb, texts in words.items() for text in texts]
    assert [str(one) for one in edits.in_order] == said
    assert bool(edits) and Edits.parse(set=["LAB//A=1.5"]) == Edits.parse(set=[" LAB//A = 1.5"])


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ({"add": ["DRUG//Z"]}, "has no time: write 'CODE @ 1 hour'"),
        ({"add": ["DRUG//Z @ soon"]}, "the time before the prediction is 'soon'"),
        ({"add": ["DRUG//Z @ 0 days"]}, "write a time above 0"),
        ({"add": ["DRUG//* @ 1 day"]}, "name one whole code"),
        ({"add": [" @ 1 day"]}, "name one whole code"),
        ({"add": ["LAB//A = nan @ 1 day"]}, "a finite number within float32"),
        ({"add": ["LAB//A = 1e39 @ 1 day"]}, "a finite number within float32"),
        ({"add": ["MEDS_DEATH @ 1 day"]}, "MEDS_DEATH cannot be added"),
        ({"add": ["FOLLOW_UP//END @ 1 day"]}, "cannot be added"),
        ({"remove": ["*"]}, "names no code"),
        ({"remove": ["LAB//A @ 0 days"]}, "a time above 0"),
        ({"remove": ["LAB//A @ always"]}, "how far back is 'always'"),
        ({"set": ["LAB//A"]}, "has no number"),
        ({"set": ["LAB//A = high"]}, "has no number"),
        ({"set": ["LAB//A = 1 @ 1 day"]}, "names a time"),
        ({"set": ["LAB//* = 1"]}, "name one whole code"),
    ],
)
def test_what_is_no_edit_is_refused(words, complaint):
    with pytest.raises(InputError, match=r"^[^\n]+$") as told:
        Edits.parse(**words)
    assert complaint in str(told.value)


EVENT = st.tuples(
    st.integers(0, 3),
    st.integers(0, 20),
    st.sampled_from(["A", "B", "AB"]),
    st.sampled_from([None, 1.0, 2.0]),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(EVENT, max_size=30), st.lists(st.integers(0, 21), min_size=4, max_size=4), st.data())
def test_nothing_at_or_after_the_prediction_time_changes_and_histories_stay_sorted(rows, days, data):
    columns = Events.of(frame(rows).sort("subject_id", "time", maintain_order=True))
    at = np.array(days)[columns.patient[columns.starts]] * DAY
    pattern = data.draw(st.sampled_from(["A", "A*", "B*", "C"]))
    window = data.draw(st.sampled_from(["", " @ 2 days"]))
    words = {"remove": [pattern + window], "set": ["B = 5"], "add": ["C = 3 @ 1 minute"]}
    changed, found = edited(
        columns, at, Edits.parse(**{k: v for k, v in words.items() if data.draw(st.booleans())})
    )

    def split(some):
        late = {patient: day * DAY for patient, day in zip(range(4), days, strict=True)}
        after = some.time >= np.array([late[patient] for patient in some.patient], np.int64)
        return rows_of(some.take(after)), some.take(~after)

    assert split(changed)[0] == split(columns)[0]
    order = np.lexsort((np.arange(len(changed)), changed.time, changed.patient))
    assert (order == np.arange(len(changed))).all()
    touched = set(columns.patient[columns.starts][found.any(0)].tolist())
    untouched = [row for row in rows_of(columns) if row[0] not in touched]
    assert untouched == [row for row in rows_of(changed) if row[0] not in touched]


def test_the_same_removal_twice_is_one_and_the_same_addition_is_two():
    edits = Edits.parse(
        remove=["DRUG//X", "DRUG//X"], set=["LAB//B = 8", "LAB//B = 8.0"], add=["DRUG//Z @ 1 hour"] * 2
    )
    assert (len(edits.remove), len(edits.replace), len(edits.add)) == (1, 1, 2)
