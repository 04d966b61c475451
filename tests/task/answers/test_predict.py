import json
import shutil

import numpy as np
import polars as pl
import pytest

from sequela.errors import InputError
from sequela.record.dataset import read_events, write_dataset
from sequela.record.duration import DAY
from sequela.record.schema import FOLLOW_UP_END
from sequela.task.answers.predict import PredictSettings, predict
from sequela.task.answers.prediction import EXTRA
from sequela.task.baselines.survival import installed
from sequela.task.requests import requests
from sequela.task.scoring.evaluate import evaluate
from sequela.tokens.maps.code_map import load_map
from sequela.tokens.maps.recode import save_maps
from tests.task.answers.test_estimate import rollout, write_simulated
from tests.task.conftest import make_events, make_task

TASK = make_task(exclude=("STROKE",))
FOREST = ("survival_forest",) if installed() else ()  # an extra
MORE = (*FOREST, "strong", "tokens")


def simulate(folder, meds, split="held_out", rollouts=4):
    """A folder of imagined timelines of that split: everyone's risk is drawn, one patient never gets anywhere."""
    draw = np.random.default_rng(0)
    patients = TASK.prediction_times(read_events(meds, split))["subject_id"].to_list()
    rows = [
        rollout(patient, number, reason="limit", end=5, scope=None)
        if patient == patients[0]
        else rollout(patient, number, scope=float(draw.uniform(0, 0.5)))
        for patient in patients
        for number in range(rollouts)
    ]
    return write_simulated(folder, rows, [(patients[1], 0, 3, "STROKE")]), patients


@pytest.fixture(scope="module")
def simulated(tmp_path_factory, cohort_folder):
    return simulate(tmp_path_factory.mktemp("simulated") / "s", cohort_folder)


@pytest.fixture(scope="module")
def predicted(tmp_path_factory, cohort_folder, cohort_tokens, simulated):
    out = tmp_path_factory.mktemp("predicted")
    # everybody is followed until one of these; of others a mean time is not identified
    stay = make_task(name="stay", kind="time", outcome=("STROKE", "MEDS_DEATH", "FOLLOW_UP//*"), ends=(), horizon=None)
    seen = []
    report = predict(
        simulated[0],
        cohort_folder,
        out,
        [TASK, stay],
        PredictSettings(model=cohort_tokens),
        progress=lambda done, total, **_: seen.append((done, total)),
    )
    assert seen == [(0, 2), (1, 2), (2, 2)]
    return out, report


def test_every_model_answers_for_the_same_patients(predicted, simulated):
    out, report = predicted
    assert report["stroke_10d"]["models"] == ["sequela", "prevalence", "age_sex", "logistic", "trees", "cox", *MORE]
    assert report["stay"]["models"] == ["sequela", "median", "ridge", "trees", "strong", "tokens"]
    for task, facts in report.items():
        for model in facts["models"]:
            written = pl.read_parquet(out / task / f"{model}.parquet")
            assert written["subject_id"].to_list() == simulated[1]
            assert set(EXTRA) <= set(written.columns)


def test_the_report_counts_who_is_undecidable_and_who_got_no_answer(predicted, simulated):
    facts = predicted[1]["stroke_10d"]
    assert facts["patients"] == len(simulated[1])
    assert 0 < facts["undecidable"] < facts["patients"]
    assert facts["unpredicted"] == 1
    assert (facts["rollouts"], facts["undecidable_rollouts"]) == (4 * len(simulated[1]) - 4, 4)
    written = pl.read_parquet(predicted[0] / "stroke_10d" / "sequela.parquet")
    assert written["predicted_boolean_probability"].null_count() == 1
    assert written["predicted_boolean_value"].null_count() == 1


def test_the_prediction_is_the_mean_hazard(predicted, simulated):
    rollouts = pl.read_parquet(simulated[0] / "rollouts.parquet")
    written = pl.read_parquet(predicted[0] / "stroke_10d" / "sequela.parquet")
    mean = rollouts.group_by("subject_id", maintain_order=True).agg(pl.col("scope//stroke_10d").mean())
    np.testing.assert_allclose(
        written["predicted_boolean_probability"][1:], mean["scope//stroke_10d"][1:], rtol=1e-5
    )


@pytest.fixture(scope="module")
def others(tmp_path_factory, cohort_folder, simulated):
    """Predictions of a count, a value, a condition and a time with competing death, from one simulation."""
    out = tmp_path_factory.mktemp("others")
    tasks = [
        make_task(name="strokes", kind="count"),
        make_task(name="lab", kind="value", outcome=("FOLLOW_UP//*", "LAB//A")),
        make_task(name="twice", at_least=2),
        make_task(name="when", kind="time"),
    ]
    return out, predict(simulated[0], cohort_folder, out, tasks, PredictSettings(level=0.5, strong=False))


def test_answers_of_all_kinds_come_from_one_simulation(others, simulated):
    out, report = others
    assert [facts["estimator"] for facts in report.values()] == ["mean", "median", "mc", "median"]
    assert report["strokes"]["models"] == ["sequela", "mean", "median", "ridge", "trees"]
    assert report["lab"]["models"] == ["sequela"]  # nobody's is measured again: nothing to learn from
    assert report["when"]["models"] == ["sequela", "median", "ridge", "trees"]
    for name, facts in report.items():
        assert pl.read_parquet(out / name / "sequela.parquet")["subject_id"].to_list() == simulated[1]
        assert facts["undecidable"] > 0
    assert report["strokes"]["without"] == 0 < report["when"]["without"] < report["when"]["patients"]
    written = pl.read_parquet(out / "strokes" / "sequela.parquet")
    assert written["predicted_float_value"][1] == 0.25
    assert written["kind"].unique().to_list() == ["count"]
    scores = evaluate(out, out)["tasks"]
    assert {name: one["kind"] for name, one in scores.items()} == {
        "lab": "value", "strokes": "count", "twice": "binary", "when": "time",
    }  # fmt: skip
    assert set(scores["strokes"]["models"]["sequela"]) == {"mae", "rmsle"}
    assert scores["when"]["without"] == report["when"]["without"]


def test_a_count_agrees_with_the_binary_task_where_all_happen_once(others, predicted):
    """The made patients have one stroke at most, so the expected count of the training patients is their risk."""
    mean = pl.read_parquet(others[0] / "strokes" / "mean.parquet")["predicted_float_value"][0]
    share = pl.read_parquet(predicted[0] / "stroke_10d" / "prevalence.parquet")[
        "predicted_boolean_probability"
    ][0]
    assert mean == pytest.approx(share, abs=0.05)


def test_the_estimator_can_be_counting(tmp_path, cohort_folder, simulated):
    predict(simulated[0], cohort_folder, tmp_path, [TASK], PredictSettings("mc", baselines=False))
    written = pl.read_parquet(tmp_path / "stroke_10d" / "sequela.parquet")
    assert written["predicted_boolean_probability"][1] == 0.25
    assert [path.name for path in (tmp_path / "stroke_10d").iterdir()] == ["sequela.parquet"]


def test_the_first_rollouts_of_a_simulation_can_do(tmp_path, cohort_folder, simulated):
    folder, _ = simulated
    predict(folder, cohort_folder, tmp_path / "p", [TASK], PredictSettings(first=3, baselines=False))
    answers = pl.read_parquet(next((tmp_path / "p").rglob("*.parquet")))
    assert answers["rollouts"].max() == 3
    with pytest.raises(InputError, match="has 4 rollouts a patient, not 5"):
        predict(folder, cohort_folder, tmp_path / "q", [TASK], PredictSettings(first=5, baselines=False))


def test_baselines_do_not_see_the_future_of_those_they_predict(
    tmp_path, cohort_folder, cohort_tokens, predicted, simulated
):
    """The same cohort with all futures of the held-out erased: no baseline may move."""
    blind = tmp_path / "blind"
    shutil.copytree(cohort_folder, blind)
    file = blind / "data" / "held_out" / "0.parquet"
    at = TASK.prediction_times(read_events(cohort_folder, "held_out")).select("subject_id", "prediction_time")
    kept = pl.read_parquet(file).join(at, on="subject_id", how="left")
    kept = kept.filter((pl.col("time") < pl.col("prediction_time")).fill_null(True)).drop("prediction_time")
    kept.write_parquet(file)
    predict(simulated[0], blind, tmp_path / "out", [TASK], PredictSettings(model=cohort_tokens))
    for model in ("prevalence", "age_sex", "logistic", "trees", "cox", *MORE):
        blinded, sighted = (
            pl.read_parquet(folder / "stroke_10d" / f"{model}.parquet")
            for folder in (tmp_path / "out", predicted[0])
        )
        assert blinded["predicted_boolean_probability"].equals(sighted["predicted_boolean_probability"])
        assert blinded["boolean_value"].null_count() > sighted["boolean_value"].null_count()


def test_patients_that_baselines_learn_from_are_not_predicted(tmp_path, cohort_folder):
    folder, patients = simulate(tmp_path / "s", cohort_folder, split="train", rollouts=1)
    with pytest.raises(InputError, match=rf"patient {patients[0]} was simulated and is in the split 'train'"):
        predict(folder, cohort_folder, tmp_path / "out", [TASK])
    alone = predict(folder, cohort_folder, tmp_path / "out", [TASK], PredictSettings(baselines=False))
    assert alone["stroke_10d"]["patients"] > 200


def test_a_task_that_was_not_simulated(tmp_path, cohort_folder, simulated):
    later = make_task(name="later", offset=2 * DAY)
    with pytest.raises(InputError, match="simulate the task later"):
        predict(simulated[0], cohort_folder, tmp_path / "out", [later])


AS_ICD10 = {
    "ICD9CM//25000": "ICD10CM//E119",
    "ICD9CM//25060": "ICD10CM//E1140",
    "ICD9CM//4019": "ICD10CM//I10",
    "ICD9CM//4280": "ICD10CM//I509",
}


def coded_cohort(folder, icd10):
    """300 made patients with diagnoses before and after entry, in ICD-9-CM or the same in ICD-10-CM."""
    draw = np.random.default_rng(1)
    rows = []
    for patient in range(300):
        for day in (*draw.integers(-20, 0, 2), *draw.integers(2, 15, 2)):
            code = str(draw.choice(list(AS_ICD10), p=(0.2, 0.1, 0.4, 0.3)))
            rows.append((patient, int(day), AS_ICD10[code] if icd10 else code))
        rows += [(patient, None, "GENDER//F"), (patient, -18_000, "MEDS_BIRTH"), (patient, 0, "ENTRY")]
        rows += [(patient, int(draw.integers(5, 25)), FOLLOW_UP_END)]
    write_dataset(make_events(rows), folder, name="made", fractions=(0.6, 0.1, 0.3))
    return folder


@pytest.fixture(scope="module")
def old_and_new(tmp_path_factory):
    """The predictions about one cohort, by how its codes are written and whether the model has maps."""
    folder = tmp_path_factory.mktemp("coded")
    task = make_task(outcome=("ICD10CM//E11*",), exclude=("ICD10CM//E11*",), name="stroke_10d")
    meds = {name: coded_cohort(folder / name, icd10=name == "new") for name in ("old", "new")}
    found = {}
    for name, maps in (("new", ("gem",)), ("old", ("gem",)), ("old", ())):
        loaded = tuple(load_map(one) for one in maps)
        asked = requests([task], meds[name], maps=loaded)[0].times
        rows = [rollout(patient, 0, scope=0.5) for patient in asked["subject_id"]]
        simulated = write_simulated(folder / f"{name}-{len(maps)}", rows)
        (simulated / "simulate.json").write_text(json.dumps({"maps": save_maps(loaded, simulated)}))
        out = folder / f"{name}-{len(maps)}-out"
        predict(simulated, meds[name], out, [task])
        found[name, maps] = {path.stem: pl.read_parquet(path) for path in sorted((out / task.name).iterdir())}
    return found


def test_old_codes_count_as_what_the_models_maps_make_of_them(old_and_new):
    """Cohort, labels and every baseline are those of the same record in the codes that the model speaks."""
    old, new = old_and_new["old", ("gem",)], old_and_new["new", ("gem",)]
    assert set(old) == {"sequela", "prevalence", "age_sex", "logistic", "trees", "cox", *FOREST}
    assert all(old[model].equals(new[model]) for model in new)
    labels = new["sequela"]["boolean_value"]
    assert labels.sum() > 5 and (~labels).sum() > 5
    assert new["logistic"]["predicted_boolean_probability"].n_unique() > 1  # features see the codes


def test_without_the_maps_old_codes_are_other_codes(old_and_new):
    """The negative control: nobody is kept out of the cohort, and nobody has the outcome."""
    bare, new = old_and_new["old", ()]["sequela"], old_and_new["new", ("gem",)]["sequela"]
    assert len(bare) > len(new) and bare["boolean_value"].sum() == 0


def seed_like(path, simulated, seed, factor):
    """A copy of a simulated folder as of another training seed, with other hazards."""
    shutil.copytree(simulated, path)
    rollouts = pl.read_parquet(path / "rollouts.parquet")
    column = "scope//stroke_10d"
    rollouts.with_columns(pl.col(column) * factor).write_parquet(path / "rollouts.parquet")
    about = json.loads((path / "simulate.json").read_text()) if (path / "simulate.json").exists() else {}
    about["settings"] = about.get("settings", {}) | {"seed": seed}
    (path / "simulate.json").write_text(json.dumps(about))
    return path


def test_seeds_are_averaged_and_each_stays_visible(tmp_path, cohort_folder, simulated):
    folders = [seed_like(tmp_path / str(seed), simulated[0], seed, 1 + seed) for seed in range(2)]
    settings = PredictSettings(baselines=False)
    report = predict(folders, cohort_folder, tmp_path / "out", [TASK], settings)
    assert report["stroke_10d"]["models"] == ["sequela", "sequela_1", "sequela_2"]
    assert report["stroke_10d"]["unpredicted"] == 1
    mean, one, two = (
        pl.read_parquet(tmp_path / "out" / "stroke_10d" / f"{model}.parquet").drop_nulls(
            "predicted_boolean_probability"
        )
        for model in report["stroke_10d"]["models"]
    )
    risk = one["predicted_boolean_probability"].to_numpy()
    assert np.allclose(two["predicted_boolean_probability"], 2 * risk, atol=1e-6)
    assert np.allclose(mean["predicted_boolean_probability"], 1.5 * risk, atol=1e-6)
    assert np.allclose(mean["between_seeds"], risk / np.sqrt(2), atol=1e-6)
    assert mean["seeds"].to_list() == [2] * len(mean)
    assert one["seeds"].null_count() == one["between_seeds"].null_count() == len(one)
    assert (mean["standard_error"] < two["standard_error"]).all()
    alone = predict(folders[0], cohort_folder, tmp_path / "alone", [TASK], settings)
    assert alone["stroke_10d"]["models"] == ["sequela"]


def test_only_the_same_questions_are_averaged(tmp_path, cohort_folder, simulated):
    fewer = seed_like(tmp_path / "fewer", simulated[0], 1, 1)
    rollouts = pl.read_parquet(fewer / "rollouts.parquet")
    rollouts.filter(pl.col("subject_id") != simulated[1][0]).write_parquet(fewer / "rollouts.parquet")
    count = len(simulated[1])
    with pytest.raises(InputError, match=rf"other questions of 'stroke_10d' \({count} and {count - 1}\)"):
        predict([simulated[0], fewer], cohort_folder, tmp_path / "out", [TASK])
