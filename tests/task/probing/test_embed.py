"""Which questions are embedded: those of tasks at landmarks and of label files, each once, and who is left out. And
what an embedding may know: canaries give the answer away, planted before a question, at it, and behind it."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sequela.errors import InputError
from sequela.record.dataset import read_events, write_dataset
from sequela.record.duration import DAY
from sequela.record.questions import QUESTION, write_questions
from sequela.record.schema import DEATH
from sequela.rollout.embeddings.embedder import Embedder
from sequela.rollout.embeddings.folder import read_embeddings, read_facts, vectors_of
from sequela.rollout.embeddings.settings import EmbedSettings
from sequela.task.baselines.baseline import TrainingSample
from sequela.task.probing.embed import embed, objective_of
from sequela.task.probing.heads import ProbeRows, fit_logistic
from sequela.task.probing.landmarks import at_offsets, landmarks_of
from sequela.task.probing.tables import SplitEvents, build_tables, questions_asked
from sequela.task.scoring.metric import AUROC
from sequela.tokens.ehr.settings import TokenSettings
from sequela.tokens.ehr.tokenize import tokenize
from tests.rollout.conftest import untrained
from tests.task.conftest import START, make_events, make_task


@pytest.fixture(scope="module")
def model(world_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained(world_corpus, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def death(world_meds: Path):
    return make_task(name="death", after="COHORT//ENTRY", outcome=(DEATH,), ends=(), horizon=5 * DAY)


@pytest.fixture(scope="module")
def patients(world_meds: Path) -> pl.DataFrame:
    """Of everyone the first and the last moment, and whether they die."""
    events = pl.concat(read_events(world_meds, split) for split in ("train", "tuning", "held_out"))
    dated = events.drop_nulls("time").group_by("subject_id").agg(
        born=pl.col("time").min(), end=pl.col("time").max(), dead=(pl.col("code") == DEATH).any()
    )
    return dated.sort("subject_id")


def labels_of(path: Path, rows: list[tuple]) -> Path:
    frame = pl.DataFrame(rows, schema=dict(zip(QUESTION, (pl.Int64, pl.Datetime("us")), strict=True)), orient="row")
    write_questions(frame, path)
    return path


def test_a_probe_finds_every_question_that_it_asks(model, world_meds, death, tmp_path):
    landmarks = at_offsets(["0 days", "2 days"])
    made = embed(model, world_meds, tmp_path / "out", [death], landmarks)
    frame = read_embeddings(tmp_path / "out")
    asked = questions_asked(build_tables([death], landmarks, SplitEvents.read(world_meds)))
    assert frame.select(QUESTION).equals(asked) and made["questions"] == len(asked) > 600
    assert made["without_history"] == made["left_out"] == 0 and made["pooling"] == "last"
    facts = read_facts(tmp_path / "out")
    assert (facts.pooling, facts.width, facts.objective) == ("last", 32, "next_token")
    some = frame.filter(pl.col("subject_id") == frame["subject_id"].max())
    events = pl.concat(read_events(world_meds, split) for split in ("train", "tuning", "held_out"))
    theirs = events.filter(pl.col("subject_id") == some["subject_id"][0])
    alone = Embedder.load(model).vectors(theirs, some.select(QUESTION))
    np.testing.assert_allclose(vectors_of(some), alone[1], atol=1e-4)


def test_a_label_file_needs_no_task_and_says_whom_it_leaves_out(model, world_meds, patients, tmp_path):
    hour = timedelta(hours=1)
    dead, living = (patients.filter(pl.col("dead") == died).row(0) for died in (True, False))
    rows = [
        (living[0], living[2] - hour),
        (living[0], living[2] + hour),  # the record is over
        (living[0], living[1] - hour),  # before birth
        (dead[0], dead[2] + hour),
        (999_999, living[2]),  # not in the dataset
    ]
    landmarks = landmarks_of((), labels_of(tmp_path / "labels.parquet", rows))
    made = embed(model, world_meds, tmp_path / "out", [], landmarks)
    assert (made["questions"], made["without_history"], made["left_out"]) == (1, 1, 3)
    assert read_embeddings(tmp_path / "out").select(QUESTION).rows() == rows[:1]


@pytest.mark.parametrize("which", ["after the end", "before birth", "nobody"])
def test_where_no_question_has_a_history_it_says_so(model, world_meds, patients, tmp_path, which):
    who, born, end, _ = patients.row(0)
    day = timedelta(days=1)
    row = {"after the end": (who, end + day), "before birth": (who, born - day), "nobody": (999_999, end)}[which]
    landmarks = landmarks_of((), labels_of(tmp_path / "labels.parquet", [row]))
    with pytest.raises(InputError, match=r"no question has a history to embed .* ask about times within the records"):
        embed(model, world_meds, tmp_path / "out", [], landmarks)


def test_what_a_model_was_trained_with(tmp_path):
    assert objective_of(tmp_path) == "next_token"
    (tmp_path / "train.json").write_text('{"settings": {"objective": "state_jepa"}}')
    assert objective_of(tmp_path) == "state_jepa"


PATIENTS = 240
HAPPENED = np.random.default_rng(0).random(PATIENTS) < 0.4
AT = 1.0  # day of the question


def planted(code: str, day: float) -> pl.DataFrame:
    """Patients who differ in nothing but a code on a day, which gives away for whom the outcome comes."""
    rows = []
    for patient in range(PATIENTS):
        rows += [(patient, -9000 - 40 * (patient % 50), "MEDS_BIRTH"), (patient, -3, f"LAB//{patient % 7}")]
        rows += [(patient, 0, "ENTRY"), (patient, 15, "LAB//0")]
        rows += [(patient, day, code if HAPPENED[patient] else "LAB//1")]
    return make_events(rows)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights: whatever token it reads moves its hidden states."""
    home = tmp_path_factory.mktemp("canary")
    both = pl.concat([planted("CANARY", 0.5), planted(DEATH, 20).with_columns(pl.col("subject_id") + PATIENTS)])
    write_dataset(both, home / "meds", name="canaries")
    for name in ("corpus", "model"):
        (home / name).mkdir()
    tokenize(home / "meds", home / "corpus", TokenSettings(min_patients=2))
    return untrained(home / "corpus", home / "model")


def auroc(reader: Path, events: pl.DataFrame, home: Path) -> float:
    """Of a probe that knows who had the outcome, on the vectors of a question a day after the entry."""
    write_dataset(events, home / "meds", name="canaries")
    (home / "out").mkdir()
    settings = EmbedSettings("mean")
    about = embed(reader, home / "meds", home / "out", [make_task()], at_offsets(["0 days"]), settings)
    frame = read_embeddings(home / "out").sort("subject_id")
    assert about["questions"] == frame.height > 0.5 * PATIENTS
    assert frame["prediction_time"].unique().to_list() == [START + timedelta(days=AT)]
    vectors, patient = vectors_of(frame), frame["subject_id"].to_numpy()
    outcome, part = HAPPENED[patient].astype(float), np.arange(len(patient)) % 3
    train, tuning, asked = (
        ProbeRows(patient[rows], TrainingSample(vectors[rows], outcome[rows], np.ones(len(rows))))
        for rows in (np.flatnonzero(part == number) for number in range(3))
    )
    risk = fit_logistic(train, tuning).predict(asked.sample.values)
    return float(AUROC(asked.sample.outcome, risk, asked.sample.weights))


@pytest.mark.parametrize("day", [AT, 1.5, 12.0])
@pytest.mark.parametrize("code", ["CANARY", DEATH])
def test_what_comes_at_the_question_or_later_is_not_known(reader: Path, tmp_path: Path, code: str, day: float) -> None:
    """Death at the very time of the question included: its patients are asked, and nothing shows it."""
    found = auroc(reader, planted(code, day), tmp_path)
    assert abs(found - 0.5) < 0.17  # 80 patients are scored: two standard errors


def test_what_came_before_is_known(reader: Path, tmp_path: Path) -> None:
    """The negative control, a minute before the question."""
    assert auroc(reader, planted("CANARY", AT - 1 / 1440), tmp_path) > 0.95
