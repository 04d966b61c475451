import pytest

from sequela.record.ingest.mapping_file import load_mapping, shipped


@pytest.mark.parametrize("name", shipped())
def test_a_source_whose_dates_are_made_up_or_shifted_says_so(name):
    metadata = load_mapping(name).metadata
    notes = " ".join(metadata.get("notes", [])).lower()
    unreal = any(word in notes for word in ("shifted", "no calendar dates", "no dates in", "minute 0 of every stay is"))
    assert (metadata.get("real_dates") is False) == unreal, name
