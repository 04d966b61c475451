"""The lane of an engine: the rows that are computed together, step by step.

Shape letters: R rows, V vocabulary, C hidden width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from sequela.model.decoder import Decoder
from sequela.model.precision import computed_in
from sequela.rollout.engine.cache import FEWEST, Branch, Branches, Prefill
from sequela.rollout.engine.queue import Ended, Prompt
from sequela.rollout.engine.sampling import seeds
from sequela.rollout.tracker import State, Watching


class Source(Protocol):
    """Where a lane takes its work from and brings its results to: a `Queue`, or one in another process."""

    def take(self, most: int) -> tuple[Prompt, np.ndarray] | None:
        """At most so many rollouts of one prompt, by their numbers, to begin now; None where there are none."""
        ...

    def bring(self, prompt: int, ended: Ended) -> None:
        """A rollout of the prompt at this place has ended."""
        ...


@dataclass(eq=False)
class Row:
    """One rollout on its way. `state`: of a rollout that goes on in a new window."""

    prompt: Prompt
    number: int
    tokens: list[int] = field(default_factory=list)
    windows: int = 0
    state: State | None = None


@dataclass(eq=False)
class Window:
    """What the model reads at once before rows go on from it: a prompt, or one that a row's own tokens were added to.

    `prefill` and the hidden state at its end, `last` [1, C], are made when the first rows begin, and shared.
    """

    ids: np.ndarray
    prefill: Prefill | None = None
    last: Tensor | None = None


class Lane:
    """Takes rollouts from the source, samples a token of every row, brings back those that ended, and goes on.

    Args:
        precision: in which the model computes; everything else is of fp32.
        cut: a whole prompt to the tokens of it that the model reads.
        rows: how many at once, about: as long as an eighth is free, the next rollouts are taken in.
    """

    def __init__(
        self,
        model: Decoder,
        precision: str,
        watching: Watching,
        source: Source,
        cut: Callable[[np.ndarray], np.ndarray],
        rows: int,
    ):
        self.model, self.precision = model, precision
        self.watching, self.source, self.cut, self.most = watching, source, cut, rows
        self.device = model.embedding.weight.device
        self.branches = Branches()
        self.rows: list[Row] = []  # branch after branch
        self.windows: list[Window] = []  # of each branch
        self.state: State | None = None
        self.hidden: Tensor | None = None  # [R, C], at the last token of each row
        self.full: list[Row] = []  # they go on in a new window as soon as there is room
        self.read: dict[int, Window] = {}  # of the prompts that rows are of, or were until now

    @torch.inference_mode()
    def step(self) -> bool:
        """Take in what there is room for, and sample a token of every row; False where there is nothing left to do."""
        while len(self.rows) <= self.most - -(-self.most // 8) and self._begin_some():
            pass
        if not self.rows:
            return False
        self._sample()
        return True

    def _begin_some(self) -> bool:
        """Rows of one window; False where none wait."""
        if self.full:
            row = self.full.pop()
            whole = np.concatenate([row.prompt.ids, np.array(row.tokens, np.int64)])
            self._begin(Window(self.cut(whole)), [row])
            return True
        taken = self.source.take(max(self.most - len(self.rows), self.most // 2))
        if taken is None:
            return False
        prompt, numbers = taken
        used = {row.prompt.place for row in self.rows} | {prompt.place}
        self.read = {place: window for place, window in self.read.items() if place in used}
        if prompt.place not in self.read:
            self.read[prompt.place] = Window(self.cut(prompt.ids))
        self._begin(self.read[prompt.place], [Row(prompt, int(number)) for number in numbers])
        return True

    def _begin(self, window: Window, rows: list[Row]) -> None:
        if window.prefill is None:
            window.prefill = Prefill()
            ids = torch.from_numpy(window.ids).to(self.device)[None]
            with computed_in(self.precision, self.device):
                window.last = self.model.hidden(ids, None, window.prefill)[0, -1:]
        if rows[0].state is None:
            prompt = rows[0].prompt
            number = torch.tensor([row.number for row in rows], device=self.device)
            state = State.fresh(
                seeds(torch.full_like(number, prompt.key), number),
                prompt.clock,
                torch.from_numpy(prompt.bits).to(self.device),
                torch.from_numpy(prompt.watched).to(self.device).expand(len(rows), -1),
            )
        else:
            state = State.joined([row.state for row in rows if row.state is not None])
        self.branches.branches.append(Branch(self.model.config, window.prefill, len(rows)))
        self.windows.append(window)
        hidden = window.last.expand(len(rows), -1)
        self.hidden = hidden if self.hidden is None else torch.cat([self.hidden, hidden])
        self.state = state if self.state is None else State.joined([self.state, state])
        self.rows.extend(rows)

    def _sample(self) -> None:
        state = self.state
        count = len(self.rows)
        logits = self.model.head(_padded(self.hidden.float()))[:count].float()
        token = self.watching.choose(logits, state, self._first(state))
        reason = self.watching.take(token, state)
        for row, one in zip(self.rows, token.tolist(), strict=True):
            row.tokens.append(one)
        order = self._sort_out(reason.tolist())
        if not order:
            self.rows, self.state, self.hidden = [], None, None
            return
        if order != list(range(count)):
            index = torch.tensor(order, device=self.device)
            self.rows = [self.rows[row] for row in order]
            self.state, token = state.take(index), token[index]
        ids = _padded(token[:, None])
        places = [branch.prompt.length + branch.used for branch in self.branches.branches]
        sizes = [branch.n for branch in self.branches.branches]
        positions = _padded(torch.tensor(np.repeat(places, sizes), device=self.device)[:, None])
        with computed_in(self.precision, self.device):
            self.hidden = self.model.hidden(ids, positions, self.branches)[: len(order), 0]
        self.branches.advance()

    def _first(self, state: State) -> Tensor | None:
        """What may come now, bool [R, V]; None where no row is at its first token."""
        new = [place for place, row in enumerate(self.rows) if not row.tokens]
        if not new:
            return None
        allowed = torch.ones(len(self.rows), self.model.config.vocab_size, dtype=torch.bool)
        for place in new:
            allowed[place] = torch.from_numpy(self.rows[place].prompt.first)
        return allowed.to(self.device)

    def _sort_out(self, reason: list[int]) -> list[int]:
        """Bring back the rows that ended, and those whose window is full. The rows that go on, in their new order."""
        context = self.model.config.context
        order: list[int] = []
        start, branches, windows = 0, [], []
        for branch, window in zip(self.branches.branches, self.windows, strict=True):
            rows = range(start, start + branch.n)
            start += branch.n
            full = branch.prompt.length + branch.used >= context
            live = [row for row in rows if reason[row] < 0 and not full]
            for row in rows:
                if reason[row] >= 0:
                    self._bring(row, reason[row])
                elif full:
                    self._move(row)
            if len(live) < len(rows):
                live = _filled(rows, live)
                branch.keep([row - rows.start for row in live])
            if live:
                branches.append(branch)
                windows.append(window)
            order.extend(live)
        self.branches.branches, self.windows = branches, windows
        return order

    def _bring(self, place: int, reason: int) -> None:
        row, state = self.rows[place], self.state.take(slice(place, place + 1))

        def value(x: Tensor) -> np.ndarray:
            return x[0].cpu().numpy()

        self.source.bring(
            row.prompt.place,
            Ended(
                row.number, row.tokens, int(state.clock), reason, value(state.hazard), value(1 - state.spared),
                value(state.happened), value(state.watched), float(state.removed), row.windows,
            ),
        )  # fmt: skip

    def _move(self, place: int) -> None:
        """A row that has filled the context goes on in a new window."""
        row = self.rows[place]
        row.state, row.windows = self.state.take(slice(place, place + 1)), row.windows + 1
        self.full.append(row)


def _filled(rows: range, live: list[int]) -> list[int]:
    """The live rows, the last ones in the places of those that left: most stay where they are.

    >>> _filled(range(10, 15), [11, 13, 14])
    [14, 11, 13]
    """
    stay = rows[: len(live)]
    spare = [row for row in live if row not in stay]
    alive = set(live)
    return [row if row in alive else spare.pop() for row in stay]


def _padded(x: Tensor) -> Tensor:
    """x [R, ...] with zeros below, up to a multiple of FEWEST rows."""
    missing = -len(x) % FEWEST
    return torch.cat([x, x.new_zeros(missing, *x.shape[1:])]) if missing else x
