import json
import math
from dataclasses import replace

import pytest

from sequela.errors import InputError
from sequela.training.scaling.advice import Setting, advise, check, compare, fits, study
from sequela.training.scaling.isoflop import isoflop
from sequela.training.scaling.parametric import fit
from tests.training.scaling.surface import BUDGETS, PUBLISHED, STEEP, shapes
from tests.training.scaling.test_isoflop import enough

SETTING = Setting(shapes(), unique_tokens=1e13)
LAWS = fits(PUBLISHED.study(), SETTING)


def test_the_answer_is_the_optimum_of_the_surface():
    found = advise(LAWS, SETTING, 1e22)
    best = PUBLISHED.optimum(1e22)
    assert found["parameters"]["low"] < best < found["parameters"]["high"]
    assert found["tokens"] == pytest.approx(1e22 / (6 * best), rel=0.3)
    assert found["loss"]["low"] < PUBLISHED.loss(best, 1e22 / 6 / best) < found["loss"]["high"]
    assert found["extrapolation"] == pytest.approx(10)
    assert found["isoflop"]["parameters"]["value"] == pytest.approx(best, rel=0.2)
    assert found["notes"] == []
    shape = next(s for s in shapes() if (s.depth, s.width) == (found["depth"], found["width"]))
    assert f"train {shape.parameters:,} parameters" in found["answer"]
    assert found["tokens"] * shape.flops_per_token == pytest.approx(1e22)


def test_a_small_corpus_gets_a_larger_model_and_is_told():
    small = replace(SETTING, unique_tokens=2e10)
    found = advise(fits(PUBLISHED.study(), small), small, 1e22)
    assert found["epochs"] <= 4.2
    assert found["parameters"]["value"] > 2 * PUBLISHED.optimum(1e22)
    assert found["loss"]["value"] > advise(LAWS, SETTING, 1e22)["loss"]["value"]
    assert "More patients would help" in found["notes"][0]
    with pytest.raises(InputError, match="every shape offered would see the data more than 4 times"):
        advise(LAWS, replace(SETTING, unique_tokens=1e3), 1e22)


def test_far_extrapolation_and_too_few_shapes_are_told():
    few = replace(SETTING, shapes=[shape for shape in shapes() if shape.parameters < 1e9])
    notes = " ".join(advise(LAWS, few, 1e23)["notes"])
    assert "100 times the largest budget" in notes
    assert "edge of the shapes" in notes


def test_methods_that_disagree_are_told():
    """Repeats that the power laws do not know of: the law keeps to the corpus."""
    assert "two methods disagree" in " ".join(
        advise(LAWS, replace(SETTING, unique_tokens=2e10), 1e22)["notes"]
    )


def held(runs, method):
    found = check(runs, SETTING)[method]
    return found["parameters"]["holds"], found["loss"]["holds"]


@pytest.mark.parametrize("surface", [PUBLISHED, STEEP])
def test_the_budget_held_back_is_predicted(surface):
    checks = [check(surface.study(seed), SETTING) for seed in range(6)]
    for method in ("isoflop", "parametric"):
        for name in ("parameters", "loss"):
            assert enough(sum(found[method][name]["holds"] for found in checks), 6)
        assert all(abs(found[method]["loss"]["ratio"] - 1) < 0.02 for found in checks)


@pytest.mark.slow
@pytest.mark.parametrize("surface", [PUBLISHED, STEEP])
def test_95_percent_of_the_budgets_held_back_are_predicted(surface):
    checks = [check(surface.study(seed), SETTING) for seed in range(100)]
    for method in ("isoflop", "parametric"):
        for name in ("parameters", "loss"):
            hits = sum(found[method][name]["holds"] for found in checks)
            print(f"{method} {name}: {hits} of 100")
            assert enough(hits, 100), (method, name)
    inside = sum(found["parametric"]["runs_inside"] for found in checks)
    print(f"runs: {inside} of 700")
    assert inside > 0.9 * 700  # runs of one study share its fit


@pytest.mark.parametrize("method", ["isoflop", "parametric"])
def test_a_budget_that_does_not_follow_the_law_is_found_out(method):
    """The negative control: at the largest budget something else begins."""
    runs = PUBLISHED.study()
    worse = [replace(run, loss=1.1 * run.loss) if run.budget == BUDGETS[-1] else run for run in runs]
    assert held(worse, method)[1] is False
    moved = [
        replace(run, parameters=3 * run.parameters) if run.budget == BUDGETS[-1] else run for run in runs
    ]
    assert held(moved, method)[0] is False


def test_each_run_held_back_is_predicted():
    sound = check(PUBLISHED.study(), SETTING)
    assert sound["parametric"]["runs"] == 7
    assert sound["parametric"]["runs_inside"] >= 5
    assert sound["parametric"]["mean_relative_error"] < 0.01
    assert sound["extrapolation"] == pytest.approx(BUDGETS[-1] / BUDGETS[-2])


def test_an_edge_in_the_budget_held_back_leaves_the_question_open():
    runs = PUBLISHED.study(budgets=BUDGETS[:4]) + PUBLISHED.study(budgets=BUDGETS[4:], off=40.0)
    found = check(runs, SETTING)
    assert found["observed"]["edge"] == "smallest"
    assert "holds" not in found["parametric"]["loss"]
    assert found["parametric"]["mean_relative_error"] < 0.02


def test_fit_json_holds_everything_and_no_nan():
    body = json.loads(json.dumps(study(PUBLISHED.study(), SETTING), allow_nan=False))
    assert set(body) == {
        "unit", "runs", "unique_tokens", "most_epochs", "isoflop", "parametric", "check", "advice", "published",
        "notes",
    }  # fmt: skip
    assert body["advice"]["flops"] == pytest.approx(10 * BUDGETS[-1])
    published = body["published"]["others"]["Chinchilla, law refitted (arXiv 2404.10102)"]
    assert published["inside"]["parametric"] == {"parameters": True, "tokens": True}
    ratio = 1e21 / 6 / PUBLISHED.optimum(1e21) ** 2
    assert body["published"]["tokens_per_parameter"]["value"] == pytest.approx(ratio, rel=0.2)


def test_comparison_with_other_exponents():
    runs = STEEP.study()
    found = compare(isoflop(runs), fit(runs))["others"]["CoMET (arXiv 2508.12104)"]
    assert found["parameters"] == 0.520
    assert found["inside"]["parametric"]["parameters"] is False
    assert compare(None, None)["tokens_per_parameter"] is None


def test_little_data_gives_what_it_can():
    one = study(PUBLISHED.study(budgets=[1e20]), SETTING)
    assert one["check"] is None
    assert one["isoflop"]["parameters"] is None
    json.dumps(one, allow_nan=False)
    three = study(PUBLISHED.study(budgets=BUDGETS[:2], sizes=3), SETTING)
    json.dumps(three, allow_nan=False)
    edge = study(PUBLISHED.study(off=1 / 40), SETTING)
    assert edge["advice"]["isoflop"] is None
    assert "larger sizes" in " ".join(edge["isoflop"]["notes"])


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([], "No run can be fitted"),
        (PUBLISHED.study()[:1], "has 1 of the 3 sizes"),
        (PUBLISHED.study()[:4], "No advice"),
    ],
)
def test_too_few_runs_are_a_sentence(runs, message):
    with pytest.raises(InputError, match=message):
        study(runs, SETTING)


@pytest.mark.parametrize("budget", [0.0, -1.0, math.inf])
def test_a_budget_that_is_none_is_a_sentence(budget):
    with pytest.raises(InputError, match="above 0 FLOPs"):
        advise(LAWS, SETTING, budget)
