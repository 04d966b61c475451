import pytest

from sequela.rollout.settings import ESTIMATORS, SimulateSettings


def test_the_default_samples_from_the_model_as_it_is():
    settings = SimulateSettings()
    assert settings.temperature == 1.0 and settings.estimator == "scope"
    assert settings.target_error is settings.threshold is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"rollouts": 0}, {"limit": 0}, {"rows": 0}, {"temperature": 0.0}, {"temperature": 1e-9}, {"seed": -1},
        {"precision": "fp16"},
        {"target_error": 0.0, "estimator": "auto"}, {"target_error": -1.0, "estimator": "auto"},
        {"overdispersion": 0.0, "estimator": "auto"},
        {"threshold": 0.0, "estimator": "auto"}, {"threshold": 1.0, "estimator": "auto"},
        {"estimator": "best"},
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_simulated_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SimulateSettings(**wrong)


@pytest.mark.parametrize("estimator", [one for one in ESTIMATORS if one != "auto"])
@pytest.mark.parametrize("aim", ["target_error", "threshold", "overdispersion"])
def test_an_aim_is_for_auto_alone(estimator, aim):
    with pytest.raises(ValueError, match="for the estimator auto"):
        SimulateSettings(estimator=estimator, **{aim: 0.1})
    assert getattr(SimulateSettings(estimator="auto", **{aim: 0.1}), aim) == 0.1


def test_auto_needs_rollouts_to_see_how_they_differ():
    with pytest.raises(ValueError, match="auto needs `rollouts` of 4 or more"):
        SimulateSettings(estimator="auto", rollouts=3)
    SimulateSettings(estimator="auto", rollouts=4)
    SimulateSettings(estimator="reach", rollouts=1)


def test_what_is_refused_is_told_with_what_would_do():
    with pytest.raises(ValueError, match=r"'best'.*scope, mc, reach, cv, auto, head"):
        SimulateSettings(estimator="best")
    with pytest.raises(ValueError, match=r"auto, fp32 or bf16, not 'fp16'"):
        SimulateSettings(precision="fp16")


@pytest.mark.parametrize(
    "good", [{"precision": "bf16"}, {"precision": "fp32"}, {"well_formed": False}, {"rows": 1}]
)
def test_what_can_be_chosen(good):
    ((name, value),) = good.items()
    assert getattr(SimulateSettings(**good), name) == value
