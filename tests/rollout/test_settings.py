from sequela.rollout.settings import SimulateSettings


def test_the_default_samples_from_the_model_as_it_is():
    assert SimulateSettings().temperature == 1.0
