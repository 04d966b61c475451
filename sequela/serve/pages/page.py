"""Renders the HTML pages, which load nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path

import jinja2

from sequela.version import __version__

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, **values: object) -> str:
    """The page made from a file of `templates/`; all text is escaped, and a missing value is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(version=__version__, **values)
