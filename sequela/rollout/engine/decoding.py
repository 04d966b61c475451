"""The batch of rows that are decoded together, step by step.

Shape letters: R rows, V vocabulary, C hidden width, L tokens of a prefix.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from sequela.model.decoder import Decoder
from sequela.model.precision import computed_in
from sequela.rollout.engine.cache import FEWEST, Branch, Branches, Prefill
from sequela.rollout.engine.prefix import Prefix, WholePrefixes
from sequela.rollout.engine.queue import PromptAssignment, Source
from sequela.rollout.engine.rollouts import Rollouts
from sequela.rollout.engine.sampling import openings, seeds
from sequela.rollout.engine.step import TokenStep
from sequela.rollout.engine.tracker import DecodingState
from sequela.tokens.ragged import Ragged


@dataclass(eq=False)
class DecodingRow:
    """A rollout that is being made. `state` is kept while it waits for a new window."""

    assignment: PromptAssignment
    number: int
    tokens: list[int] = field(default_factory=list)
    windows: int = 0
    state: DecodingState | None = None


class DecodingBatch:
    """Takes rollouts from a source, samples one token of every row at a time, and brings back those that have ended.

    Args:
        precision: in which the model computes; everything else is fp32.
        cut: a whole prompt to the tokens of it that the model reads.
    """

    def __init__(
        self,
        model: Decoder,
        precision: str,
        step: TokenStep,
        source: Source,
        cut: Callable[[np.ndarray], np.ndarray],
    ):
        self.model, self.precision = model, precision
        self.token_step, self.source, self.cut = step, source, cut
        self.most = step.sampling.rows
        self.device = model.embedding.weight.device
        self.branches = Branches()
        self.rows: list[DecodingRow] = []  # branch after branch
        self.used: list[Prefix] = []  # by each branch
        self.state: DecodingState | None = None
        self.hidden: Tensor | None = None  # [R, C], at the last token of each row
        self.full: list[DecodingRow] = []  # they go on in a new window as soon as there is room
        self.prefixes = WholePrefixes(self._read)

    @torch.inference_mode()
    def step(self) -> bool:
        """Take in what there is room for, and sample a token of every row; False if there is nothing left to do.

        As long as an eighth of the rows is free, the next rollouts are taken in.
        """
        while len(self.rows) <= self.most - -(-self.most // 8) and self._begin_next():
            pass
        if not self.rows:
            return False
        self._sample()
        return True

    def _begin_next(self) -> bool:
        """Begin rows that share a prefix; False where none wait."""
        if self.full:
            row = self.full.pop()
            whole = np.concatenate([row.assignment.prompt.ids.flat, np.array(row.tokens, np.int64)])
            self._begin(self.cut(whole), [row], row.state)
            return True
        assignment = self.source.take(max(self.most - len(self.rows), self.most // 2))
        if assignment is None:
            return False
        prompt, number = assignment.prompt, torch.from_numpy(assignment.numbers).to(self.device)
        key = torch.full_like(number, int(prompt.key[0]))
        opening = openings(key, number) if self.token_step.sampling.stratified else None
        state = self.token_step.start(prompt, np.zeros(len(number), np.int64), seeds(key, number), opening)
        rows = [DecodingRow(assignment, int(number)) for number in assignment.numbers]
        self._begin(self.cut(prompt.ids.flat), rows, state)
        return True

    def _begin(self, ids: np.ndarray, rows: list[DecodingRow], state: DecodingState) -> None:
        prefix = self.prefixes.give(ids)
        self.branches.branches.append(Branch(self.model.config, prefix.prefill, len(rows)))
        self.used.append(prefix)
        hidden = prefix.last.expand(len(rows), -1)
        self.hidden = hidden if self.hidden is None else torch.cat([self.hidden, hidden])
        self.state = state if self.state is None else DecodingState.joined([self.state, state])
        self.rows.extend(rows)

    def _read(self, ids: np.ndarray) -> tuple[Prefill, Tensor]:
        """See `ReadPrefix`."""
        prefill = Prefill()
        with computed_in(self.precision, self.device):
            hidden = self.model.hidden(torch.from_numpy(ids).to(self.device)[None], None, prefill)
        return prefill, hidden[0, -1:]

    def _sample(self) -> None:
        state = self.state
        count = len(self.rows)
        logits = self.model.head(_padded(self.hidden.float()))[:count].float()
        token, mass = self.token_step.choose(logits, state, self._first())
        reason = self.token_step.take(token, state, mass)
        for row, sampled in zip(self.rows, token.tolist(), strict=True):
            row.tokens.append(sampled)
        order = self._sort_out(reason.tolist())
        if not order:
            self.rows, self.state, self.hidden = [], None, None
            return
        if order != list(range(count)):
            index = torch.tensor(order, device=self.device)
            self.rows = [self.rows[row] for row in order]
            self.state, token = state.take(index), token[index]
        ids = _padded(token[:, None])
        positions = [branch.prompt.length + branch.used for branch in self.branches.branches]
        sizes = [branch.n for branch in self.branches.branches]
        positions_R1 = _padded(torch.tensor(np.repeat(positions, sizes), device=self.device)[:, None])
        with computed_in(self.precision, self.device):
            self.hidden = self.model.hidden(ids, positions_R1, self.branches)[: len(order), 0]
        self.branches.advance()

    def _first(self) -> Tensor | None:
        """By what what may come now is multiplied, float32 [R, V]; None if no row that is at its first token minds."""
        first = {
            index: row.assignment.prompt.first[0]
            for index, row in enumerate(self.rows)
            if not row.tokens and row.assignment.prompt.first is not None
        }
        if not first:
            return None
        weights = torch.ones(len(self.rows), self.model.config.vocab_size)
        for index, of_tokens in first.items():
            weights[index] = torch.from_numpy(of_tokens)
        return weights.to(self.device)

    def _sort_out(self, reason: list[int]) -> list[int]:
        """Bring back the rows that ended; set aside those whose window is full; the others, in their new order."""
        context = self.model.config.context
        order: list[int] = []
        start, branches, used = 0, [], []
        for branch, prefix in zip(self.branches.branches, self.used, strict=True):
            rows = range(start, start + branch.n)
            start += branch.n
            full = branch.prompt.length + branch.used >= context
            live = [row for row in rows if reason[row] < 0 and not full]
            for row in rows:
                if reason[row] >= 0:
                    self._bring(row, reason[row])
                elif full:
                    self._set_aside(row)
            if len(live) < len(rows):
                live = _filled(rows, live)
                branch.keep([row - rows.start for row in live])
            if live:
                branches.append(branch)
                used.append(prefix)
            else:
                self.prefixes.release(prefix)
            order.extend(live)
        self.branches.branches, self.used = branches, used
        return order

    def _bring(self, index: int, reason: int) -> None:
        row, state = self.rows[index], self.state.take(slice(index, index + 1))
        prompt = row.assignment.index
        rollout = Rollouts(
            np.array([prompt]), np.array([row.number]), Ragged.of([row.tokens]), np.array([reason], np.int8),
            np.array([row.windows]), self.token_step.tracker.account(state),
        )  # fmt: skip
        self.source.bring(prompt, rollout)

    def _set_aside(self, index: int) -> None:
        """A row that has filled the context goes on in a new window."""
        row = self.rows[index]
        row.state, row.windows = self.state.take(slice(index, index + 1)), row.windows + 1
        self.full.append(row)


def _filled(rows: range, live: list[int]) -> list[int]:
    """The live rows, where the last ones take the places of those that left: most stay where they are.

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
