"""No file can run code when it is read, and nothing in the repository speaks of the machine it was written on."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FORBIDDEN_MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
FORBIDDEN_CALLS = {"torch.load"}
TEXT = {".py", ".md", ".toml", ".yaml", ".yml", ".html", ".json", ".txt", ".sh", ".cfg", ""}
# A path of one machine, a numbered ticket: both mean nothing to whoever reads this elsewhere.
PRIVATE = re.compile(r"(?<![\w.:/])/(?:work|root|home|Users|mnt|media)/[\w.]|\b[Ii]ssue #?\d+\b|\.library/")


def unsafe(source: str) -> list[str]:
    """Everything in a module that can read a pickle."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names if name.name.split(".")[0] in FORBIDDEN_MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in FORBIDDEN_MODULES:
            found.append(str(node.module))
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in FORBIDDEN_CALLS or name.endswith(".read_pickle"):
                found.append(name)
            found += [
                f"{name}(allow_pickle)"
                for keyword in node.keywords
                if keyword.arg == "allow_pickle"
                and not (isinstance(keyword.value, ast.Constant) and not keyword.value.value)
            ]
    return found


def tracked() -> list[Path]:
    """The files of the repository; those on disk where this is no checkout."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        return [ROOT / name for name in listed.stdout.splitlines()]
    return [
        path
        for folder in ("sequela", "tests", "docs")
        for path in (ROOT / folder).rglob("*")
        if path.is_file()
    ]


@pytest.mark.parametrize("folder", ["sequela", "tests", "bench", "docs"])
def test_no_pickle(folder: str) -> None:
    found = {
        str(path): unsafe(path.read_text())
        for path in (ROOT / folder).rglob("*.py")
        if path != Path(__file__)
    }
    assert {path: calls for path, calls in found.items() if calls} == {}


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("import pickle", "pickle"),
        ("def f():\n    from joblib import load", "joblib"),
        ("import torch\ntorch.load('x')", "torch.load"),
        ("import numpy as np\nnp.load('x', allow_pickle=True)", "np.load(allow_pickle)"),
        ("import pandas as pd\npd.read_pickle('x')", "pd.read_pickle"),
    ],
)
def test_a_pickle_is_seen(source: str, name: str) -> None:
    assert unsafe(source) == [name]
    assert unsafe("import numpy as np\nnp.load('x', allow_pickle=False)") == []


def private(text: str) -> list[str]:
    """Lines that speak of one machine or of one workplace."""
    return [line for line in text.splitlines() if PRIVATE.search(line)]


def test_nothing_private_in_the_repository() -> None:
    own = Path(__file__).resolve()
    texts = [path for path in tracked() if path.suffix in TEXT and path.is_file() and path != own]
    found = {str(path.relative_to(ROOT)): private(path.read_text(errors="replace")) for path in texts}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "line", ["see /home/anna/data", "'/root/x'", "as issue 12 says", "fixes Issue #3", "a/.library/b"]
)
def test_a_private_line_is_seen(line: str) -> None:
    assert private(line) == [line]
    assert private("https://example.org/home/page and docs/home/x, an issue of 3 kinds") == []
