"""The reference pages are those that the code writes."""

from pathlib import Path

from docs.reference import attributes, pages, redraw, table
from sequela.keywords import described
from sequela.serve.stages import STAGES
from sequela.training.settings import TrainSettings

ROOT = Path(__file__).resolve().parents[2]


def stale(root: Path) -> list[str]:
    """Pages that are not what the code of this checkout says."""
    return [name for name, text in pages(ROOT).items() if (root / "docs/reference" / name).read_text() != text]


def test_the_pages_are_up_to_date() -> None:
    assert stale(ROOT) == [], "run `make docs`"


def test_a_changed_page_is_seen_and_written_anew(tmp_path: Path) -> None:
    (tmp_path / "docs/reference").mkdir(parents=True)
    (tmp_path / "sequela").symlink_to(ROOT / "sequela")
    redraw(tmp_path)
    assert stale(tmp_path) == []
    page = tmp_path / "docs/reference/commands.md"
    page.write_text(page.read_text().replace("Train a decoder", "Train a encoder"))
    assert stale(tmp_path) == ["commands.md"]


def test_every_stage_and_every_setting_is_there() -> None:
    text = pages(ROOT)
    assert all(f"\n## {name}\n" in text["commands.md"] for name in STAGES)
    for name, words in described(TrainSettings).items():
        assert f"`--{name.replace('_', '-')}`" in text["settings.md"] and words in text["settings.md"]


def test_names_and_words_of_a_class() -> None:
    class Two:
        """Two of them.

        Attributes:
            first, second: the one and
                the other.
            third: more.
        """

    both = "the one and the other."
    assert attributes(Two) == [("first", both), ("second", both), ("third", "more.")]
    assert table(("a", "b"), [("1|2", "3")]).splitlines()[-1] == "| 1\\|2 | 3 |"
