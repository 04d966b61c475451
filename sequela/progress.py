"""How a long-running function tells its caller how far it is."""

from typing import Protocol


class Progress(Protocol):
    """A callable that shows progress; every long-running function takes one and calls it as often as it likes."""

    def __call__(self, done: float, total: float, **facts: object) -> None:
        """`done` of `total` units are finished; `facts` are short things worth showing (a stage, a loss)."""


def silent(done: float, total: float, **facts: object) -> None:
    """Show nothing: the default wherever a `Progress` is taken."""
