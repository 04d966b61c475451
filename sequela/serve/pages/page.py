"""Pages for people: HTML files that need nothing else."""

from __future__ import annotations

from pathlib import Path

import jinja2

import sequela

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, **facts: object) -> str:
    """The page that a file of `templates/` makes of the facts; all texts in them are escaped, a missing one fails."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(version=sequela.__version__, **facts)
