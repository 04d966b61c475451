"""Which questions are embedded: those of tasks at landmarks and of label files, each once, and who is left out."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sequela.errors import InputError
from sequela.record.dataset import read_events
from sequela.record.duration import DAY
from sequela.record.questions import QUESTION, write_questions
from sequela.record.schema import DEATH
from sequela.rollout.embeddings.embedder import Embedder
from sequela.rollout.embeddings.folder import read_embeddings, read_facts, vectors_of
from sequela.task.probing.embed import embed, objective_of
from sequela.task.probing.landmarks import at_offsets, landmarks_of
from sequela.task.probing.tables import SplitEvents, build_tables, questions_asked
from tests.rollout.conftest import untrained
from tests.task.conftest import make_task


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
