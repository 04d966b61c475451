"""Imports only go down, those inside functions too; torch starts at the model."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def lint(folder: Path) -> subprocess.CompletedProcess:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(
        ROOT / "sequela", tmp_path / "sequela", ignore=shutil.ignore_patterns("__pycache__", "cohort")
    )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_floors_hold() -> None:
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("module", "code", "contract"),
    [
        ("record/planted.py", "def f():\n    from sequela.serve import cli\n", "Imports only go down"),
        ("training/planted.py", "from sequela.rollout.engine import engine\n", "Imports only go down"),
        ("rollout/engine/planted.py", "import sequela.tokens.ehr.code\n", "The engine knows neither"),
        ("rollout/engine/planted.py", "from sequela.rollout import tracker\n", "The engine knows neither"),
        ("tokens/planted.py", "def f():\n    import torch\n", "No torch below the model"),
        ("task/planted.py", "import torch.nn\n", "No torch below the model"),
        ("record/planted.py", "from sequela.record.ingest.tables import sql\n", "Only ingest reads raw tables"),
    ],
)
def test_a_planted_import_is_found(copy: Path, module: str, code: str, contract: str) -> None:
    (copy / "sequela" / module).write_text(code)
    result = lint(copy)
    assert result.returncode == 1, result.stdout + result.stderr
    broken = [text for text in result.stdout.splitlines() if text.endswith("BROKEN")]
    assert len(broken) == 1
    assert contract in broken[0]
    assert "planted" in result.stdout


def test_importing_sequela_is_light() -> None:
    heavy = "{'torch', 'polars', 'numpy', 'sklearn', 'statsmodels', 'rich'}"
    for start in ("import sequela", "from sequela import TrainSettings, InputError"):
        code = f"import sys; {start}; print(sorted({heavy} & set(sys.modules)))"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
        )
        assert done.stdout.strip() == "[]"
