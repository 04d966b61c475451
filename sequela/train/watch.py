"""When to stop a run whose loss has run away, and the batch that it ran away on."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np

from sequela.tokens.ragged import offsets_of

LATELY = 32
JUMP, DEVIATIONS, FIRST_JUMP = 1.5, 10.0, 3.0


class Watch:
    """Looks at the loss of every step, in bits per token.

    A run has run away when the loss or the gradient is no number; when the loss of a step is above 1.5 times the median
    of the 32 steps before and more than 10 robust deviations above it (1.4826 times the median change from step to
    step, over sqrt 2: a falling loss does not widen it); or when the median of the last 32 steps is above 1.5 times the
    lowest that it ever was. Before 32 steps are seen, a step may have three times the loss of the first, which knows
    nothing yet.
    """

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.first = self.lowest = math.inf

    def check(self, bits: float, gradient: float) -> str | None:
        """What is wrong with a step of this loss and this norm of the gradient; None: nothing."""
        if not math.isfinite(bits):
            return f"the loss became {bits}"
        if not math.isfinite(gradient):
            return f"the gradient became {gradient}"
        why = self._jump(bits)
        self.losses = [*self.losses[1 - LATELY :], bits]
        if not math.isfinite(self.first):
            self.first = bits
        if len(self.losses) >= LATELY:
            level = median(self.losses)
            self.lowest = min(self.lowest, level)
            if why is None and level > JUMP * self.lowest:
                return f"the loss rose to {level:.3g} bits a token from {self.lowest:.3g}"
        return why

    def _jump(self, bits: float) -> str | None:
        if len(self.losses) < LATELY:
            known, limit = self.first, FIRST_JUMP * self.first
        else:
            known = median(self.losses)
            changes = [abs(later - loss) for loss, later in pairwise(self.losses)]
            deviation = 1.4826 / math.sqrt(2) * median(changes)
            limit = max(JUMP * known, known + DEVIATIONS * deviation)
        return f"the loss jumped to {bits:.3g} bits a token from {known:.3g}" if bits > limit else None

    def state(self) -> dict:
        """What `go_on` needs, as JSON holds it."""
        return {
            "losses": self.losses,
            "first": None if math.isinf(self.first) else self.first,
            "lowest": None if math.isinf(self.lowest) else self.lowest,
        }

    def go_on(self, state: dict) -> None:
        """Take up where `state` was said."""
        self.losses = list(state["losses"])
        self.first = math.inf if state["first"] is None else state["first"]
        self.lowest = math.inf if state["lowest"] is None else state["lowest"]


def keep(folder: Path, rows: list[list[np.ndarray]], patients: list[np.ndarray], about: dict) -> None:
    """Write the batch of a step for people to look at.

    `tokens.npy` holds the tokens of its windows, one after another; window w is `tokens[offsets[w] : offsets[w + 1]]`,
    of patient `patients[w]`, in row `rows[w]`. `step.json` says the rest.

    Args:
        rows: the tokens of each window of each row.
        patients: the patient of each of them.
        about: settings, losses before, what was wrong.
    """
    folder.mkdir(parents=True, exist_ok=True)
    windows = [window for row in rows for window in row]
    np.save(folder / "tokens.npy", np.concatenate(windows).astype(np.int64), allow_pickle=False)
    lengths = np.array([len(window) for window in windows], np.int64)
    np.save(folder / "offsets.npy", offsets_of(lengths), allow_pickle=False)
    np.save(folder / "patients.npy", np.concatenate(patients).astype(np.int64), allow_pickle=False)
    number = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    np.save(folder / "rows.npy", number, allow_pickle=False)
    (folder / "step.json").write_text(json.dumps(about, indent=1))
