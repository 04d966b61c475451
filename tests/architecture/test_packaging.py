"""What is installed is pinned, small and licensed."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = (ROOT / "constraints.txt").read_text()


def pinned(text: str) -> dict[str, Version]:
    """The pins of a constraints file, by name."""
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    pairs = [line.split("==") for line in lines if line]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def unmet(requirements: list[str], pins: dict[str, Version]) -> list[str]:
    """Requirements without a pin, or with one outside their range."""
    wanted = [Requirement(text) for text in requirements]
    return [
        str(one)
        for one in wanted
        if (version := pins.get(canonicalize_name(one.name))) is None or version not in one.specifier
    ]


def test_every_requirement_is_pinned_inside_its_range() -> None:
    everything = [
        *PROJECT["dependencies"],
        *(one for extra in PROJECT["optional-dependencies"].values() for one in extra),
    ]
    everything = [one for one in everything if not one.startswith("sequela[")]
    assert unmet(everything, pinned(PINS)) == []


def test_a_missing_and_a_wrong_pin_are_seen() -> None:
    pins = pinned("numpy==1.26.0  # old\n")
    assert unmet(["numpy>=2", "polars>=1"], pins) == ["numpy>=2", "polars>=1"]


def test_no_cuda_package_is_pinned() -> None:
    cuda = re.compile(r"nvidia|cuda|triton|\+cu\d|-cu\d\d")
    assert [line for line in PINS.splitlines() if not line.startswith("#") and cuda.search(line)] == []


@pytest.mark.parametrize(
    "folder",
    sorted(path for path in (ROOT / "sequela/record/cohort").glob("[!_]*") if path.is_dir()),
    ids=lambda path: path.name,
)
def test_bundled_data_is_small_licensed_and_noticed(folder: Path) -> None:
    assert (folder / "LICENSE").stat().st_size > 1000
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 2 * 2**20
    assert str(folder.relative_to(ROOT)) in (ROOT / "NOTICE").read_text()


def test_licences_of_code_and_data_are_declared() -> None:
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert PROJECT["license"] == "Apache-2.0 AND LGPL-2.0-or-later"
