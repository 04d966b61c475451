"""Real data bundled with the package."""

from pathlib import Path


def nafld() -> Path:
    """The folder of the bundled NAFLD cohort, a MEDS dataset of 17,549 adults (see its README.md)."""
    return Path(__file__).parent / "nafld"
