"""The command line: help in words, exit codes, one sentence for what the user can mend."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from sequela.errors import InputError
from sequela.serve.cli import run

COMMANDS = (
    "demo",
    "ingest",
    "tokenize",
    "train",
    "simulate",
    "predict",
    "whatif",
    "evaluate",
    "probe",
    "report",
    "tasks",
)
HEAVY = ("torch", "polars", "numpy", "sklearn", "statsmodels", "jinja2", "duckdb")


def test_help_lists_every_command(capsys: pytest.CaptureFixture) -> None:
    assert run(["--help"]) == 0
    listed = set(re.findall(r"^│ (\w+) ", capsys.readouterr().out, re.MULTILINE))
    assert listed >= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_explains_every_option_with_an_example(
    command: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert run([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"Example: sequela {command}" in text
    for option in ("--config", "--quiet", "--seed"):
        assert option in text
    rows = re.findall(r"^│ +(?:\* +)?((?:--)?[A-Za-z][\w-]*.*?) *│$", text, re.MULTILINE)
    assert len(rows) >= 3
    assert [row for row in rows if not re.search(r" {2,}\w", row)] == [], "an option without words"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from sequela.serve.cli import run; run(['--help']); run(['train', '--help']); "
        f"print('heavy:', sorted(set({HEAVY}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy: []"


def test_tokenizing_a_small_dataset_imports_nothing_slow(world_meds: Path, tmp_path: Path) -> None:
    slow = ("torch", "pandas", "pyarrow.compute", "numpy.ma", "multiprocessing", "rich", *HEAVY[3:])
    code = (
        f"import sys; from sequela.serve.cli import run; run({['tokenize', str(world_meds), str(tmp_path / 'out')]}); "
        f"print('slow:', sorted(set({slow}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "slow: []"
    assert (tmp_path / "out" / "corpus.json").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["tokenzie", "a", "b"], 'Unknown command "tokenzie". Did you mean "tokenize"?'),
        (["tokenize", "nowhere", "out"], "nowhere does not exist"),
        (["tokenize", "a"], "OUT"),
        (["train", "a", "b", "--depth", "two"], "'two' is not a whole number"),
        (["train", "a", "b", "--dpeth", "2"], "--dpeth"),
        (["simulate", "a", "b", "c", "--task", "deth_5y"], "there is no task 'deth_5y'"),
        (["demo", "--source", "nadfl"], "there is no demo for 'nadfl'"),
        (["tokenize", "a", "b", "--quantiles", "1"], "quantiles must be 2 or more"),
        (["simulate", "a", "b", "c", "--rolouts", "2"], "Did you mean --rollouts? `sequela --help`"),
        (["tokenize", "a", "b", "--quantiles", "2.5"], "'2.5' is not a whole number"),
        (["tokenize", "a", "b", "--quantiles", "1e400"], "'1e400' is not a whole number"),
        (["tokenize", "a", "b", "--quantiles", "1e9"], "--quantiles must be 1000 or less"),
        (["tokenize", "a", "b", "--interval-edges", "1", "nan"], "'nan' is not a whole number"),
        (["tokenize", "a", "b", "--seed", "9" * 20], "give a whole number of at most 18 digits"),
        (["train", "a", "b", "--seed", "9" * 20], "--seed is 99999999999999999999: give a whole number of at most 18"),
        (["evaluate", "a", "b", "--seed", "-1"], "--seed must be 0 or more, not -1"),
        (["demo", "--seed", "-1"], "--seed must be 0 or more, not -1"),
        (["ingest", "meds", "a", "b", "--fractions", "nan", "1", "0"], "--fractions must be a finite number, not nan"),
        (["scale", "a", "b", "--flops", "1e400", "1"], "--flops must be a finite number, not inf"),
        (["tokenize", "", "b"], "MEDS is empty: give a path"),
        (["tokenize", "a", ""], "OUT is empty: give a path"),
        (["ingest", "meds", "", "b"], "RAW is empty: give the folder"),
        (["tokenize", "a", "b", "--config", ""], "--config is empty: give a path"),
        (["train", "a", "b", "--config", "x.toml", "--config", "y.toml"], "--config specified multiple times"),
        (["train", "a", "b", "--config", "none.toml"], "none.toml cannot be read"),
    ],
)
def test_what_the_user_can_mend_is_one_sentence(
    arguments: list[str],
    complaint: str,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run([*arguments, "--quiet"]) == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert len(written.err.splitlines()) == 1
    assert complaint in written.err
    assert list(tmp_path.iterdir()) == []


def test_settings_come_from_a_file_and_flags_win(
    small_demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = tmp_path / "my.toml"
    config.write_text("[tokenize]\nquantiles = 4\nmin-patients = 20\n[train]\ndepth = 1\n")
    meds, out = str(small_demo / "meds"), tmp_path / "corpus"
    assert run(["tokenize", meds, str(out), "--config", str(config), "--quantiles", "5"]) == 0
    settings = json.loads((out / "manifest.json").read_text())["settings"]
    assert (settings["quantiles"], settings["min_patients"]) == (5, 20)
    assert "corpus written in" in capsys.readouterr().err
    config.write_text("[tokenize]\nquantyles = 4\n")
    assert run(["tokenize", meds, str(out), "--config", str(config)]) == 2
    complaint = capsys.readouterr().err
    assert "quantyles" in complaint
    assert "my.toml" in complaint


def test_tasks_as_lines_and_as_json(capsys: pytest.CaptureFixture) -> None:
    assert run(["tasks"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert run(["tasks", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [line.split()[0] for line in lines] == [task["name"] for task in found]


def test_demo_prints_table_time_and_memory(
    small_demo: Path,
    small_meds: Path,
    small_config: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr("sequela.serve.stages.demo.nafld", lambda: small_meds)
    assert run(["demo", "--out", str(small_demo), "--config", str(small_config), "--quiet"]) == 0
    written = capsys.readouterr()
    assert written.err == ""
    assert "new_cardiovascular_5y" in written.out
    assert re.search(r"sequela +[.\d]+ \[[.\d]+, [.\d]+\]", written.out)
    assert re.search(r"peak memory [\d,]+ MB", written.out)


def test_what_the_user_can_mend_ends_with_its_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sequela", "train", "nowhere", str(tmp_path / "model"), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "sequela: nowhere does not exist: check the path, or run the stage that makes it."
    ]


def test_our_bugs_exit_with_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr("sequela.task.catalog.catalog", lambda: 1 / 0)
    assert run(["tasks"]) == 1
    assert "bug in sequela" in capsys.readouterr().err


class Panic(BaseException):
    """What Polars makes of an exception that passes through it."""


def _raises_interrupt() -> None:
    raise KeyboardInterrupt


def _is_hit_by(number: int, becomes: type[BaseException] = KeyboardInterrupt) -> None:
    try:
        signal.raise_signal(number)
    except KeyboardInterrupt:
        raise becomes("a module that was half imported") from None


@pytest.mark.parametrize(
    "stopped, code",
    [
        (_raises_interrupt, 130),
        (partial(_is_hit_by, signal.SIGINT), 130),
        (partial(_is_hit_by, signal.SIGINT, AttributeError), 130),
        (partial(_is_hit_by, signal.SIGTERM), 143),
        (partial(_is_hit_by, signal.SIGTERM, Panic), 143),
        (partial(_is_hit_by, signal.SIGTERM, InputError), 143),
        (partial(_is_hit_by, signal.SIGHUP), 129),
    ],
)
def test_being_stopped_is_no_bug_of_ours(
    stopped, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr("sequela.task.catalog.catalog", stopped)
    assert run(["tasks"]) == code
    assert capsys.readouterr().err == "sequela: stopped; run the same command again to continue.\n"
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: ...")])
def test_a_full_memory_is_no_bug_of_ours(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def fails() -> None:
        raise error

    monkeypatch.setattr("sequela.task.catalog.catalog", fails)
    assert run(["tasks"]) == 2
    assert capsys.readouterr().err.startswith("sequela: memory ran out: ")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_stage_that_is_stopped_leaves_nothing(number: int, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/people.csv").write_text("pid\n1\n")
    # range() of so many takes DuckDB minutes
    (tmp_path / "slow.toml").write_text(
        'name = "slow"\n[tables.many]\nsql = "SELECT count(*) AS pid FROM range(1000000000000) WHERE sin(range) > 2"\n'
        '[[events]]\ntable = "many"\npatient = "pid"\ncode = "\'A\'"\n'
    )
    command = [sys.executable, "-m", "sequela", "ingest", "slow.toml", "raw", "out/meds"]
    heard = partial(signal.signal, signal.SIGHUP, signal.SIG_DFL)  # under nohup these tests inherit that it is ignored
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path, preexec_fn=heard) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("out/.meds.unfinished-*/*")) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        try:
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 128 + number
    assert errors.splitlines()[-1] == "sequela: stopped; run the same command again to continue."
    assert list((tmp_path / "out").iterdir()) == []


def test_ctrl_c_ends_with_a_sentence_and_leaves_nothing(small_demo: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    command = [
        sys.executable,
        "-m",
        "sequela",
        "train",
        str(small_demo / "corpus"),
        str(out),
        "--epochs",
        "500",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".model.unfinished-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "sequela: stopped; run the same command again to continue."
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_has_seen_enough_is_no_bug() -> None:
    command = f"{sys.executable} -m sequela tasks --json | head -c 1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[", "")
