import numpy as np
import polars as pl
import pytest

from sequela.record.cohort import nafld
from sequela.record.dataset import read_events
from sequela.record.duration import DAY
from sequela.task.baselines.baseline import FEWEST, TrainingSample, fit_baselines
from sequela.task.baselines.features import build_features
from sequela.task.catalog import load_task
from sequela.task.label import labels
from sequela.task.scoring.censoring import censoring_weights
from sequela.task.scoring.metric import AUROC, MAE, OE
from tests.task.baselines.competing import sample_with_competing_death
from tests.task.conftest import make_task


class Cohort:
    """The real patients, their features, and the answers of train and held_out to a task."""

    def __init__(self, events: pl.DataFrame) -> None:
        self.events = events
        self.splits = {
            name: read_events(nafld(), name)["subject_id"].unique() for name in ("train", "held_out")
        }
        times = load_task("death_5y").prediction_times(events)
        self.features = build_features(events, times, self.splits["train"])

    def sample(self, name: str, split: str) -> TrainingSample:
        task = load_task(name)
        times = task.prediction_times(self.events)
        answered = labels(
            task, self.events, times.filter(pl.col("subject_id").is_in(self.splits[split].implode()))
        )
        outcome = answered["label"].fill_null(np.nan).to_numpy()
        return TrainingSample(self.features.of(answered), outcome, answered["until_days"].to_numpy())


@pytest.fixture(scope="module")
def cohort(nafld_events):
    return Cohort(nafld_events)


def area(prediction: np.ndarray, test: TrainingSample) -> float:
    return float(AUROC(test.outcome[test.decided], prediction[test.decided], test.weights[test.decided]))


# what others reached on another split of these patients: age + sex, logistic, Cox, trees
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("death_5y", (0.835, 0.872, 0.872, 0.881)),
        ("new_diabetes_5y", (0.604, 0.741, 0.740, 0.744)),
        ("new_hypertension_5y", (0.673, 0.758, 0.760, 0.778)),
        ("new_cardiovascular_5y", (0.791, 0.804, 0.807, 0.808)),
    ],
)
def test_the_baselines_reach_what_others_reached(cohort, name, expected):
    models = fit_baselines(load_task(name), cohort.sample(name, "train"))
    assert list(models) == ["prevalence", "age_sex", "logistic", "trees", "cox"]
    test = cohort.sample(name, "held_out")
    for model, value in zip(("age_sex", "logistic", "cox", "trees"), expected, strict=True):
        prediction = models[model](test.values)
        # a standard error of about .02 for some 130 cases here, and .015 there
        assert area(prediction, test) == pytest.approx(value, abs=0.05), model
        outcome, everyone = np.nan_to_num(test.outcome), np.ones(len(test.outcome))
        assert (
            0.75
            < OE(outcome, prediction, censoring_weights(test.until_days, test.decided, everyone), everyone)
            < 1.25
        )


def test_shuffled_answers_teach_nothing(cohort):
    """The negative control: what the models know, they know from the labels."""
    train, test = cohort.sample("death_5y", "train"), cohort.sample("death_5y", "held_out")
    order = np.random.default_rng(0).permutation(len(train.outcome))[:3_000]
    shuffled = TrainingSample(train.values[:3_000], train.outcome[order], train.until_days[order])
    models = fit_baselines(make_task(horizon=None), shuffled)
    for model in ("logistic", "trees"):
        assert abs(area(models[model](test.values), test) - 0.5) < 0.2


def made(count: int = 400, seed: int = 0) -> TrainingSample:
    draw = np.random.default_rng(seed)
    values = draw.normal(size=(count, 4)).astype(np.float32)
    values[draw.random(values.shape) < 0.2] = np.nan
    outcome = (draw.random(count) < 0.3).astype(float)
    return TrainingSample(values, outcome, np.where(outcome == 1, draw.uniform(0, 10, count), 10.0))


def test_without_censoring_or_horizon_there_is_no_cox():
    assert "cox" not in fit_baselines(make_task(), made())
    lost = made()
    lost.outcome[:40], lost.until_days[:40] = np.nan, 3.0
    assert "cox" in fit_baselines(make_task(), lost)
    assert "cox" not in fit_baselines(make_task(horizon=None), lost)


def test_too_few_cases_leave_the_prevalence():
    few = made()
    few.outcome[:] = 0
    few.outcome[: FEWEST - 1] = 1
    models = fit_baselines(make_task(), few)
    assert list(models) == ["prevalence"]
    assert models["prevalence"](few.values) == pytest.approx(np.full(400, (FEWEST - 1) / 400))
    nobody = TrainingSample(few.values[:3], few.outcome[:3], few.until_days[:3])
    assert fit_baselines(make_task(), nobody) == {}


def test_the_undecidable_are_spoken_for_by_weights():
    """Half of those without the outcome are lost early: the prevalence is that of everyone, not of the decided."""
    count = 20_000
    draw = np.random.default_rng(0)
    event, lost = draw.exponential(20, count), draw.uniform(0, 15, count)
    until = np.minimum.reduce([event, lost, np.full(count, 10.0)])
    outcome = np.where(until == event, 1.0, np.where(until == 10, 0.0, np.nan))
    sample = TrainingSample(np.zeros((count, 2), np.float32), outcome, until)
    share = fit_baselines(make_task(horizon=10 * DAY), sample)["prevalence"](sample.values[:1])[0]
    truth = 1 - np.exp(-10 / 20)
    assert share == pytest.approx(truth, abs=0.02)
    assert np.nanmean(outcome) > truth + 0.05


def test_cox_counts_no_outcomes_of_the_dead():
    """Death, the more frequent, competes: the mean risk is the incidence, far from what it would be without death."""
    sample, event = sample_with_competing_death(4_000)
    prediction = fit_baselines(make_task(horizon=10 * DAY), sample)["cox"](sample.values)
    observed = np.average(np.nan_to_num(sample.outcome), weights=sample.weights)
    assert prediction.mean() == pytest.approx(observed, rel=0.05)
    alone = (event <= 10).mean()
    assert alone > 1.3 * observed


def test_days_are_predicted_by_median_ridge_and_trees():
    draw = np.random.default_rng(1)
    values = draw.normal(size=(1_500, 3)).astype(np.float32)
    days = np.exp(1 + 0.8 * values[:, 2] + 0.5 * draw.normal(size=1_500))
    task = make_task(kind="time", ends=(), horizon=None)
    models = fit_baselines(task, TrainingSample(values[:1_000], days[:1_000], days[:1_000]))
    assert list(models) == ["median", "ridge", "trees"]
    errors = {name: MAE(days[1_000:], model(values[1_000:]), np.ones(500)) for name, model in models.items()}
    assert errors["ridge"] < 0.8 * errors["median"] > errors["trees"]
    assert models["median"](values[:1])[0] == pytest.approx(np.median(days[:1_000]), rel=0.01)


def numbers(kind: str, count: int = 1_500, seed: int = 1) -> TrainingSample:
    draw = np.random.default_rng(seed)
    values = draw.normal(size=(count, 3)).astype(np.float32)
    signal = 0.8 * values[:, 2]
    outcome = draw.poisson(np.exp(signal)) if kind == "count" else -5 + signal + 0.5 * draw.normal(size=count)
    return TrainingSample(values, outcome.astype(float), np.full(count, 10.0))


@pytest.mark.parametrize(("kind", "names"), [("count", ["mean", "median"]), ("value", ["median"])])
def test_counts_and_values_are_predicted_too(kind, names):
    train, test = numbers(kind), numbers(kind, seed=2)
    models = fit_baselines(make_task(kind=kind), train)
    assert list(models) == [*names, "ridge", "trees"]
    predictions = {name: model(test.values) for name, model in models.items()}
    errors = {name: MAE(test.outcome, one, np.ones(len(one))) for name, one in predictions.items()}
    assert max(errors["ridge"], errors["trees"]) < 0.9 * errors["median"]
    assert predictions["median"][0] == pytest.approx(np.median(train.outcome), abs=0.01)
    if kind == "count":
        assert predictions["mean"][0] == pytest.approx(train.outcome.mean())
        assert predictions["trees"].mean() == pytest.approx(test.outcome.mean(), rel=0.1)
        assert min(one.min() for one in predictions.values()) >= 0
    else:
        assert all(one.mean() == pytest.approx(-5, abs=0.2) for one in predictions.values())


def test_counts_that_are_all_zero():
    nothing = made()
    nothing.outcome[:] = 0
    models = fit_baselines(make_task(kind="count"), nothing)
    assert list(models) == ["mean", "median", "ridge"]
    assert all(model(nothing.values[:1])[0] == 0 for model in models.values())


def test_those_who_never_get_a_number_are_not_lost():
    """Two die before a value is measured: nobody weighs more for them, as somebody would had they been lost."""
    until, outcome = np.array([1.0, 2.0, 3.0, 4.0]), np.array([5.0, np.nan, np.nan, 7.0])
    values = np.zeros((4, 2), np.float32)
    died = TrainingSample(values, outcome, until, lost=np.array([False, False, False, False]))
    np.testing.assert_allclose(died.weights, [1, 0, 0, 1])
    np.testing.assert_allclose(TrainingSample(values, outcome, until).weights, [1, 0, 0, 3])


def test_the_seed_alone_decides():
    sample = made(seed=3)
    one, same, other = (
        fit_baselines(make_task(), sample, seed)["trees"](sample.values) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
