"""What is recorded of rollouts while they are made, and what ends them: the protocol, and a tracker for plain text.

Shape letters: R rows, V vocabulary, K scores, S states of the search for stop texts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from sequela.rollout.engine.rollouts import REASONS, Prompts, Rollouts

END = REASONS.index("end")


@dataclass
class DecodingState:
    """What is known of each row that is being computed; everything is of length R.

    Attributes:
        seed, step, node: int64. `step` counts the tokens sampled; `node` and `bits` are the constraint's.
        opening: float32, the uniform number of the first token.
        bits: bool [R, B].
        removed: float32, the share of probability that the constraint took away, summed over positions.
        columns: the tracker's own, by name, each [R, ...].
    """

    seed: Tensor
    opening: Tensor
    step: Tensor
    node: Tensor
    bits: Tensor
    removed: Tensor
    columns: dict[str, Tensor]

    def take(self, rows: Tensor | slice) -> DecodingState:
        """These rows, in this order."""
        shared = {name: getattr(self, name)[rows] for name in _SHARED}
        return DecodingState(**shared, columns={name: x[rows] for name, x in self.columns.items()})

    @staticmethod
    def joined(states: Sequence[DecodingState]) -> DecodingState:
        """The rows of all states, one after another."""
        if len(states) == 1:
            return states[0]
        shared = {name: torch.cat([getattr(state, name) for state in states]) for name in _SHARED}
        columns = {name: torch.cat([state.columns[name] for state in states]) for name in states[0].columns}
        return DecodingState(**shared, columns=columns)


_SHARED = [field.name for field in fields(DecodingState) if field.name != "columns"]


class Tracker(Protocol):
    """Keeps account of rollouts in columns of its own, and says when they end.

    An engine calls `start` once for each rollout, then `weigh` and `take` in turn for every token, with many rollouts
    side by side as rows, and `account` when a rollout has ended. A tracker lies on the device of the model and can be
    sent to other processes.
    """

    @property
    def key(self) -> Hashable:
        """Equal for trackers that do the same: rollouts of several requests may then share a batch."""
        ...

    @property
    def limit(self) -> int:
        """Maximum tokens per rollout; the engine ends rollouts there, with the reason "limit"."""
        ...

    @property
    def stop_tokens(self) -> np.ndarray:
        """bool [V], tokens that end any rollout: a hint for engines that sample several tokens before `take`."""
        ...

    @property
    def steers(self) -> bool:
        """Whether `weigh` changes what is sampled. Engines that only return tokens cannot do that, and refuse."""
        ...

    def start(self, prompts: Prompts, rows: np.ndarray) -> dict[str, Tensor]:
        """The columns of new rollouts of the prompts at these indices, int64 [R]."""
        ...

    def weigh(self, mass: Tensor, state: DecodingState) -> Tensor:
        """Read the mass [R, V] of what may come next (it need not sum to 1); return the mass to sample from."""
        ...

    def take(self, token: Tensor, state: DecodingState, mass: Tensor | None) -> Tensor:
        """Account for these tokens [R]; int8 [R], why each row ends, index into REASONS, or -1 where it goes on.

        `state` is that before the token: its step, node, and bits are the engine's to advance. `mass` is what the
        tokens were drawn from, None where that is unknown.
        """
        ...

    def account(self, state: DecodingState) -> dict[str, np.ndarray]:
        """What `Rollouts.account` says of these rows, each array [R, ...]."""
        ...

    def scores(self, rollouts: Rollouts) -> np.ndarray:
        """What a budget decides on, float [R, K]; NaN where a rollout ended before it could tell."""
        ...


def no_rollouts(tracker: Tracker, prompts: Prompts) -> Rollouts:
    """Rollouts of which there are none, with the tracker's columns."""
    none = np.zeros(0, np.int64)
    columns = tracker.start(prompts, none)
    zero = torch.zeros(0, dtype=torch.int64)
    number = torch.zeros(0)
    state = DecodingState(zero, number, zero, zero, torch.zeros(0, 0, dtype=torch.bool), number, columns)
    return Rollouts(none, none, prompts.ids.take(none), none.astype(np.int8), none, tracker.account(state))


class PlainTracker:
    """Text, or any other tokens: records log-probabilities, and ends at stop tokens and stop texts.

    Its columns: `log_probability` float32 [R], the sum over a rollout's tokens, and `log_probabilities` float32
    [R, limit], that of each token, NaN after the last one. They are of the distribution that was sampled from: at its
    temperature, without what the constraint took away.

    Args:
        limit: maximum tokens per rollout.
        stop_tokens: bool [V], tokens that end a rollout.
        stop_texts: bytes that end a rollout with the token that completes them, however they are split into tokens. The
            prompt does not count.
        pieces: the bytes of each of the V tokens, empty for tokens that are not text; needed for `stop_texts`.
        device: of the model.
    """

    steers = False

    def __init__(
        self,
        limit: int,
        stop_tokens: np.ndarray,
        stop_texts: Sequence[bytes] = (),
        pieces: Sequence[bytes] = (),
        device: torch.device | str = "cpu",
    ):
        self.limit, self.stop_tokens, self.device = limit, stop_tokens, device
        self.stop_texts, self.pieces = tuple(stop_texts), tuple(pieces)
        if self.stop_texts and len(self.pieces) != len(stop_tokens):
            raise ValueError(
                f"stop texts need the bytes of all {len(stop_tokens)} tokens, not {len(self.pieces)}"
            )
        self._stops = torch.from_numpy(stop_tokens).to(device)
        self._search = torch.from_numpy(text_search(self.stop_texts, self.pieces)).to(device)

    def __reduce__(self) -> tuple:
        return PlainTracker, (self.limit, self.stop_tokens, self.stop_texts, self.pieces, self.device)

    @property
    def key(self) -> Hashable:
        """See `Tracker`."""
        return self.limit, self.stop_tokens.tobytes(), self.stop_texts, self.pieces, str(self.device)

    def start(self, prompts: Prompts, rows: np.ndarray) -> dict[str, Tensor]:
        """See `Tracker`."""
        return {
            "log_probabilities": torch.full((len(rows), self.limit), torch.nan, device=self.device),
            "search": torch.zeros(len(rows), dtype=torch.int64, device=self.device),
        }

    def weigh(self, mass: Tensor, state: DecodingState) -> Tensor:
        """See `Tracker`; nothing is changed."""
        return mass

    def take(self, token: Tensor, state: DecodingState, mass: Tensor | None) -> Tensor:
        """See `Tracker`."""
        row = torch.arange(len(token), device=self.device)
        if mass is not None:
            share = mass[row, token] / mass.sum(-1)
            state.columns["log_probabilities"][row, state.step] = share.log()
        reason = torch.full_like(token, -1, dtype=torch.int8)
        reason[self._stops[token]] = END
        if self.stop_texts:
            after = self._search[state.columns["search"], token]
            state.columns["search"] = after
            reason[after == len(self._search)] = END
        return reason

    def account(self, state: DecodingState) -> dict[str, np.ndarray]:
        """See `Tracker`."""
        of_tokens = state.columns["log_probabilities"]
        return {
            "log_probability": of_tokens.nansum(-1).cpu().numpy(),
            "log_probabilities": of_tokens.cpu().numpy(),
        }

    def scores(self, rollouts: Rollouts) -> np.ndarray:
        """The log-probability of each rollout, [R, 1]."""
        return rollouts.account["log_probability"][:, None]


def text_search(texts: Sequence[bytes], pieces: Sequence[bytes]) -> np.ndarray:
    """A table int64 [S, V]: the state after a token, in each state of the search for these texts; S: one was found.

    Aho and Corasick (CACM 1975), moved on by whole tokens. A state is the longest beginning of a text that the bytes so
    far end with; state 0 is the empty one.

    Raises:
        ValueError: for an empty text, which would end everything at once.

    >>> text_search([b"ab"], [b"a", b"b", b"xa", b"abc"]).tolist()
    [[1, 0, 1, 2], [1, 2, 1, 2]]
    """
    if not all(texts):
        raise ValueError("a stop text must have at least one byte")
    step = _byte_search(texts)
    found = len(step)
    step = np.vstack([step, np.full((1, 256), found)])  # what was found stays found
    state = np.repeat(np.arange(found)[:, None], len(pieces), 1)
    lengths = np.array([len(piece) for piece in pieces], np.int64)
    for place in range(lengths.max(initial=0)):
        longer = np.flatnonzero(lengths > place)
        byte = np.array([pieces[token][place] for token in longer])
        state[:, longer] = step[state[:, longer], byte]
    return state


def _byte_search(texts: Sequence[bytes]) -> np.ndarray:
    """The same table by single bytes, int64 [S, 256]."""
    begun = {b""} | {text[:size] for text in texts for size in range(1, len(text))}
    states = {prefix: number for number, prefix in enumerate(sorted(begun, key=lambda x: (len(x), x)))}
    table = np.zeros((len(states), 256), np.int64)
    back = {b"": b""}  # the longest other state that a state ends with
    waiting = deque(states)  # short ones first
    while waiting:
        prefix = waiting.popleft()
        if prefix:
            back[prefix] = next(prefix[cut:] for cut in range(1, len(prefix) + 1) if prefix[cut:] in states)
        for byte in range(256):
            longer = prefix + bytes([byte])
            if any(longer.endswith(text) for text in texts):
                table[states[prefix], byte] = len(states)
            elif longer in states:
                table[states[prefix], byte] = states[longer]
            elif prefix:
                table[states[prefix], byte] = table[states[back[prefix]], byte]
    return table
