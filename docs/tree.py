"""Draws the tree of the package into README.md and docs/ARCHITECTURE.md (`make tree`); a test compares them."""

import ast
import sys
import textwrap
from pathlib import Path

FLOORS = ("serve", "task", "rollout", "training", "model", "tokens", "record")  # from the top down
ROOT_MODULES = ("errors", "files", "holm", "keywords", "progress", "workers", "version")
BEGIN, END = "<!-- tree -->\n```\n", "```\n<!-- /tree -->"
DRAWN = {"README.md": False, "docs/ARCHITECTURE.md": True}


def draw(root: Path, *, modules: bool) -> str:
    """The floors with their sentence, and with `modules` also every module and folder on them."""
    lines = ["sequela/"]
    if modules:
        lines += _wrapped("  ", "  ".join(ROOT_MODULES))
    for floor in FLOORS:
        lines += _drawn(root / "sequela" / floor, 1, modules=modules)
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _drawn(folder: Path, depth: int, *, modules: bool) -> list[str]:
    """A package with its sentence, its modules, and then its packages and data folders."""
    sentence = " ".join((ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or "").split())
    lines = _wrapped(f"{'  ' * depth}{folder.name + '/':<{12 - 2 * depth + 2}} ", sentence)
    if not modules:
        return lines
    names = modules_of(folder)
    if names:
        lines += _wrapped("  " * (depth + 1), "  ".join(names))
    for below in sorted(path for path in folder.iterdir() if path.is_dir() and path.name != "__pycache__"):
        if (below / "__init__.py").exists():
            lines += _drawn(below, depth + 1, modules=modules)
        else:
            lines.append(f"{'  ' * (depth + 1)}{below.name}/")
    return lines


def modules_of(folder: Path) -> list[str]:
    """The modules of one package, without those of the packages in it."""
    return sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")


def unlisted(root: Path) -> list[str]:
    """Folders and modules at the root of the package that no floor accounts for."""
    known = {*FLOORS, *(f"{name}.py" for name in ROOT_MODULES), "__init__.py", "__main__.py", "py.typed"}
    return sorted(
        path.name for path in (root / "sequela").iterdir() if path.name not in {*known, "__pycache__"}
    )


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
        text, 110, initial_indent=head, subsequent_indent=" " * len(head), break_on_hyphens=False
    ) or [head]


if __name__ == "__main__":
    redraw(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
