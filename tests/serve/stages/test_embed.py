"""From a corpus to states to a probe on the command line, and what the wrong input gets."""

from pathlib import Path

import pytest
import yaml

from sequela.record.dataset import write_dataset
from sequela.record.questions import QUESTION, read_questions, write_questions
from sequela.record.worlds.latent import LatentWorld
from sequela.rollout.embeddings.folder import read_embeddings, read_facts
from sequela.serve.cli import run

PATIENTS = 120
TASK = {
    "name": "death_90d", "title": "Death within 90 days", "dataset": "made", "kind": "binary",
    "at": {"after": "LAB//A", "offset": "100 days"}, "outcome": ["MEDS_DEATH"], "ends": [],
    "horizon": "90 days", "exclude": [],
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset, models with and without state tokens, questions and a task."""
    home, world = tmp_path_factory.mktemp("world"), LatentWorld()
    write_dataset(world.events(PATIENTS, seed=0), home / "meds", name="made", fractions=(0.6, 0.2, 0.2))
    write_questions(world.truth(PATIENTS, seed=0).select(QUESTION), home / "labels.parquet")
    (home / "task.yaml").write_text(yaml.safe_dump(TASK))
    assert run(["tokenize", str(home / "meds"), str(home / "corpus")]) == 0
    for objective in ("next_token", "state_jepa"):
        size = ["--layers", "1", "--width", "32", "--heads", "2", "--context", "64", "--tokens", "3000"]
        train = ["train", str(home / "corpus"), str(home / objective), "--objective", objective, *size]
        assert run([*train, "--options", "horizons=[0,30,90]"] if objective == "state_jepa" else train) == 0
    return home


def test_states_at_the_times_of_a_file_go_into_a_probe(made, tmp_path, capsys):
    out = tmp_path / "state_jepa"
    asked = [str(made / "meds"), str(out), "--labels", str(made / "labels.parquet")]
    assert run(["embed", str(made / "state_jepa"), *asked]) == 0
    facts, frame = read_facts(out), read_embeddings(out)
    assert (facts.pooling, facts.width, facts.objective) == ("state", 32, "state_jepa")
    assert frame.select(QUESTION).equals(read_questions(made / "labels.parquet"))
    assert "left out" not in capsys.readouterr().err
    assert run(["embed", str(made / "state_jepa"), *asked]) == 0 and "is up to date" in capsys.readouterr().err


def test_landmarks_of_a_task_go_into_a_probe(made, tmp_path):
    about = ["--task", str(made / "task.yaml"), "--landmark", "0 days", "--landmark", "30 days"]
    for arm in ("next_token", "state_jepa"):
        assert run(["embed", str(made / arm), str(made / "meds"), str(tmp_path / arm), *about]) == 0
    both = [str(tmp_path / "next_token"), str(made / "meds"), str(tmp_path / "probed")]
    assert run(["probe", *both, "--also", str(tmp_path / "state_jepa"), "--no-baselines", *about]) == 0
    assert (tmp_path / "probed" / "death_90d@30 days" / "state_jepa.parquet").exists()


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--pooling", "state"], "has no state tokens"),
        (["--pooling", "first"], "pooling must be auto, state, last, moment, mean"),
        (["--landmark", "soon"], "soon"),
        (["--labels", "missing.parquet"], "does not exist"),
        ([], "nothing is asked"),
    ],
)
def test_wrong_input_gets_one_sentence(made, tmp_path, capsys, words, answer):
    needed = [] if not words or "--labels" in words else ["--task", str(made / "task.yaml")]
    given = [str(made / "next_token"), str(made / "meds"), str(tmp_path / "out")]
    assert run(["embed", *given, *needed, *words]) == 2
    said = capsys.readouterr().err
    assert answer in said and "Traceback" not in said and not (tmp_path / "out").exists()


def test_a_model_that_is_none_is_named(made, tmp_path, capsys):
    given = [str(made / "corpus"), str(made / "meds"), str(tmp_path / "out"), "--task", str(made / "task.yaml")]
    assert run(["embed", *given]) == 2 and str(made / "corpus") in capsys.readouterr().err
