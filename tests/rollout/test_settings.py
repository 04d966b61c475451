import pytest

from sequela.rollout.settings import SimulateSettings


def test_the_default_samples_from_the_model_as_it_is():
    assert SimulateSettings().temperature == 1.0


@pytest.mark.parametrize(
    "wrong", [{"rollouts": 0}, {"limit": 0}, {"rows": 0}, {"temperature": 0.0}, {"seed": -1}]
)
def test_what_cannot_be_simulated_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SimulateSettings(**wrong)
