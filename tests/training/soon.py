"""A run that is asked to end."""

from pathlib import Path

import pytest

from sequela.training.loop import Host, train
from sequela.training.settings import TrainSettings
from sequela.training.shutdown import Interrupted, Shutdown


class Soon(Shutdown):
    """Asked to end after some steps."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def __call__(self, done, total, **facts):
        self.steps -= 1
        self.requested = self.steps <= 0


def with_and_without_a_break(corpus: Path, settings: TrainSettings, init_from: Path, home: Path) -> tuple[Path, Path]:
    """The same run twice: as a whole, and interrupted after three steps and gone on with."""
    whole, broken = home / "whole", home / "broken"
    for out in (whole, broken):
        out.mkdir()
    train(corpus, whole, settings, init_from=init_from)
    soon = Soon(3)
    with pytest.raises(Interrupted):
        train(corpus, broken, settings, init_from=init_from, host=Host(shutdown=soon, progress=soon))
    train(corpus, broken, settings, init_from=init_from)
    return whole, broken
