"""What an embedding may know: canaries that give the answer away, planted before a question, at it, and behind it."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sequela.errors import InputError
from sequela.record.dataset import write_dataset
from sequela.record.schema import DEATH
from sequela.rollout.embeddings.folder import read_embeddings, vectors_of
from sequela.rollout.embeddings.settings import EmbedSettings
from sequela.task.baselines.baseline import TrainingSample
from sequela.task.probing.embed import embed
from sequela.task.probing.heads import ProbeRows, fit_logistic
from sequela.task.probing.landmarks import at_offsets
from sequela.task.scoring.metric import AUROC
from sequela.tokens.ehr.settings import TokenSettings
from sequela.tokens.ehr.tokenize import tokenize
from tests.rollout.conftest import untrained
from tests.task.conftest import START, make_events, make_task

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
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights: whatever token it reads moves its hidden states."""
    home = tmp_path_factory.mktemp("canary")
    both = pl.concat([planted("CANARY", 0.5), planted(DEATH, 20).with_columns(pl.col("subject_id") + PATIENTS)])
    write_dataset(both, home / "meds", name="canaries")
    for name in ("corpus", "model"):
        (home / name).mkdir()
    tokenize(home / "meds", home / "corpus", TokenSettings(min_patients=2))
    return untrained(home / "corpus", home / "model")


def auroc(model: Path, events: pl.DataFrame, home: Path) -> float:
    """Of a probe that knows who had the outcome, on the vectors of a question a day after the entry."""
    write_dataset(events, home / "meds", name="canaries")
    (home / "out").mkdir()
    settings = EmbedSettings("mean")
    about = embed(model, home / "meds", home / "out", [make_task()], at_offsets(["0 days"]), settings)
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
def test_what_comes_at_the_question_or_later_is_not_known(model: Path, tmp_path: Path, code: str, day: float) -> None:
    """Death at the very time of the question included: its patients are asked, and nothing shows it."""
    found = auroc(model, planted(code, day), tmp_path)
    assert abs(found - 0.5) < 0.17  # 80 patients are scored: two standard errors


def test_what_came_before_is_known(model: Path, tmp_path: Path) -> None:
    """The negative control, a minute before the question."""
    assert auroc(model, planted("CANARY", AT - 1 / 1440), tmp_path) > 0.95


def test_nobody_to_embed_is_told(model: Path, tmp_path: Path) -> None:
    write_dataset(planted("CANARY", 0.5), tmp_path / "meds", name="canaries")
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="nobody is asked who has a history"):
        embed(model, tmp_path / "meds", tmp_path / "out", [make_task(after="NEVER")], at_offsets(["0 days"]))
