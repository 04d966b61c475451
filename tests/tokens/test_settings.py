import pytest

from sequela.tokens.settings import TokenSettings


@pytest.mark.parametrize("edges", [(), (5, 5), (10, 5), (0, 5)])
def test_edges_must_rise(edges):
    with pytest.raises(ValueError, match="interval_edges"):
        TokenSettings(interval_edges=edges)


def test_comet_has_thirteen_intervals():
    assert len(TokenSettings().interval_edges) == 13
