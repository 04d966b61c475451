import pytest

from sequela.tokens.ehr.settings import TokenSettings


@pytest.mark.parametrize("edges", [(), (5, 5), (10, 5), (0, 5), (1, 5.5)])
def test_edges_must_rise(edges):
    with pytest.raises(ValueError, match="interval_edges"):
        TokenSettings(interval_edges=edges)


def test_comet_has_thirteen_intervals():
    assert len(TokenSettings().interval_edges) == 13


@pytest.mark.parametrize(
    "wrong", [{"age_band_years": 0}, {"thin_minutes": -5}, {"quantiles": 1}, {"min_patients": 0}]
)
def test_what_cannot_be_tokenized_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TokenSettings(**wrong)
