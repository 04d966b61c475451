"""The documentation's commands run as printed, on a small cohort and a small model in folders of the printed names."""

import re
import shutil
from pathlib import Path

import polars as pl
import pytest

from sequela.serve.cli import run
from tests.docs.commands import ROOT, Command, commands, documents

# Appended where the command does not say it itself
FEW = {"--rollouts": "4", "--limit": "24", "--patients": "3"}
SIMULATES = ("simulate", "calibrate", "predict", "whatif")
# Why a command is only parsed (tests/docs/test_commands.py)
NOT_RUN = {
    r"^(train|scale|demo)\b": "trains for minutes; tests/serve/stages runs them with small settings",
    r"^probe\b": "needs embeddings of several models; tests/serve/stages probes made ones",
    r"^ingest\b": "needs a foreign source; tests/record/ingest/sources runs them, tests/docs that of data.md",
    r"--executor ray": "needs a cluster",
    r"--backbone |^embed (smb-|model/ meds/ mine/)": "needs a language model; the tests make small ones",
    r"--also|(model|simulated)-2/": "needs models of several seeds; tests/serve/stages averages them",
    r"--estimator (head|cv)": "needs a model with a value head; tests/serve/stages asks a made one",
    r"--engine vllm": "needs a GPU and vLLM",
    r"(^| )[A-Z_]{2,}( |$)": "stands for a path of the reader's",
    r"atc\.csv|^tokenize (population|meds corpus)\b": "belongs to a record of hours",
}


def why_not(command: Command) -> str | None:
    """Why a command is not run here; None if it is."""
    line = " ".join(command.arguments)
    if command.page.startswith("docs/records/"):
        return "a record: hours"
    return next((why for pattern, why in NOT_RUN.items() if re.search(pattern, line)), None)


RUN = list(dict.fromkeys(command.arguments for command in commands(documents()) if why_not(command) is None))


@pytest.fixture(scope="module")
def place(small_demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with what the commands read, under the names that the documents use."""
    folder = tmp_path_factory.mktemp("place")
    for name in ("meds", "model"):
        shutil.copytree(small_demo / name, folder / name)
    asked = pl.read_parquet(small_demo / "simulated/rollouts.parquet").select("subject_id", "prediction_time")
    asked.unique(maintain_order=True).head(3).write_parquet(folder / "labels.parquet")
    (yaml,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/how-to/question.md").read_text(), re.DOTALL)[:1]
    (folder / "my_question.yaml").write_text(yaml)
    return folder


def test_there_are_commands_to_run() -> None:
    stages = {"tokenize", "simulate", "predict", "evaluate", "report", "tasks", "whatif"}
    assert {arguments[0] for arguments in RUN} >= stages


def test_the_commands_run_as_printed(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(place)
    problems = {}
    for arguments in RUN:
        code = run(cheap(arguments))
        said = capsys.readouterr().err
        if code:
            problems[" ".join(arguments)] = said.splitlines()[-1]
    assert problems == {}


def cheap(arguments: tuple[str, ...]) -> list[str]:
    """The same command about few patients and futures, without baselines."""
    few = FEW if arguments[0] in SIMULATES and arguments[1] == "model/" else {}
    words = list(arguments)
    if "--patients" in words:
        words[words.index("--patients") + 1] = FEW["--patients"]
    words += [word for flag, value in few.items() if flag not in words for word in (flag, value)]
    return [*words, "--no-baselines"] if words[0] == "predict" else words
