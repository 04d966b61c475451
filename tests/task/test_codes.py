import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from sequela.task.codes import matches, matches_code


@given(
    st.lists(st.text("AB/*.", min_size=1, max_size=4), max_size=6),
    st.lists(
        st.text("AB/.", min_size=1, max_size=3).flatmap(lambda p: st.sampled_from([p, p + "*"])), max_size=3
    ),
)
def test_frames_and_single_codes_match_alike(codes, patterns):
    frame = pl.DataFrame({"code": codes}, schema={"code": pl.String})
    fast = frame.select(matches(tuple(patterns)))["code"].to_list()
    assert fast == [matches_code(code, tuple(patterns)) for code in codes]
