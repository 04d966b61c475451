"""Is one model better than another? A difference, how sure it is, and one of four words for it.

Every model is compared with the simulation on the same resamples. Among many comparisons some differences look large
by chance, so a difference counts only after Holm's correction over all comparisons of a run (Holm 1979, Scand J Stat
6:65): no more than 5 % of runs then call any two equal models different. That two models are as good as each other
needs evidence, too: the whole interval of their difference must lie within a margin that is stated beforehand.
Everything else is not decided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sequela.holm import holm
from sequela.task.scoring.bootstrap import LEVEL, Estimate

MARGIN = 0.02  # within which models are as good as each other
BEATS, BEATEN, MATCHES, OPEN = "beats", "is beaten by", "matches", "not decided"


@dataclass(frozen=True)
class Comparison:
    """The simulation against one other model.

    Attributes:
        difference: simulation less the other, in the headline metric.
        gain: the same, above 0 where the simulation is better.
        p: of a difference at least as large if there were none; of several comparisons see `corrected`.
        margin: which difference is none, in the metric.
    """

    difference: Estimate
    gain: float
    p: float
    margin: float

    @property
    def word(self) -> str:
        """What the simulation does to the other model: BEATS, BEATEN, MATCHES or OPEN."""
        if self.p < 1 - LEVEL and self.gain:
            return BEATS if self.gain > 0 else BEATEN
        low, high = self.difference.low, self.difference.high
        return MATCHES if -self.margin <= low and high <= self.margin else OPEN

    def as_dict(self) -> dict[str, float | str | None]:
        """The difference, its corrected `p` and the `word`; empty if there is none."""
        pairs = self.difference.as_dict()
        return pairs | {"p": self.p, "margin": self.margin, "word": self.word} if pairs else {}


def corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same with `p` by Holm's correction.

    >>> each = [Comparison(Estimate(1, 0, 2), 1, p, 0.02) for p in (0.01, 0.04, 0.03, 0.005)]
    >>> [round(one.p, 3) for one in corrected(each)]
    [0.03, 0.06, 0.06, 0.02]
    """
    p_C = holm(np.array([one.p for one in comparisons]))
    return [replace(one, p=float(p)) for one, p in zip(comparisons, p_C, strict=True)]
