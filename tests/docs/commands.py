"""Every command that the documentation prints, as the arguments that a shell would give to `sequela`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`(sequela [a-z0-9]+ [^`]+)`")
SHELL = ("", "sh", "bash", "console", "shell")


@dataclass(frozen=True)
class Command:
    """What stands behind `sequela` in a line of a document."""

    page: str
    arguments: tuple[str, ...]

    @property
    def words(self) -> str:
        """The command as a line."""
        return " ".join(("sequela", *self.arguments))


def documents() -> list[Path]:
    """The pages that people read."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands(pages: list[Path]) -> list[Command]:
    """The commands of all pages, in order; a command that a page repeats, once."""
    return list(dict.fromkeys(command for page in pages for command in _of_page(page)))


def files(page: Path) -> dict[str, str]:
    """The files that a page shows: "`NAME`:" and then the content, in a block."""
    text = page.read_text(encoding="utf-8")
    return dict(re.findall(r"^`([\w.-]+)`:\n\n```\w+\n(.*?)^```", text, re.MULTILINE | re.DOTALL))


def _of_page(page: Path) -> Iterator[Command]:
    text, name = page.read_text(encoding="utf-8"), str(page.relative_to(ROOT))
    for language, block in FENCE.findall(text):
        if language in SHELL:
            for line in block.replace("\\\n", " ").splitlines():
                yield from _of_line(line, name)
    for span in SPAN.findall(FENCE.sub("", text)):
        if "..." not in span:
            yield from _of_line(span, name)


def _of_line(line: str, page: str) -> Iterator[Command]:
    """Also behind `$`, variables, `torchrun ... -m`, and after `&&`."""
    for part in re.split(r"&&|;", re.sub(r"(^|\s)#.*", "", line)):
        if re.match(r"^\s*(\$ )?([A-Z]\w*=\S+ )*(torchrun .*-m )?sequela [a-z]", part):
            words = shlex.split(part)
            yield Command(page, tuple(words[words.index("sequela") + 1 :]))
