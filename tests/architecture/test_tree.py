"""The trees in the documents are those of the code, and the tests mirror it."""

import ast
import shutil
from pathlib import Path

import pytest

from docs.tree import DRAWN, draw, drawn, redraw, unlisted

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "sequela", tmp_path / "sequela", ignore=shutil.ignore_patterns("__pycache__"))
    for name in DRAWN:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def stale(root: Path) -> list[str]:
    """Documents whose tree is not the one of the code."""
    return [
        name
        for name, modules in DRAWN.items()
        if drawn((root / name).read_text()) != draw(root, modules=modules)
    ]


def test_documents_show_the_real_tree() -> None:
    assert stale(ROOT) == [], "run `make tree`"
    assert unlisted(ROOT) == []


def test_a_new_module_makes_the_page_stale(copy: Path) -> None:
    assert stale(copy) == []
    (copy / "sequela" / "record" / "planted.py").write_text('"""Not in the documents."""\n')
    assert stale(copy) == ["docs/ARCHITECTURE.md"]
    redraw(copy)
    assert stale(copy) == []
    assert "planted" in (copy / "docs" / "ARCHITECTURE.md").read_text()


def test_a_changed_sentence_makes_both_stale(copy: Path) -> None:
    (copy / "sequela" / "training" / "__init__.py").write_text('"""Something else."""\n')
    assert stale(copy) == list(DRAWN)


def test_a_drawer_beside_the_floors_is_seen(copy: Path) -> None:
    (copy / "sequela" / "utils.py").write_text("")
    assert unlisted(copy) == ["utils.py"]


def packages(package: Path) -> list[Path]:
    """Every package below the root one, the root one too."""
    return sorted(path.parent for path in package.rglob("__init__.py"))


def without_code(tests: Path, package: Path) -> list[str]:
    """Test files that no module and no data folder answers to."""
    found = []
    for folder in packages(package):
        place = folder.relative_to(package)
        names = {path.stem for path in folder.iterdir()}
        files = (tests / place).glob("test_*.py")
        found += [str(place / path.name) for path in files if path.stem.removeprefix("test_") not in names]
    return sorted(found)


def without_tests(tests: Path, package: Path) -> list[str]:
    """Modules that define a public function, but have no test file of their own."""
    found = []
    for folder in packages(package):
        place = folder.relative_to(package)
        for path in folder.glob("[!_]*.py"):
            tree = ast.parse(path.read_text())
            verbs = [
                node
                for node in tree.body
                if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
            ]
            if verbs and not (tests / place / f"test_{path.stem}.py").exists():
                found.append(str(place / path.name))
    return sorted(found)


def test_tests_mirror_the_code() -> None:
    assert without_code(ROOT / "tests", ROOT / "sequela") == []
    assert without_tests(ROOT / "tests", ROOT / "sequela") == []


def test_a_module_without_a_test_is_seen(tmp_path: Path) -> None:
    for place in ("task", "task/answers"):
        for root in ("sequela", "tests"):
            (tmp_path / root / place).mkdir(parents=True)
        (tmp_path / "sequela" / place / "__init__.py").touch()
    (tmp_path / "sequela" / "task" / "answers" / "planted.py").write_text("def f() -> None: ...\n")
    (tmp_path / "tests" / "task" / "test_other.py").write_text("")
    assert without_tests(tmp_path / "tests", tmp_path / "sequela") == ["task/answers/planted.py"]
    assert without_code(tmp_path / "tests", tmp_path / "sequela") == ["task/test_other.py"]
