import json

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, root_mean_squared_log_error

from sequela.errors import InputError
from sequela.task.answers.prediction import write_predictions
from sequela.task.scoring.censoring import censoring_weights
from sequela.task.scoring.curves import read_scored
from sequela.task.scoring.evaluate import evaluate
from tests.task.conftest import START

COUNT = 400


def cohort(seed: int = 0, *, censored: bool = True) -> pl.DataFrame:
    """Made patients with known risks: `label`, `until_days`, and `risk`, the best prediction there is."""
    draw = np.random.default_rng(seed)
    rate = np.exp(draw.normal(-2.5, 1, COUNT))
    event = draw.exponential(1 / rate)
    lost = draw.uniform(0, 12, COUNT) if censored else np.full(COUNT, 99.0)
    until = np.minimum.reduce([event, lost, np.full(COUNT, 5.0)])
    label = np.where(until == event, 1.0, np.where(until == 5, 0.0, np.nan))
    return pl.DataFrame(
        {
            "subject_id": np.arange(COUNT),
            "prediction_time": [START] * COUNT,
            "label": pl.Series(label).fill_nan(None),
            "until_days": until,
            "risk": 1 - np.exp(-5 * rate),
        }
    )


def write(folder, truth: pl.DataFrame, models: dict, kind: str = "binary", task: str = "made"):
    for model, prediction in models.items():
        answers = truth.with_columns(prediction=pl.Series(np.asarray(prediction, dtype=float)).fill_nan(None))
        if model == "sequela":
            answers = answers.with_columns(
                rollouts=pl.lit(9), undecidable_rollouts=pl.lit(1), standard_error=pl.lit(0.02)
            )
        write_predictions(answers, kind, folder / task / f"{model}.parquet")
    return folder


def noisy(truth: pl.DataFrame, scale: float = 3.0, seed: int = 9) -> np.ndarray:
    logit = np.log(truth["risk"] / (1 - truth["risk"])) + np.random.default_rng(seed).normal(0, scale, COUNT)
    return 1 / (1 + np.exp(-logit.to_numpy()))


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    truth = cohort()
    folder = tmp_path_factory.mktemp("scored")
    models = {"trees": truth["risk"], "sequela": noisy(truth), "prevalence": np.full(COUNT, 0.25)}
    metrics = evaluate(write(folder / "p", truth, models), folder / "out")
    return truth, models, metrics["tasks"]["made"], folder / "out"


def test_the_counts(scored):
    truth, _, task, _ = scored
    assert task["n"] == task["evaluated"] == COUNT
    assert task["positives"] == truth["label"].sum()
    assert task["undecidable"] == truth["label"].null_count() == COUNT - task["decidable"]
    assert task["undecidable"] > 50
    assert task["unpredicted"] == {"sequela": 0, "prevalence": 0, "trees": 0}
    assert task["rollouts"]["sequela"] == {
        "decidable": 9 * COUNT,
        "undecidable": COUNT,
        "mean_standard_error": pytest.approx(0.02),
    }


def test_simulation_comes_first(scored):
    assert list(scored[2]["models"]) == ["sequela", "prevalence", "trees"]


def test_the_scores_are_weighted_for_censoring(scored):
    truth, models, task, _ = scored
    decided = truth["label"].is_not_null().to_numpy()
    weights = censoring_weights(truth["until_days"].to_numpy(), decided, np.ones(COUNT))[decided]
    outcome = truth["label"].to_numpy()[decided]
    for model in ("sequela", "trees"):
        prediction = np.asarray(models[model], dtype=np.float32)[decided]
        scores = task["models"][model]
        expected = roc_auc_score(outcome, prediction, sample_weight=weights)
        assert scores["auroc"]["value"] == pytest.approx(expected)
        expected = average_precision_score(outcome, prediction, sample_weight=weights)
        assert scores["auprc"]["value"] == pytest.approx(expected)
    assert task["observed"]["value"] == pytest.approx(np.average(outcome, weights=weights))


def test_every_score_lies_in_its_interval_and_the_best_prediction_is_calibrated(scored):
    _, _, task, _ = scored
    for scores in task["models"].values():
        assert set(scores) == {"auroc", "auprc", "brier", "ece", "calibration_slope", "oe"}
        for name, score in scores.items():
            if score and name != "ece":  # noise only ever adds to the ece, so its interval lies above
                assert score["low"] <= score["value"] <= score["high"]
    assert task["models"]["prevalence"]["calibration_slope"] == {}
    best = task["models"]["trees"]
    assert best["oe"]["low"] < 1 < best["oe"]["high"]
    assert best["calibration_slope"]["low"] < 1 < best["calibration_slope"]["high"]
    assert task["models"]["sequela"]["calibration_slope"]["high"] < 1


def test_differences_are_paired(scored):
    _, _, task, _ = scored
    own, other, between = (
        task["models"]["sequela"]["auroc"],
        task["models"]["trees"]["auroc"],
        task["difference"]["trees"],
    )
    assert between["value"] == pytest.approx(own["value"] - other["value"])
    assert between["high"] < 0
    width = [x["high"] - x["low"] for x in (between, own, other)]
    assert width[0] < np.hypot(width[1], width[2])  # the same patients: narrower than for two cohorts
    assert "beaten by trees" in task["verdict"]
    assert "beats prevalence" in task["verdict"]


def test_equal_models_do_not_differ(tmp_path):
    """The negative control of the difference."""
    truth = cohort()
    task = evaluate(
        write(tmp_path / "p", truth, {"sequela": truth["risk"], "twin": truth["risk"]}), tmp_path
    )["tasks"]["made"]
    twin = task["difference"]["twin"]
    assert (twin["value"], twin["low"], twin["high"], twin["p"], twin["word"]) == (0, 0, 0, 1, "matches")
    assert "It matches twin" in task["verdict"]


def test_the_file_is_strict_json_of_what_is_returned(scored):
    def refuse(text):
        raise AssertionError(f"{text} is not JSON")

    found = json.loads((scored[3] / "metrics.json").read_text(), parse_constant=refuse)
    assert found["tasks"] == {"made": scored[2]}
    words = found["comparisons"].pop("words")
    assert found["comparisons"] == {"count": 2, "confidence": 0.95, "margin": 0.02}
    assert words.startswith("Over all 2 comparisons") and "There is one training run" in words


def test_the_seed_decides(tmp_path):
    truth = cohort()
    folder = write(tmp_path / "p", truth, {"sequela": truth["risk"]})
    one, same, other = (evaluate(folder, tmp_path, seed=seed, resample_count=50) for seed in (1, 1, 2))
    assert one == same != other


def test_intervals_hold_the_truth_as_often_as_they_say(tmp_path):
    """Mean calibration of the true risks is 1 in the limit: 95 % of 60 cohorts, give or take, have it inside."""
    hits = 0
    for seed in range(60):
        truth = cohort(seed)
        folder = write(tmp_path / str(seed), truth, {"best": truth["risk"]})
        score = evaluate(folder, tmp_path / "out", resample_count=200)["tasks"]["made"]["models"]["best"][
            "oe"
        ]
        hits += score["low"] <= 1 <= score["high"]
    assert 51 <= hits <= 60


def test_who_got_no_answer_is_reported_and_left_out_for_all_models(tmp_path):
    truth = cohort()
    silent = np.where(np.arange(COUNT) < 30, np.nan, noisy(truth))
    task = evaluate(write(tmp_path / "p", truth, {"sequela": silent, "trees": truth["risk"]}), tmp_path)[
        "tasks"
    ]["made"]
    assert (task["n"], task["evaluated"]) == (COUNT, COUNT - 30)
    assert task["unpredicted"] == {"sequela": 30, "trees": 0}
    assert "no answer for 30 patients" in task["verdict"]
    rest = truth[30:]
    decided = rest["label"].is_not_null().to_numpy()
    weights = censoring_weights(rest["until_days"].to_numpy(), decided, np.ones(COUNT - 30))[decided]
    risk = rest["risk"].cast(pl.Float32).to_numpy()[decided]
    expected = roc_auc_score(rest["label"].to_numpy()[decided], risk, sample_weight=weights)
    assert task["models"]["trees"]["auroc"]["value"] == pytest.approx(expected)


def test_a_model_that_answered_nobody_does_not_hide_the_others(tmp_path):
    truth = cohort()
    models = {"sequela": np.full(COUNT, np.nan), "trees": truth["risk"]}
    task = evaluate(write(tmp_path / "p", truth, models), tmp_path)["tasks"]["made"]
    assert task["models"]["sequela"]["auroc"] == {}
    assert task["models"]["trees"]["auroc"]["value"] > 0.6
    assert task["evaluated"] == COUNT
    assert "cannot be scored" in task["verdict"]


def test_nothing_decidable(tmp_path):
    truth = cohort().with_columns(label=pl.lit(None, pl.Float64))
    task = evaluate(write(tmp_path / "p", truth, {"sequela": truth["risk"]}), tmp_path)["tasks"]["made"]
    assert (task["decidable"], task["positives"]) == (0, 0)
    assert task["models"]["sequela"]["auroc"]["value"] is None
    assert task["models"]["sequela"]["auroc"]["reason"] == "no answer is known"


def test_days_are_scored_by_their_mean_error(tmp_path):
    truth = cohort(censored=False).with_columns(label="until_days")
    days = truth["label"].to_numpy()
    models = {"sequela": days + 1, "median": np.full(COUNT, np.median(days)), "near": days + 0.25}
    task = evaluate(write(tmp_path / "p", truth, models, kind="time"), tmp_path)["tasks"]["made"]
    assert task["kind"] == "time"
    assert task["positives"] is None
    assert task["models"]["sequela"] == {"mae": pytest.approx({"value": 1, "low": 1, "high": 1}, rel=1e-5)}
    assert task["difference"]["near"]["value"] == pytest.approx(0.75, rel=1e-5)
    assert "beaten by near" in task["verdict"]
    assert task["observed"]["value"] == pytest.approx(days.mean(), rel=1e-5)


def test_seeds_are_rows_of_their_own_and_their_mean_is_compared(tmp_path):
    truth = cohort()
    each = {f"sequela_{seed}": noisy(truth, 1.0, seed) for seed in (1, 2, 3)}
    models = {"sequela": np.mean(list(each.values()), axis=0), **each, "prevalence": np.full(COUNT, 0.25)}
    two = {name: each[name] for name in ("sequela_1", "sequela_2")}
    folder = write(tmp_path / "p", truth, models)
    mean = (two["sequela_1"] + two["sequela_2"]) / 2
    write(folder, truth, {"sequela": mean, **two, "cox": truth["risk"]}, task="two")
    found = evaluate(folder, tmp_path)
    task = found["tasks"]["made"]
    assert list(task["models"]) == ["sequela", "sequela_1", "sequela_2", "sequela_3", "prevalence"]
    assert list(task["difference"]) == ["prevalence"] and found["comparisons"]["count"] == 2
    assert (task["seeds"], found["tasks"]["two"]["seeds"]) == (3, 2)
    single = [task["models"][name]["auroc"]["value"] for name in each]
    assert task["between_seeds"]["auroc"] == pytest.approx(np.std(single, ddof=1))
    assert "training runs" in found["comparisons"]["words"]
    alone = evaluate(write(tmp_path / "q", truth, {"sequela": models["sequela"]}), tmp_path)["tasks"]["made"]
    wide, narrow = (one["models"]["sequela"]["auroc"] for one in (task, alone))
    assert wide["value"] == narrow["value"] and wide["high"] - wide["low"] > narrow["high"] - narrow["low"]
    assert (alone["seeds"], alone["between_seeds"]) == (1, {})


def test_a_difference_counts_less_the_more_is_compared(tmp_path):
    """Holm over all tasks of a run: the p of one comparison grows with their number."""
    truth = cohort()
    models = {"sequela": noisy(truth, 1.0, 1), "other": noisy(truth, 1.2, 2)}
    write(tmp_path / "p", truth, models)
    one = evaluate(tmp_path / "p", tmp_path, resample_count=100)["tasks"]["made"]["difference"]["other"]
    for task in ("b", "c"):
        write(tmp_path / "p", truth, models, task=task)
    many = evaluate(tmp_path / "p", tmp_path, resample_count=100)["tasks"]["made"]["difference"]["other"]
    assert 0 < one["p"] < 0.33 and many["p"] == pytest.approx(min(1, 3 * one["p"]))


def test_a_margin_is_stated(tmp_path):
    truth = cohort()
    folder = write(tmp_path / "p", truth, {"sequela": noisy(truth, 0.3, 1), "other": noisy(truth, 0.3, 2)})
    words = [
        evaluate(folder, tmp_path, resample_count=100, margin=margin)["tasks"]["made"]["difference"]["other"]["word"]
        for margin in (0.0001, 0.4)
    ]
    assert words == ["not decided", "matches"]
    with pytest.raises(InputError, match="`margin` must be above 0, not 0"):
        evaluate(folder, tmp_path, margin=0)


@pytest.mark.parametrize(("kind", "names"), [("count", ["mae", "rmsle"]), ("value", ["mae"])])
def test_counts_and_values_are_scored_by_their_errors(tmp_path, kind, names):
    truth = cohort(censored=False).with_columns(label=pl.col("until_days").floor())
    number = truth["label"].to_numpy()
    models = {"sequela": number + 1, "near": number + 0.25}
    task = evaluate(write(tmp_path / "p", truth, models, kind=kind), tmp_path)["tasks"]["made"]
    assert (task["kind"], task["positives"], task["without"]) == (kind, None, 0)
    assert list(task["models"]["sequela"]) == names
    assert task["difference"]["near"]["value"] == pytest.approx(0.75, rel=1e-5)
    if kind == "count":
        expected = root_mean_squared_log_error(number, number + 1)
        assert task["models"]["sequela"]["rmsle"]["value"] == pytest.approx(expected, rel=1e-5)


def test_a_value_that_was_never_measured_is_no_loss(tmp_path):
    """Death before the measurement competes: the mean of the measured is found again, and none where it is a loss."""
    draw = np.random.default_rng(3)
    measured, death, lost = (draw.exponential(scale, 4_000) for scale in (4.0, 4.0, 12.0))
    first = np.minimum(measured, death)
    until = np.minimum.reduce([first, lost, np.full(4_000, 10.0)])
    value = np.where(until == measured, measured, np.nan)
    decided = np.select(
        [until == measured, until == death, until == lost], ["outcome", "end", "censored"], "horizon"
    )
    truth = pl.DataFrame(
        {
            "subject_id": np.arange(4_000),
            "prediction_time": [START] * 4_000,
            "label": pl.Series(value).fill_nan(None),
            "until_days": until,
            "decided": decided,
        }
    )
    one = np.zeros(4_000)
    task = evaluate(write(tmp_path / "p", truth, {"sequela": one}, kind="value"), tmp_path)["tasks"]["made"]
    assert task["without"] == (decided == "end").sum() + (decided == "horizon").sum()
    assert task["undecidable"] == (decided == "censored").sum()
    among = measured[(measured < death) & (measured <= 10)]  # had nobody been lost
    assert task["observed"]["value"] == pytest.approx(among.mean(), rel=0.05)
    wrong = evaluate(write(tmp_path / "q", truth.drop("decided"), {"sequela": one}, kind="value"), tmp_path)[
        "tasks"
    ]["made"]
    assert wrong["observed"]["reason"].startswith("not identified")  # as if the last had all been lost


def test_predictions_of_others_need_no_further_columns(tmp_path):
    truth = cohort(censored=False)
    (tmp_path / "p" / "made").mkdir(parents=True)
    truth.select(
        "subject_id",
        "prediction_time",
        boolean_value=pl.col("label") == 1,
        predicted_boolean_probability=pl.col("risk").cast(pl.Float32),
    ).write_parquet(tmp_path / "p" / "made" / "theirs.parquet")
    task = evaluate(tmp_path / "p", tmp_path)["tasks"]["made"]
    expected = roc_auc_score(truth["label"], truth["risk"].cast(pl.Float32))
    assert task["models"]["theirs"]["auroc"]["value"] == pytest.approx(expected)
    assert task["verdict"] == "No simulation is among these models."


def test_folders_are_scored_side_by_side(tmp_path):
    truth = cohort()
    one = write(tmp_path / "one", truth, {"sequela": noisy(truth)})
    two = write(tmp_path / "two", truth, {"trees": truth["risk"]})
    assert list(evaluate([one, two], tmp_path)["tasks"]["made"]["models"]) == ["sequela", "trees"]
    write(two, truth, {"sequela": truth["risk"]})
    with pytest.raises(InputError, match="rename one"):
        evaluate([one, two], tmp_path)


def test_a_folder_given_twice_is_said(tmp_path):
    one = write(tmp_path / "one", cohort(), {"sequela": cohort()["risk"]})
    (tmp_path / "link").symlink_to(one)
    for again in (one, tmp_path / "x" / ".." / "one", tmp_path / "link"):
        (tmp_path / "x").mkdir(exist_ok=True)
        with pytest.raises(InputError, match="is given twice: leave out one of the folders"):
            evaluate([one, again], tmp_path / "out")


def lost_before(truth: pl.DataFrame, days: float) -> pl.DataFrame:
    """The same patients, none of whom is followed for longer than so many days."""
    late = pl.col("until_days") > days
    return truth.with_columns(
        label=pl.when(late).then(None).otherwise("label"), until_days=pl.min_horizontal("until_days", days)
    )


def test_a_horizon_that_nobody_is_followed_to_is_not_identified(tmp_path):
    """One in four has the outcome, all others are lost: every known answer is yes, and nothing follows from it."""
    truth = lost_before(cohort(censored=False), 4.9)
    known = truth["label"].drop_nulls()
    assert len(known) > 50
    assert (known == 1).all()
    task = evaluate(write(tmp_path / "p", truth, {"sequela": truth["risk"]}), tmp_path)["tasks"]["made"]
    scores = [task["observed"], *task["models"]["sequela"].values()]
    assert all(score["value"] is score["low"] is score["high"] is None for score in scores)
    assert all(score["reason"].startswith("not identified: ") for score in scores)
    assert "cannot be scored here: not identified" in task["verdict"]
    assert read_scored(tmp_path / "p/made/sequela.parquet") is None
    json.loads((tmp_path / "metrics.json").read_text(), parse_constant=pytest.fail)


@pytest.mark.parametrize("kind", ["time", "count", "value"])
def test_nor_is_a_mean_number(tmp_path, kind):
    truth = lost_before(cohort(censored=False).with_columns(label="until_days"), 2.0)
    task = evaluate(write(tmp_path / "p", truth, {"sequela": truth["risk"]}, kind=kind), tmp_path)["tasks"][
        "made"
    ]
    assert task["models"]["sequela"]["mae"]["reason"].startswith("not identified")


def test_it_is_identified_where_some_are_followed(tmp_path):
    """The neighbor: half are lost early, the others stand for them."""
    truth = cohort(censored=False)
    half = pl.col("subject_id") % 2 == 0
    truth = lost_before(truth, 4.9).filter(half).vstack(truth.filter(~half))
    task = evaluate(write(tmp_path / "p", truth, {"sequela": truth["risk"]}), tmp_path)["tasks"]["made"]
    assert task["models"]["sequela"]["oe"]["value"] == pytest.approx(1, abs=0.3)
    assert "reason" not in task["models"]["sequela"]["auroc"]


def test_without_follow_up_the_lost_are_dropped_and_nothing_is_refused(tmp_path):
    truth = lost_before(cohort(censored=False), 4.9).with_columns(until_days=pl.lit(0.0))
    other = pl.when(pl.col("subject_id") % 3 == 0).then(0.0).otherwise("label")
    truth = truth.with_columns(label=other)
    task = evaluate(write(tmp_path / "p", truth, {"theirs": truth["risk"]}), tmp_path)["tasks"]["made"]
    assert "reason" not in task["models"]["theirs"]["auroc"]


@pytest.mark.parametrize(("answer", "who"), [(0.0, "nobody"), (1.0, "everybody")])
def test_one_kind_of_answer_ranks_nobody(tmp_path, answer, who):
    truth = cohort(censored=False).with_columns(label=pl.lit(answer))
    task = evaluate(write(tmp_path / "p", truth, {"sequela": truth["risk"]}), tmp_path)["tasks"]["made"]
    scores = task["models"]["sequela"]
    assert scores["auroc"] == {"value": None, "low": None, "high": None, "reason": f"{who} had the outcome"}
    assert scores["brier"]["value"] > 0
    assert scores["oe"]["value"] == pytest.approx(answer / truth["risk"].mean(), rel=1e-6)
    assert f"{who} had the outcome" in task["verdict"]


def test_one_question_has_no_interval(tmp_path):
    truth = cohort(censored=False).head(1)
    task = evaluate(write(tmp_path / "p", truth, {"sequela": truth["risk"]}), tmp_path)["tasks"]["made"]
    assert task["models"]["sequela"]["brier"]["value"] is not None
    assert task["models"]["sequela"]["brier"]["low"] is task["models"]["sequela"]["brier"]["high"] is None


def test_equal_scores_rank_nobody_above_another(tmp_path):
    truth = cohort()
    task = evaluate(write(tmp_path / "p", truth, {"sequela": np.full(COUNT, 0.2)}), tmp_path)["tasks"]["made"]
    assert task["models"]["sequela"]["auroc"] == {"value": 0.5, "low": 0.5, "high": 0.5}
    assert task["models"]["sequela"]["calibration_slope"] == {}


def test_files_must_tell_the_same_truth(tmp_path):
    truth = cohort()
    folder = write(tmp_path / "p", truth, {"sequela": truth["risk"]})
    other = truth.with_columns(
        label=pl.when(pl.col("subject_id") == 7).then(1 - pl.col("label").fill_null(0)).otherwise("label")
    )
    write(folder, other, {"trees": truth["risk"]})
    with pytest.raises(InputError, match=r"disagree about the truth of patient 7 \(1 such"):
        evaluate(folder, tmp_path)


def test_kinds_must_not_be_mixed(tmp_path):
    truth = cohort()
    folder = write(tmp_path / "p", truth, {"sequela": truth["risk"]})
    write(folder, truth, {"trees": truth["risk"]}, kind="time")
    with pytest.raises(InputError, match="of the kinds binary, time; keep one kind"):
        evaluate(folder, tmp_path)


def test_a_folder_without_predictions(tmp_path):
    with pytest.raises(InputError, match=r"has no TASK/MODEL\.parquet"):
        evaluate(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_or_a_task_that_may_not_be_read_is_not_left_out(tmp_path, locked):
    truth = cohort().head(60)
    write(tmp_path / "made", truth, {"sequela": truth["risk"], "cox": truth["risk"]})
    write(tmp_path / "made", truth, {"sequela": truth["risk"]}, task="other")
    (tmp_path / "made/made/._cox.parquet").write_bytes(b"left behind")
    for place in ("made/other", "made/made/cox.parquet"):
        with locked(tmp_path / place), pytest.raises(InputError, match=rf"{place} cannot be opened"):
            evaluate(tmp_path / "made", tmp_path / "out", resample_count=2)
