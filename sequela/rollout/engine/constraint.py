"""What may follow what: the engine's view of a grammar."""

from typing import Protocol

from torch import Tensor


class Constraint(Protocol):
    """Says which tokens may come next. A row's state is its node, int64 [R], and its bits, bool [R, B].

    Every row starts at node 0 with the bits of its prompt. Shape letters: R rows, V vocabulary, B bits.
    """

    @property
    def masks(self) -> bool:
        """Whether `mask` takes anything away. A constraint may also only keep track of where rows are."""
        ...

    def mask(self, mass: Tensor, node: Tensor, bits: Tensor) -> Tensor:
        """Set the mass [R, V] of tokens that may not come now to 0, in place; return the share taken away, [R]."""
        ...

    def advance(self, node: Tensor, bits: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
        """The state after one more token [R]."""
        ...
