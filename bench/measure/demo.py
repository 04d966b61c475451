"""The demo that a benchmark reads."""

from pathlib import Path

import sequela


def finished(given: Path | None, *, quick: bool) -> Path:
    """The folder of a finished demo, which is made if it is not there: `given`, or the demo's own."""
    folder = given or Path("demo-output-quick" if quick else "demo-output")
    if not (folder / "simulated").exists():
        sequela.demo(out=folder, quick=quick)
    return folder
