"""Rollouts told again from their tokens: clocks, ends and outcomes, and by one pass of the model every hazard.

For tokens that were sampled elsewhere; and a check of the engine, whose own rollouts must come out the same.

Shape letters: R rollouts, S tokens of the longest one, L prompt length, C hidden width, V vocabulary, H query heads,
G key-value heads, D head dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sequela.model.decoder import Decoder
from sequela.model.precision import computed_in
from sequela.rollout.engine.cache import Prefill
from sequela.rollout.engine.queue import Ended, Prompts
from sequela.rollout.tracker import State, Watching
from sequela.tokens.ragged import Ragged, within

Logits = Callable[[Tensor, int], Tensor]
"""Of some rows (int64 [R]) the logits float32 [R, V] before their token number `step`."""
AT_ONCE = 1 << 16  # tokens, the prompt's counted for each rollout


def replay(
    watching: Watching, prompts: Prompts, prompt: np.ndarray, tokens: Ragged, logits: Logits | None = None
) -> tuple[State, np.ndarray]:
    """Where rollouts stand after their tokens, or after the first token that ends them.

    Args:
        prompt: int64 [R], whose rollout each one is.
        tokens: ragged [R, length], one token or more each; those after the end do not count.
        logits: for hazards and what the grammar would remove; without it these stay 0.

    Returns:
        The states, in which `step` is the number of tokens that count; and int8 [R], why each one ended, index into
        REASONS, -1 where it goes on.
    """
    device, lengths = watching.minutes.device, tokens.lengths
    assert lengths.all(), "a rollout has a token or more"
    padded = np.zeros((len(tokens), lengths.max(initial=0)), np.int64)
    padded[np.repeat(np.arange(len(tokens)), lengths), within(lengths)] = tokens.flat
    token, length = (torch.from_numpy(x).to(device) for x in (padded, lengths))
    clock, bits = (torch.from_numpy(x[prompt]).to(device) for x in (prompts.clock, prompts.bits))
    row = torch.arange(len(tokens), device=device)
    watched = torch.from_numpy(prompts.watched(prompt, watching.outcomes)).to(device)
    state = State.fresh(torch.zeros_like(row), clock, bits, watched)
    told: list[tuple[Tensor, State, Tensor]] = [(row[:0], state.take(row[:0]), row[:0].to(torch.int8))]
    for step in range(padded.shape[1]):
        if logits is not None:
            first = torch.from_numpy(prompts.first[prompt]).to(device) if step == 0 else None
            watching.weigh(logits(row, step), state, first)
        reason = watching.take(token[row, step], state)
        over = (reason >= 0) | (length[row] == step + 1)
        told.append((row[over], state.take(over), reason[over]))
        row, state = row[~over], state.take(~over)
    rows, states, reasons = zip(*told, strict=True)
    order = torch.cat(rows).argsort()
    return State.joined(list(states)).take(order), torch.cat(reasons)[order].cpu().numpy()


@dataclass(frozen=True)
class Reader:
    """A decoder that reads what was sampled, in the windows in which it was.

    Attributes:
        precision: in which the model computes; everything else is of fp32.
        cut: a prompt, or one with new tokens behind it, to the window in which it goes on.
        reach: of a window of L tokens, reach - L new ones are sampled.
    """

    model: Decoder
    precision: str
    cut: Callable[[np.ndarray], np.ndarray]
    reach: int

    def ended(
        self, watching: Watching, prompts: Prompts, question: int, numbers: Sequence[int], tokens: Ragged
    ) -> list[Ended]:
        """The whole account of one prompt's rollouts, all of which came to an end.

        Args:
            numbers: of the R rollouts.
            tokens: ragged [R, length], up to and with the token that ended each one.
        """
        with torch.inference_mode():
            hidden, windows = self.hidden(prompts.ids[question], tokens)

            def logits(rows: Tensor, step: int) -> Tensor:
                return self.model.head(hidden[rows, step]).float()

            state, reason = replay(watching, prompts, np.full(len(tokens), question), tokens, logits)
        assert (reason >= 0).all() and (state.step.cpu().numpy() == tokens.lengths).all()
        account = (state.hazard, 1 - state.spared, state.happened, state.watched, state.removed)
        hazard, reached, happened, watched, removed = (x.cpu().numpy() for x in account)
        return [
            Ended(
                int(number), tokens[row].tolist(), int(state.clock[row]), int(reason[row]), hazard[row], reached[row],
                happened[row], watched[row], float(removed[row]), int(windows[row]),
            )
            for row, number in enumerate(numbers)
        ]  # fmt: skip

    def hidden(self, ids: np.ndarray, tokens: Ragged) -> tuple[Tensor, np.ndarray]:
        """Before each new token of one prompt, float32 [R, S, C]; and int64 [R], how many windows were begun anew."""
        device, width = self.model.embedding.weight.device, self.model.config.hidden_size
        out = torch.zeros(len(tokens), int(tokens.lengths.max(initial=0)), width, device=device)
        begun = np.zeros(len(tokens), np.int64)
        left = [(self.cut(ids), 0, np.arange(len(tokens)))]
        while left:
            window, start, rows = left.pop()
            end = start + self.reach - len(window)
            own = [tokens[row][start:end] for row in rows]
            prefill = Prefill()
            with computed_in(self.precision, device):
                last = self.model.hidden(torch.from_numpy(window).to(device)[None], None, prefill)[0, -1]
                out[rows, start] = last.float()
                each = max(1, AT_ONCE // (len(window) + max(map(len, own))))
                for some in range(0, len(rows), each):
                    after = self._after(prefill, own[some : some + each])
                    out[rows[some : some + each], start + 1 : start + 1 + after.shape[1]] = after.float()
            for row in rows[tokens.lengths[rows] > end]:
                begun[row] += 1
                left.append((self.cut(np.concatenate([ids, tokens[row][:end]])), end, np.array([row])))
        return out, begun

    def _after(self, prompt: Prefill, rows: list[np.ndarray]) -> Tensor:
        """The hidden states [R, S - 1, C] at all tokens but the last of rows that go on from one prompt."""
        ids = np.zeros((len(rows), max(map(len, rows)) - 1), np.int64)
        for place, row in zip(ids, rows, strict=True):
            place[: len(row) - 1] = row[:-1]
        new = torch.from_numpy(ids).to(prompt.keys[0].device)
        if not ids.size:
            return new.new_zeros((*ids.shape, self.model.config.hidden_size), dtype=torch.float32)
        positions = prompt.length + torch.arange(ids.shape[1], device=new.device)
        return self.model.hidden(new, positions.expand_as(new), _After(prompt))


@dataclass(frozen=True)
class _After:
    """Causal attention of rows that go on from one prompt: q [R, H, S, D], k and v [R, G, S, D]."""

    prompt: Prefill

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        length, new = self.prompt.length, q.shape[2]
        keys, values = (
            torch.cat([old[layer].expand(len(q), -1, -1, -1), own], 2)
            for old, own in ((self.prompt.keys, k), (self.prompt.values, v))
        )
        seen = torch.ones(new, length + new, dtype=torch.bool, device=q.device).tril(length)
        return F.scaled_dot_product_attention(q, keys, values, attn_mask=seen, enable_gqa=True)
