"""The rules of the house hold, and each of them sees an offence that is planted in a copy."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.architecture import rules

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "sequela"
DOCUMENT = ROOT / "docs" / "ARCHITECTURE.md"

LONG = "def f() -> int:\n    x = 0\n" + "    x += 1\n" * 60 + "    return x\n"
MANY = "def f(a: int, b: int, c: int, d: int, e: int, g: int, h: int, i: int) -> None: ...\n"
SPREAD = "def f() -> int:\n    found = 0\n" + "    print()\n" * 10 + "    return found\n"

# A rule, where an offence is planted, the offence, and a word of what the rule says about it
OFFENCES: dict[str, tuple[Callable[[Path], list[str]], str, str, str]] = {
    "a long file": (rules.files_too_long, "record/planted.py", "x = 0\n" * 401, "401 lines"),
    "a long function": (rules.functions_too_large, "task/planted.py", LONG, "f has 63 lines"),
    "many parameters": (rules.functions_too_large, "task/planted.py", MANY, "f has 8 parameters"),
    "a second class of a name": (
        rules.classes_that_share_a_name,
        "serve/planted.py",
        "class Task: ...\n",
        "Task: serve/planted.py",
    ),
    "a retired word": (
        rules.retired_words,
        "rollout/planted.py",
        "def imagined_events() -> None: ...\n",
        "imagined",
    ),
    "a retired class": (rules.retired_words, "rollout/planted.py", "class TwoLanes: ...\n", "TwoLanes"),
    "a retired module": (rules.retired_words, "record/settle.py", "", "settle"),
    "a vague parameter": (
        rules.vague_names,
        "task/planted.py",
        "def f(some: int) -> None: ...\n",
        "takes 'some'",
    ),
    "a vague local": (rules.vague_names, "task/planted.py", SPREAD, "uses 'found' over 12 lines"),
    "a file of others": (
        rules.names_of_files_elsewhere,
        "serve/planted.py",
        'def f(folder):\n    return folder / "rollouts.parquet"\n',
        "rollout/folder.py",
    ),
    "a column of others": (
        rules.names_of_files_elsewhere,
        "serve/planted.py",
        'def f(name):\n    return f"scope//{name}"\n',
        "rollout/folder.py",
    ),
    "a flag": (rules.flags_below_serve, "rollout/planted.py", 'X = "give --rollouts 20"\n', "--rollouts"),
    "a kind": (
        rules.kinds_asked_for,
        "task/planted.py",
        'def f(task):\n    return task.kind == "time"\n',
        "task.kind",
    ),
    "a kind in": (
        rules.kinds_asked_for,
        "serve/planted.py",
        "def f(kind):\n    return kind in ('a',)\n",
        "kind in",
    ),
    "an objective": (
        rules.kinds_asked_for,
        "training/planted.py",
        'def f(objective):\n    if objective == "jepa":\n        return 1\n',
        "if objective",
    ),
    "text as the locale has it": (
        rules.text_without_encoding,
        "serve/planted.py",
        "def f(path):\n    return path.read_text()\n",
        "names no encoding",
    ),
    "a file as the locale has it": (
        rules.text_without_encoding,
        "serve/planted.py",
        'def f(path):\n    with path.open("w") as file:\n        file.write("x")\n',
        "names no encoding",
    ),
    "a circle": (
        rules.cycles,
        "errors.py",
        "def f() -> None:\n    from sequela import workers\n",
        "sequela.workers",
    ),
}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    leave = shutil.ignore_patterns("__pycache__", "nafld", "*.csv", "*.toml", "*.html")
    return Path(shutil.copytree(PACKAGE, tmp_path / "sequela", ignore=leave))


def test_a_folder_holds_at_most_14_modules() -> None:
    assert rules.folders_too_full(PACKAGE) == []


@pytest.mark.parametrize(
    "rule", sorted({rule for rule, *_ in OFFENCES.values()}, key=lambda rule: rule.__name__)
)
def test_the_house_keeps_the_rule(rule: Callable[[Path], list[str]]) -> None:
    assert rule(PACKAGE) == []


@pytest.mark.parametrize("name", OFFENCES)
def test_a_planted_offence_is_seen(copy: Path, name: str) -> None:
    rule, module, code, word = OFFENCES[name]
    before = set(rule(copy))
    with (copy / module).open("a") as file:
        file.write(code)
    (offence,) = set(rule(copy)) - before
    assert word in offence


def test_a_fifteenth_module_is_seen(copy: Path) -> None:
    for number in range(15):
        (copy / "task" / f"planted_{number}.py").touch()
    assert len(rules.folders_too_full(copy)) == 1


def test_the_loop_names_no_objective(copy: Path) -> None:
    assert rules.objectives_named(PACKAGE) == []
    with (copy / "training" / "loop.py").open("a") as file:
        file.write("from sequela.training.objectives.next_token import NextToken\n")
    assert [offence.split(": ")[1] for offence in rules.objectives_named(copy)] == ["NextToken", "next_token"]


def test_the_journey_is_the_way_that_records_go() -> None:
    assert rules.journey_astray(PACKAGE, DOCUMENT.read_text()) == []


def test_a_journey_through_walls_is_seen(copy: Path) -> None:
    document = DOCUMENT.read_text()
    first = rules.journey_of(document)[0]
    astray = rules.journey_astray(copy, document.replace(f"`{first}`", "`record/nowhere`"))
    assert astray == ["record/nowhere: there is no such module"]
    (copy / "record" / "detour.py").touch()
    astray = rules.journey_astray(copy, document.replace(f"`{first}`", "`record/detour`"))
    assert astray == ["record/detour: nothing imports it"]
    assert rules.journey_astray(copy, "no table") == ["there is no journey"]
