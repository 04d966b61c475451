"""How a long-running function reports its progress to the caller."""

from typing import Protocol


class Progress(Protocol):
    """A callback that displays progress. Every long-running function takes one and may call it often."""

    def __call__(self, done: float, total: float, **facts: object) -> None:
        """`done` of `total` units are finished; `facts` are short details to show, such as the stage or the loss."""


def silent(done: float, total: float, **facts: object) -> None:
    """Show nothing: the default wherever a `Progress` is taken."""
