"""The engine: n rollouts of every prompt, sharing its prefill.

It knows tokens, how far each moves a clock, and stop conditions as data; nothing of medicine. A rollout depends on the
model, its prompt and its own seed, not on what else is computed beside it.

Shape letters: P prompts, n rollouts of each, R = P * n rows (prompt-major), V vocabulary, K watched outcomes.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sequela.model.decoder import Decoder
from sequela.record.progress import Progress, silent
from sequela.rollout.cache import Fork, Prefill
from sequela.rollout.sampling import sample, uniform
from sequela.tokens.ragged import Ragged, offsets_of
from sequela.tokens.vocabulary import PAD

REASONS = ("limit", "token", "horizon")


@dataclass(frozen=True)
class Prompts:
    """What is to be continued.

    `ids` ragged [P, length]; `clock` int64 [P]: minutes at the prompt's end, 0 is now, never later; `first` bool
    [P, V]: what the first new token may be (the clock never shows less than 0 after it).
    """

    ids: Ragged
    clock: np.ndarray
    first: np.ndarray


@dataclass(frozen=True)
class Stop:
    """When a rollout ends.

    After one of `tokens` bool [V]; when its clock has passed `horizon` minutes (reaching it is not passing it); or
    after `limit` tokens.
    """

    tokens: np.ndarray
    horizon: int
    limit: int


@dataclass(frozen=True)
class Watch:
    """Outcomes whose probability is summed on the way.

    `outcome` bool [K, V]: tokens that are the outcome; `ends` bool [K, V]: tokens after which it no longer counts;
    `horizon` int64 [K]: minutes after which it no longer counts.
    """

    outcome: np.ndarray
    ends: np.ndarray
    horizon: np.ndarray


@dataclass(frozen=True)
class Rollouts:
    """`tokens` ragged [R, length]: the new tokens; `clock` int64 [R]: minutes at the end; `reason` int8 [R]: index into
    REASONS; `hazard` float32 [R, K]: the summed conditional probability of each watched outcome, over every position
    inside its horizon up to its first occurrence (the SCOPE score, arXiv 2602.03730)."""

    tokens: Ragged
    clock: np.ndarray
    reason: np.ndarray
    hazard: np.ndarray


def extend(
    model: Decoder,
    prompts: Prompts,
    seeds: Tensor,
    minutes: np.ndarray,
    stop: Stop,
    watch: Watch,
    *,
    temperature: float = 1.0,
    greedy: bool = False,
    rows: int = 1024,
    progress: Progress = silent,
) -> Rollouts:
    """Continue every prompt once per seed.

    `seeds` int64 [P, n]; `minutes` int64 [V]: how far each token moves the clock; `rows`: most rollouts at once.
    """
    count, n = seeds.shape
    chunk = max(1, rows // n)
    order = np.argsort(prompts.ids.lengths, kind="stable")
    tokens = np.full((count, n, stop.limit), -1, np.int64)
    clock, reason = np.zeros((count, n), np.int64), np.zeros((count, n), np.int8)
    hazard = np.zeros((count, n, len(watch.horizon)), np.float32)
    sampled = 0
    with torch.inference_mode():
        for start in range(0, count, chunk):
            part = order[start : start + chunk]
            some = _Chunk(model, prompts, part, seeds[part], minutes, stop, watch)
            some.run(temperature, greedy)
            tokens[part], clock[part], reason[part], hazard[part] = some.results()
            sampled += int((tokens[part] >= 0).sum())
            progress(min(start + chunk, count), count, tokens=sampled)
    flat = tokens.reshape(count * n, stop.limit)
    lengths = (flat >= 0).sum(1)
    return Rollouts(
        Ragged(flat[flat >= 0], offsets_of(lengths)),
        clock.ravel(),
        reason.ravel(),
        hazard.reshape(count * n, -1),
    )


class _Chunk:
    """Prompts that are computed together; finished rollouts leave the computation as others go on."""

    def __init__(
        self,
        model: Decoder,
        prompts: Prompts,
        part: np.ndarray,
        seeds: Tensor,
        minutes: np.ndarray,
        stop: Stop,
        watch: Watch,
    ):
        self.model, self.stop = model, stop
        device = model.embedding.weight.device
        count, n = seeds.shape
        ids = prompts.ids.take(part)
        self.lengths = torch.from_numpy(ids.lengths).to(device)
        padded = np.full((count, int(ids.lengths.max())), PAD, np.int64)
        padded[np.arange(padded.shape[1]) < ids.lengths[:, None]] = ids.flat
        self.ids = torch.from_numpy(padded).to(device)
        self.first = torch.from_numpy(prompts.first[part]).to(device).repeat_interleave(n, 0)
        self.minutes = torch.from_numpy(minutes).to(device)
        self.stop_tokens = torch.from_numpy(stop.tokens).to(device)
        self.outcome = torch.from_numpy(watch.outcome).to(device)
        self.over = torch.from_numpy(watch.outcome | watch.ends).to(device)
        self.horizons = torch.from_numpy(watch.horizon).to(device)

        # State of the rows still computed: `row` [P', n'] says which row of the results each one is.
        self.row = torch.arange(count * n, device=device).view(count, n)
        self.seeds = seeds.to(device).reshape(-1)
        self.clock = torch.from_numpy(prompts.clock[part]).to(device).repeat_interleave(n)
        self.watching = torch.ones(count * n, len(watch.horizon), dtype=torch.bool, device=device)
        self.live = torch.ones(count * n, dtype=torch.bool, device=device)

        self.tokens = torch.full((count * n, stop.limit), -1, device=device)
        self.end_clock = self.clock.clone()
        self.reason = torch.zeros(count * n, dtype=torch.int8, device=device)
        self.hazard = torch.zeros(count * n, len(watch.horizon), device=device)

    def run(self, temperature: float, greedy: bool) -> None:
        prefill = Prefill()
        hidden = self.model.hidden(self.ids, None, prefill)
        count, n = self.row.shape
        last = hidden[torch.arange(count, device=hidden.device), self.lengths - 1]
        hidden = last.repeat_interleave(n, 0)
        fork = Fork(self.model.config, prefill, self.lengths, n, self.stop.limit)
        for step in range(self.stop.limit):
            logits = self.model.head(hidden).float() / temperature
            if step == 0:
                logits = logits.masked_fill(~self.first, -torch.inf)
            probability = logits.softmax(-1)
            chosen = probability.argmax(-1) if greedy else sample(probability, uniform(self.seeds, step))
            self._account(step, probability, chosen)
            if not self.live.any():
                break
            chosen = self._compact(fork, chosen)
            positions = (self.lengths + step).repeat_interleave(self.row.shape[1])[:, None]
            hidden = self.model.hidden(chosen[:, None], positions, fork)[:, 0]
            fork.advance()

    def _account(self, step: int, probability: Tensor, chosen: Tensor) -> None:
        """Add the hazards of this position, then take the token: clock, stops, what is still watched."""
        row, live = self.row.view(-1), self.live
        self.hazard[row[live]] += (probability @ self.outcome.T.float() * self.watching)[live]
        self.tokens[row[live], step] = chosen[live]
        self.clock = self.clock + self.minutes[chosen]
        if step == 0:
            self.clock = self.clock.clamp(min=0)
        self.watching = self.watching & ~self.over.T[chosen] & (self.clock[:, None] <= self.horizons)
        at_token, passed = self.stop_tokens[chosen], self.clock > self.stop.horizon
        self.reason[row[live & passed]] = REASONS.index("horizon")
        self.reason[row[live & at_token]] = REASONS.index("token")
        self.end_clock[row[live]] = self.clock[live]
        self.live = live & ~at_token & ~passed

    def _compact(self, fork: Fork, chosen: Tensor) -> Tensor:
        """Drop finished prompts, and finished rollouts of the others, once that makes the rest a quarter smaller."""
        live = self.live.view_as(self.row)
        left = live.sum(1)
        prompts = left.nonzero()[:, 0]
        n = int(left.max())
        if len(prompts) * n > 0.75 * live.numel():
            return chosen
        # Live rollouts first; a prompt with fewer than n carries some finished ones along, which stay finished.
        rollouts = live[prompts].to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :n]
        fork.keep(prompts, rollouts)
        kept = (prompts[:, None] * live.shape[1] + rollouts).view(-1)
        self.row = self.row.view(-1)[kept].view(len(prompts), n)
        self.lengths = self.lengths[prompts]
        self.seeds, self.clock, self.watching, self.live = (
            x[kept] for x in (self.seeds, self.clock, self.watching, self.live)
        )
        return chosen[kept]

    def results(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Tokens [P, n, limit] (-1 after the end), clock [P, n], reason [P, n], hazard [P, n, K], in prompt order."""
        count = len(self.ids)
        every = (self.tokens, self.end_clock, self.reason, self.hazard)
        return tuple(x.view(count, -1, *x.shape[1:]).cpu().numpy() for x in every)  # type: ignore[return-value]
