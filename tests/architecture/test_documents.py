"""Links lead somewhere, Python parses and names what exists, and commands in the documents can be typed."""

from pathlib import Path

import pytest

from tests.architecture.documents import (
    broken_links,
    broken_python,
    commands,
    documents,
    flags,
    missing_files,
    unknown_commands,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """A README and a page that hold what they promise."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(
        "# Title\n\n[guide](docs/guide.md#two-words), [above](#title), [web](https://example.org), ![](docs)\n\n"
        "```\nsequela train corpus/ model/ \\\n  --depth 2   # small\ntorchrun -m sequela train a/ b/\n```\n\n"
        "`sequela STAGE --help` explains it, `--epochs 3` too.\n\n"
        "```python\nimport sequela\nfrom sequela.errors import InputError\n\nsequela.train('corpus', 'model')\n```\n"
    )
    (tmp_path / "docs" / "guide.md").write_text("## Two words\n\n[back](../README.md)\n")
    return tmp_path


def add(pages: Path, text: str) -> None:
    with (pages / "docs" / "guide.md").open("a") as file:
        file.write(text)


def test_links_lead_somewhere() -> None:
    assert broken_links(ROOT) == []


def test_files_of_the_repository_exist() -> None:
    assert missing_files(ROOT) == []


def test_python_in_documents_parses_and_names_what_exists() -> None:
    assert broken_python(ROOT) == []


def test_commands_and_flags_in_documents_exist() -> None:
    assert unknown_commands(ROOT) == []


def test_every_command_and_its_flags_are_read_from_the_help() -> None:
    assert {"demo", "ingest", "train", "predict"} <= commands() and "--depth" in flags("train")
    assert "--depth" not in flags("ingest")
    assert len(documents(ROOT)) > 10


def test_good_pages_pass(pages: Path) -> None:
    assert (
        broken_links(pages) == missing_files(pages) == broken_python(pages) == unknown_commands(pages) == []
    )


@pytest.mark.parametrize(
    "link", ["nowhere.md", "../README.md#no-such-title", "#three-words", "../docs/no/folder"]
)
def test_a_broken_link_is_seen(pages: Path, link: str) -> None:
    add(pages, f"\n[planted]({link})\n")
    assert broken_links(pages) == [f"docs/guide.md: {link}"]


@pytest.mark.parametrize("name", ["docs/gone.md", "sequela/gone/module", "tests/test_gone.py"])
def test_a_file_that_is_gone_is_seen(pages: Path, name: str) -> None:
    add(pages, f"\nSee `{name}`, and docs/guide.md.\n")
    assert missing_files(pages) == [f"docs/guide.md: {name}"]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def f(:", "invalid syntax"),
        ("import sequela\nsequela.fly()", "sequela.fly"),
        ("from sequela.errors import Planted", "sequela.errors.Planted"),
        ("from sequela.planted import x", "sequela.planted.x"),
    ],
)
def test_broken_python_is_seen(pages: Path, code: str, said: str) -> None:
    add(pages, f"\n```python\n{code}\n```\n")
    assert len(broken_python(pages)) == 1 and said in broken_python(pages)[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("```\nsequela fly there/\n```\n", "sequela fly"),
        ("```\nsequela train a/ b/ --wings 2\n```\n", "sequela train --wings"),
        ("```\ntorchrun -m sequela train a/ b/ --wings 2\n```\n", "sequela train --wings"),
        ("`sequela fly`\n", "sequela fly"),
        ("Give `--wings` for more.\n", "--wings"),
    ],
)
def test_a_command_that_cannot_be_typed_is_seen(pages: Path, text: str, said: str) -> None:
    add(pages, f"\n{text}")
    assert unknown_commands(pages) == [f"docs/guide.md: {said}"]
