"""Values of keywords: what passes for a type, and how a wrong one is refused."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from sequela.errors import InputError
from sequela.keywords import changed, converted, described, hints
from sequela.serve.ask import AskSettings
from sequela.training.settings import TrainSettings


@pytest.mark.parametrize(
    ("hint", "value", "result"),
    [
        (int, np.int64(3), 3),
        (float, 2, 2.0),
        (float | None, None, None),
        (Path, "a/b", Path("a/b")),
        (str, Path("a/b"), "a/b"),
        (tuple[str, ...], "death_5y", ("death_5y",)),
        (tuple[str, ...], ["a", Path("b")], ("a", "b")),
        (tuple[int, ...], [1, 2], (1, 2)),
        (tuple[Path, ...], Path("a"), (Path("a"),)),
        (bool, True, True),
    ],
)
def test_what_passes(hint, value, result) -> None:
    got = converted(hint, value, "`x`")
    assert got == result and type(got) is type(result)


@pytest.mark.parametrize(
    ("hint", "value", "words"),
    [
        (int, 1.5, "`x` is 1.5: give a whole number"),
        (int, True, "`x` is True: give a whole number"),
        (int, None, "`x` is None: give a whole number"),
        (bool, 1, "give true or false"),
        (float, "1", "give a number"),
        (Path, 3, "give a path"),
        (tuple[int, ...], 3, "give a list, each of it a whole number"),
        (tuple[float, float, float], [1, 2], "`x` has 2 values: give 3"),
    ],
)
def test_what_does_not(hint, value, words) -> None:
    with pytest.raises(InputError, match=words):
        converted(hint, value, "`x`")


def test_a_setting_drops_those_it_excludes() -> None:
    settings = changed(TrainSettings(epochs=3.0, depth=2), {"tokens": 1e6, "preset": "nano"})
    assert (settings.tokens, settings.epochs, settings.preset, settings.depth) == (1e6, None, "nano", None)
    with pytest.raises(InputError, match="`epochs` and `tokens` exclude each other"):
        changed(TrainSettings(), {"tokens": 1e6, "epochs": 1})
    with pytest.raises(InputError, match=r"there is no setting 'dpeth' \(did you mean 'depth'\?\)"):
        changed(TrainSettings(), {"dpeth": 2})


def test_fields_are_described_where_they_are_declared() -> None:
    @dataclass(frozen=True)
    class Two:
        """Two of them."""

        first: int = 1
        """The first
        one."""
        second: int | None = None

    assert described(Two) == {"first": "The first one."}
    assert list(described(AskSettings)) == list(hints(AskSettings))
