"""From folders of vectors to a comparison: on a cohort in which some vectors know the truth and some know nothing."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sequela.errors import InputError
from sequela.record.dataset import read_events
from sequela.record.duration import DAY
from sequela.record.splits import assigned_splits
from sequela.task.answers.prediction import read_predictions
from sequela.task.probing import probe as probing
from sequela.task.probing.landmarks import at_offsets
from sequela.task.probing.probe import ProbePlan, probe
from sequela.task.probing.settings import ProbeSettings
from tests.task.conftest import make_task
from tests.task.probing.conftest import write_arm

PLAIN = ProbeSettings(strong=False)


def plan(*durations: str, **changes) -> ProbePlan:
    return ProbePlan([make_task(**changes)], at_offsets(durations or ["0 days"]))


@pytest.fixture(scope="module")
def metrics(arms: dict[str, Path], cohort_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    out = tmp_path_factory.mktemp("probed")
    settings = ProbeSettings(strong=False, reference="blurred", cox=True, few_shot=(2, 16, 500), replicates=2)
    return probe(list(arms.values()), cohort_folder, out, plan("0 days", "2 days"), settings), out


def test_what_knows_is_better_and_what_knows_nothing_is_worse(metrics: tuple[dict, Path]) -> None:
    for name in ("0 days", "2 days"):
        task = metrics[0]["tasks"][f"stroke_10d@{name}"]
        score = {model: task["models"][model]["auroc"]["value"] for model in task["models"]}
        assert score["knowing"] > score["blurred"] > score["blind"]
        assert abs(score["blind"] - 0.5) < 0.15 and score["knowing_cox"] > 0.7
        assert {"last_values", "trees", "cox", "logistic"} <= set(score)
        assert abs(score["last_values"] - score["knowing"]) < 0.05  # age and the lab are what there is to know
        assert set(task["difference"]) == set(score) - {"blurred"}
        gap = task["difference"]["blind"]
        assert gap["value"] == pytest.approx(score["blind"] - score["blurred"])
        assert gap["low"] < gap["value"] < gap["high"]
        assert task["difference"]["blind"]["word"] in ("is beaten by", "not decided")
        assert task["verdict"].startswith("blurred reaches AUROC ")
    assert metrics[0]["tasks"]["stroke_10d@0 days"]["landmark_days"] == 0


def test_several_seeds_are_a_mean_and_stand_beside_it(metrics: tuple[dict, Path]) -> None:
    task = metrics[0]["tasks"]["stroke_10d@0 days"]
    seeds = task["by_seed"]["blurred"]
    assert list(seeds) == ["blurred-seed1", "blurred-seed2"] and task["seeds"] == 2
    assert task["models"]["blurred"]["auroc"]["value"] == pytest.approx(np.mean(list(seeds.values())))
    assert task["between_seeds"]["blurred"]["auroc"] == pytest.approx(np.std(list(seeds.values()), ddof=1))


def test_predictions_are_in_the_format_of_the_package(metrics: tuple[dict, Path]) -> None:
    folder = metrics[1] / "stroke_10d@2 days"
    kind, frame = read_predictions(folder / "knowing.parquet")
    task = metrics[0]["tasks"]["stroke_10d@2 days"]
    assert kind == "binary" and frame.height == task["n"] and frame["label"].count() == task["decidable"]
    assert {path.stem for path in folder.iterdir()} >= {"blurred-seed1", "blurred-seed2", "knowing_cox", "trees"}


def test_the_course_and_the_few_are_told(metrics: tuple[dict, Path]) -> None:
    told = metrics[0]["probe"]
    assert {(one["arm"], one["what"]) for one in told["courses"]} == {
        (arm, "gain per year of landmark") for arm in ("knowing", "knowing_cox", "blurred_cox", "blind", "blind_cox")
    }  # all histories are alike here, so there are no thirds of them
    few = told["few_shot"]["stroke_10d@0 days"]
    assert set(few) == {"knowing", "blurred", "blind", "last_values"} and set(few["knowing"]) == {"2", "16"}
    assert few["knowing"]["16"]["gain"] > 0 > few["blind"]["16"]["gain"]
    assert few["blurred"]["16"]["gain"] == 0
    assert told["chosen"]["stroke_10d@0 days"]["knowing"] in (1e-8, 1e-6, 1e-4, 1e-2, 1e-1, 1.0, 1e2, 1e4)
    assert set(told["wins"]) == {"knowing", "knowing_cox", "blurred_cox", "blind", "blind_cox"}
    assert told["wins"]["knowing"]["win_rate"]["value"] == 1 and told["wins"]["blind"]["mean_gain"]["value"] < 0
    json.dumps(metrics[0], allow_nan=False)


def leaks(questions: pl.DataFrame, vectors: np.ndarray, meds: Path, home: Path) -> bool:
    """Whether the answer about one half of the held-out patients moves when the vectors of the other half do."""
    splits = questions.join(assigned_splits(meds), on="subject_id", how="left", maintain_order="left")
    moved = ((splits["split"] == "held_out") & (splits["subject_id"] % 2 == 1)).to_numpy()
    answers = []
    for name, factor in (("as", 1.0), ("moved", 30.0)):
        folder = write_arm(home / name / "arm", questions, np.where(moved[:, None], factor * vectors + 1, vectors))
        settings = ProbeSettings(baselines=False, cox=True)
        probe([folder], meds, home / name / "out", plan(), settings)
        for model in ("arm", "arm_cox"):
            answers.append(read_predictions(home / name / "out" / "stroke_10d@0 days" / f"{model}.parquet")[1])
    same = [frame.filter(pl.col("subject_id") % 2 == 0)["prediction"].to_numpy() for frame in answers]
    return not (np.array_equal(same[0], same[2]) and np.array_equal(same[1], same[3]))


def test_nothing_of_the_held_out_reaches_a_head(
    daily: tuple[pl.DataFrame, np.ndarray], cohort_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(0)
    questions, truth = daily
    vectors = np.c_[truth, truth @ draw.normal(size=(6, 54)) + draw.normal(size=(len(truth), 54))].astype(np.float32)
    assert not leaks(questions, vectors, cohort_folder, tmp_path / "sound")
    sound = probing._Answers.probe

    def leaky(self, name: str, by_split: dict[str, np.ndarray], *, cox: bool, again: bool = True) -> None:
        """The scaler is fitted on everybody, the held-out patients among them."""
        everybody = np.concatenate(list(by_split.values()))
        mean, spread = everybody.mean(axis=0), everybody.std(axis=0)
        sound(self, name, {split: np.tanh((each - mean) / spread) for split, each in by_split.items()}, cox=cox)

    monkeypatch.setattr(probing._Answers, "probe", leaky)
    assert leaks(questions, vectors, cohort_folder, tmp_path / "leaky")  # the negative control


def test_numbers_are_probed_by_their_error(
    arms: dict[str, Path], daily: tuple[pl.DataFrame, np.ndarray], cohort_folder: Path, tmp_path: Path
) -> None:
    strokes = read_events(cohort_folder).filter(pl.col("code") == "STROKE").select("subject_id", "time")
    joined = daily[0].join(strokes, on="subject_id", how="left", maintain_order="left")
    days = (pl.col("time") - pl.col("prediction_time")).dt.total_microseconds() / DAY
    when = joined.select(days.fill_null(0)).to_numpy() + np.random.default_rng(0).normal(size=(joined.height, 2))
    folders = [arms["blind"], write_arm(tmp_path / "seer", daily[0], when)]
    found = probe(folders, cohort_folder, tmp_path / "out", plan(kind="time"), PLAIN)["tasks"]["stroke_10d@0 days"]
    assert found["kind"] == "time" and set(found["models"]) >= {"blind", "seer", "last_values", "median", "ridge"}
    assert found["models"]["seer"]["mae"]["value"] < found["models"]["blind"]["mae"]["value"] - 0.5
    assert found["difference"]["seer"]["value"] < 0 and found["difference"]["seer"]["word"] == "beats"


def test_folders_over_different_questions_are_refused(
    arms: dict[str, Path], daily: tuple[pl.DataFrame, np.ndarray], cohort_folder: Path, tmp_path: Path
) -> None:
    questions, vectors = daily
    some = (questions["subject_id"] > 100).to_numpy()
    part = write_arm(tmp_path / "part", questions.filter(some), vectors[some])
    with pytest.raises(InputError, match=r"part has no vector of patient \d+ at .* of \d+ such questions\): embed"):
        probe([arms["blind"], part], cohort_folder, tmp_path / "out", plan(), PLAIN)
    assert not (tmp_path / "out").exists()  # before anything is fitted


def test_two_arms_that_are_one_do_not_differ(
    daily: tuple[pl.DataFrame, np.ndarray], cohort_folder: Path, tmp_path: Path
) -> None:
    folders = [write_arm(tmp_path / name, *daily) for name in ("first", "second")]
    found = probe(folders, cohort_folder, tmp_path / "out", plan(), ProbeSettings(baselines=False))
    gap = found["tasks"]["stroke_10d@0 days"]["difference"]["second"]
    assert gap["value"] == gap["low"] == gap["high"] == 0 and gap["p"] == 1 and gap["word"] == "matches"


def test_labels_of_other_patients_cannot_be_told(
    daily: tuple[pl.DataFrame, np.ndarray], cohort_folder: Path, tmp_path: Path
) -> None:
    """All vectors of a patient become those of another one, which leaves everything but what they know."""
    questions, truth = daily
    patients = truth.reshape(-1, 6, truth.shape[1])  # six days of each
    others = np.random.default_rng(1).permutation(len(patients))
    folder = write_arm(tmp_path / "permuted", questions, patients[others].reshape(truth.shape))
    settings = ProbeSettings(baselines=False)
    score = probe([folder], cohort_folder, tmp_path / "out", plan(), settings)["tasks"]["stroke_10d@0 days"]
    assert score["models"]["permuted"]["auroc"]["low"] < 0.5 < score["models"]["permuted"]["auroc"]["high"]


def test_a_collapsed_encoder_is_told(
    daily: tuple[pl.DataFrame, np.ndarray], cohort_folder: Path, tmp_path: Path
) -> None:
    """What it knows lies in a ten-thousandth of the size of its vectors: standardized it looks like the sound one."""
    questions, truth = daily
    folders = [
        write_arm(tmp_path / "sound", questions, truth + 1),
        write_arm(tmp_path / "collapsed", questions, 1e-4 * truth + 1),
    ]
    lines: list[str] = []
    settings = ProbeSettings(baselines=False)
    told = probe(folders, cohort_folder, tmp_path / "out", plan(), settings, say=lines.append)
    found = told["probe"]["rounded"]["stroke_10d@0 days"]
    assert found["collapsed"]["as_is"] == pytest.approx(found["sound"]["as_is"], abs=0.02)
    assert found["collapsed"]["lost"] and not found["sound"]["lost"]
    (line,) = lines
    assert line.startswith("stroke_10d at 0 days: collapsed scores ") and "has collapsed" in line
