"""Scores rollouts from their tokens: what the tracker says of them, with one pass of the model for all probabilities.

For tokens that were sampled elsewhere, and as a check of the engine: its own rollouts must come out the same.

Shape letters: R rollouts, S tokens of the longest one, L prefix length, C hidden width, V vocabulary, H query heads,
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
from sequela.rollout.engine.rollouts import Prompts, Rollouts
from sequela.rollout.engine.sampling import seeds
from sequela.rollout.engine.step import TokenStep
from sequela.rollout.engine.tracker import DecodingState
from sequela.tokens.ragged import Ragged, within

Logits = Callable[[Tensor, int], Tensor]
"""Of some rows (int64 [R]) the logits float32 [R, V] before their token number `step`."""
AT_ONCE = 1 << 16  # tokens, where the prompt's count for each rollout


def replay(
    step: TokenStep,
    prompts: Prompts,
    prompt: np.ndarray,
    numbers: np.ndarray,
    tokens: Ragged,
    logits: Logits | None = None,
) -> tuple[DecodingState, np.ndarray]:
    """Where rollouts stand after their tokens, or after the first token that ends them.

    Args:
        prompt, numbers: int64 [R], whose rollout each one is, and which one of that prompt.
        tokens: ragged [R, length], one token or more each; those after the end do not count.
        logits: needed for whatever depends on probabilities; without it the tracker does not weigh anything.

    Returns:
        The states, in which `step` is the number of tokens that count; and int8 [R], why each one ended, index into
        REASONS, -1 where it goes on.
    """
    device, lengths = step.device, tokens.lengths
    assert lengths.all(), "a rollout has at least one token"
    padded = np.zeros((len(tokens), lengths.max(initial=0)), np.int64)
    padded[np.repeat(np.arange(len(tokens)), lengths), within(lengths)] = tokens.flat
    token, length = (torch.from_numpy(x).to(device) for x in (padded, lengths))
    row = torch.arange(len(tokens), device=device)
    seed = seeds(torch.from_numpy(prompts.key[prompt]), torch.from_numpy(numbers)).to(device)
    state = step.start(prompts, prompt, seed)
    ended: list[tuple[Tensor, DecodingState, Tensor]] = [
        (row[:0], state.take(row[:0]), row[:0].to(torch.int8))
    ]
    for number in range(padded.shape[1]):
        mass = None
        if logits is not None:
            first = None
            if number == 0 and prompts.first is not None:
                first = torch.from_numpy(prompts.first[prompt]).float().to(device)
            mass = step.weigh(logits(row, number), state, first)
        reason = step.take(token[row, number], state, mass)
        over = (reason >= 0) | (length[row] == number + 1)
        ended.append((row[over], state.take(over), reason[over]))
        row, state = row[~over], state.take(~over)
    rows, states, reasons = zip(*ended, strict=True)
    order = torch.cat(rows).argsort()
    return DecodingState.joined(states).take(order), torch.cat(reasons)[order].cpu().numpy()


@dataclass(frozen=True)
class Rescorer:
    """A decoder that reads what was sampled, in the windows in which it was sampled.

    Attributes:
        precision: in which the model computes; everything else is fp32.
        cut: a prompt, or one followed by new tokens, to the window in which it goes on.
        reach: a window of L tokens is followed by at most reach - L new ones.
    """

    model: Decoder
    precision: str
    cut: Callable[[np.ndarray], np.ndarray]
    reach: int

    def rollouts(
        self, step: TokenStep, prompts: Prompts, index: int, numbers: Sequence[int], tokens: Ragged
    ) -> Rollouts:
        """The rollouts of the prompt at this index, all of which have ended.

        Args:
            numbers: of the R rollouts.
            tokens: ragged [R, length], up to and including the token that ended each one.
        """
        prompt = np.full(len(tokens), index)
        with torch.inference_mode():
            hidden, windows = self.hidden(prompts.ids[index], tokens)

            def logits(rows: Tensor, number: int) -> Tensor:
                return self.model.head(hidden[rows, number]).float()

            state, reason = replay(step, prompts, prompt, np.array(numbers, np.int64), tokens, logits)
        assert (reason >= 0).all() and (state.step.cpu().numpy() == tokens.lengths).all()
        return Rollouts(
            prompt, np.array(numbers, np.int64), tokens, reason, windows, step.tracker.account(state)
        )

    def first_logits(self, ids: np.ndarray) -> Tensor:
        """What the model says of the first new token of a prompt, float32 [V]."""
        device = self.model.embedding.weight.device
        with torch.inference_mode():
            with computed_in(self.precision, device):
                last = self.model.hidden(torch.from_numpy(self.cut(ids)).to(device)[None], None, Prefill())[0, -1]
            return self.model.head(last.float()[None])[0].float()

    def hidden(self, ids: np.ndarray, tokens: Ragged) -> tuple[Tensor, np.ndarray]:
        """Before each new token of one prompt, float32 [R, S, C]; and int64 [R], how many new windows were begun."""
        device, width = self.model.embedding.weight.device, self.model.config.hidden_size
        out = torch.zeros(len(tokens), int(tokens.lengths.max(initial=0)), width, device=device)
        begun = np.zeros(len(tokens), np.int64)
        left = [(self.cut(ids), 0, np.arange(len(tokens)))]
        while left:
            window, start, rows = left.pop()
            end = start + self.reach - len(window)
            inside = [tokens[row][start:end] for row in rows]
            prefill = Prefill()
            with computed_in(self.precision, device):
                last = self.model.hidden(torch.from_numpy(window).to(device)[None], None, prefill)[0, -1]
                out[rows, start] = last.float()
                count = max(1, AT_ONCE // (len(window) + max(map(len, inside))))
                for begin in range(0, len(rows), count):
                    after = self._after(prefill, inside[begin : begin + count])
                    out[rows[begin : begin + count], start + 1 : start + 1 + after.shape[1]] = after.float()
            for row in rows[tokens.lengths[rows] > end]:
                begun[row] += 1
                left.append((self.cut(np.concatenate([ids, tokens[row][:end]])), end, np.array([row])))
        return out, begun

    def _after(self, prefix: Prefill, rows: list[np.ndarray]) -> Tensor:
        """The hidden states [R, S - 1, C] at all tokens but the last, of rows that go on from one prefix."""
        ids = np.zeros((len(rows), max(map(len, rows)) - 1), np.int64)
        for padded, row in zip(ids, rows, strict=True):
            padded[: len(row) - 1] = row[:-1]
        new = torch.from_numpy(ids).to(prefix.keys[0].device)
        if not ids.size:
            return new.new_zeros((*ids.shape, self.model.config.hidden_size), dtype=torch.float32)
        positions = prefix.length + torch.arange(ids.shape[1], device=new.device)
        return self.model.hidden(new, positions.expand_as(new), _AfterPrefix(prefix))


@dataclass(frozen=True)
class _AfterPrefix:
    """Causal attention of rows that go on from one prefix: q [R, H, S, D], k and v [R, G, S, D]."""

    prefix: Prefill

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        length, new = self.prefix.length, q.shape[2]
        keys, values = (
            torch.cat([old[layer].expand(len(q), -1, -1, -1), added], 2)
            for old, added in ((self.prefix.keys, k), (self.prefix.values, v))
        )
        seen = torch.ones(new, length + new, dtype=torch.bool, device=q.device).tril(length)
        return F.scaled_dot_product_attention(q, keys, values, attn_mask=seen, enable_gqa=True)
