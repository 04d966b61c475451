"""Draws the tree of the package into README.md and docs/ARCHITECTURE.md (`make tree`); a test compares them."""

import ast
import re
import sys
import textwrap
from pathlib import Path

FLOORS = ("serve", "tasks", "rollout", "train", "model", "tokens", "record")  # from the sixth down
HEIGHT = {"serve": 6, "tasks": 5, "rollout": 4, "train": 4, "model": 3, "tokens": 2, "record": 1}
BEGIN, END = "<!-- tree -->\n```\n", "```\n<!-- /tree -->"
DRAWN = {"README.md": False, "docs/ARCHITECTURE.md": True}


def draw(root: Path, *, modules: bool) -> str:
    """The floors with their sentence, and with `modules` also every module and data folder on them."""
    lines = ["sequela/"]
    for floor in FLOORS:
        folder = root / "sequela" / floor
        sentence = re.sub(
            r"^Floor \d: ", "", ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
        )
        sentence = " ".join(sentence.split())
        lines += _wrapped(f"  {floor + '/':<9} {HEIGHT[floor]}  ", sentence)
        if modules:
            names = sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")
            data = sorted(
                f"{path.name}/" for path in folder.iterdir() if path.is_dir() and path.name != "__pycache__"
            )
            lines += _wrapped(" " * 15, "  ".join(names + data))
    return "\n".join(line.rstrip() for line in lines) + "\n"


def unlisted(root: Path) -> list[str]:
    """Folders and modules of the package that no floor accounts for."""
    known = {*FLOORS, "__init__.py", "__main__.py", "py.typed", "__pycache__"}
    return sorted(path.name for path in (root / "sequela").iterdir() if path.name not in known)


def drawn(text: str) -> str | None:
    """The tree that a document shows, or None where it shows none."""
    if BEGIN not in text or END not in text:
        return None
    return text.split(BEGIN, 1)[1].split(END, 1)[0]


def redraw(root: Path) -> None:
    """Put the real tree into the documents."""
    for name, modules in DRAWN.items():
        path = root / name
        before, rest = path.read_text().split(BEGIN, 1)
        path.write_text(before + BEGIN + draw(root, modules=modules) + END + rest.split(END, 1)[1])


def _wrapped(head: str, text: str) -> list[str]:
    return textwrap.wrap(
        text, 110, initial_indent=head, subsequent_indent=" " * 15, break_on_hyphens=False
    ) or [head]


if __name__ == "__main__":
    redraw(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
