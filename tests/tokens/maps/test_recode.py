import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sequela.errors import InputError
from sequela.record.events import Events
from sequela.tokens.maps.code_map import CodeMap
from sequela.tokens.maps.recode import load_maps, load_same_maps, recoded, recoded_events, save_maps

DRUGS = CodeMap("drugs", (("RX//1", "ATC//A"), ("RX//2", "ATC//A"), ("RX//2", "ATC//B")))
RENAMED = CodeMap("renamed", (("ATC//B", "OLD//B"),))


def events_of(codes: list[str]) -> pl.DataFrame:
    rows = [(n // 3, n % 3 * 1_000_000, code, float(n)) for n, code in enumerate(codes)]
    schema = {
        "subject_id": pl.Int64,
        "time": pl.Datetime("us"),
        "code": pl.String,
        "numeric_value": pl.Float32,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def test_a_code_with_two_targets_becomes_two_rows_that_differ_in_nothing_else():
    events = events_of(["LAB//A", "RX//2", "RX//1", "RX//9"])
    out = recoded_events(events, (DRUGS, RENAMED))
    assert out["code"].to_list() == ["LAB//A", "ATC//A", "OLD//B", "ATC//A", "RX//9"]
    assert out.drop("code").rows() == [events.drop("code").row(n) for n in (0, 1, 1, 2, 3)]
    assert out.schema == events.schema


@pytest.mark.parametrize("maps", [(), (DRUGS,)])
def test_nothing_is_copied_where_no_code_is_concerned(maps):
    events = events_of(["LAB//A", "LAB//RX//1"])
    assert recoded_events(events, maps) is events
    columns = Events.of(events)
    assert recoded(columns, maps) is columns
    known_head = events_of(["RX//9"])
    assert recoded_events(known_head, maps) is known_head
    assert recoded_events(events_of(["RX//1"]), (DRUGS,))["code"].to_list() == ["ATC//A"]  # negative control


@given(st.lists(st.sampled_from(["LAB//A", "RX//1", "RX//2", "RX//3", "ATC//B"]), max_size=12))
def test_a_frame_is_translated_like_columns(codes):
    events = events_of(codes)
    one, other = (
        Events.of(recoded_events(events, (DRUGS, RENAMED))),
        recoded(Events.of(events), (DRUGS, RENAMED)),
    )
    assert [one.names[row] for row in one.code] == [other.names[row] for row in other.code]
    for field in ("patient", "time", "number"):
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field))


def test_codes_may_be_categories():
    events = events_of(["RX//1", "LAB//A"]).cast({"code": pl.Categorical})
    assert recoded_events(events, (DRUGS,))["code"].to_list() == ["ATC//A", "LAB//A"]


def test_maps_are_kept_in_a_folder(tmp_path):
    identities = save_maps((DRUGS, RENAMED), tmp_path)
    assert list(identities) == ["drugs", "renamed"]
    assert load_maps(("renamed", "drugs"), tmp_path) == (RENAMED, DRUGS)
    assert load_same_maps(identities, tmp_path) == (DRUGS, RENAMED)


def test_an_edited_and_a_missing_map_are_refused(tmp_path):
    identities = save_maps((DRUGS, RENAMED), tmp_path)
    CodeMap("drugs", DRUGS.rows[:-1]).save(tmp_path / "map-drugs.parquet")
    with pytest.raises(InputError, match=r"map-drugs\.parquet was edited"):
        load_same_maps(identities, tmp_path)
    (tmp_path / "map-renamed.parquet").unlink()
    with pytest.raises(InputError, match=r"map-renamed\.parquet is missing"):
        load_same_maps({"renamed": "0"}, tmp_path)
