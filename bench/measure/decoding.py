"""Rollouts of one history, timed, by one side of bench/rollouts.py; and what they cost at the least.

    python decoding.py SIDE MODEL '{"history": 1024, "rollouts": 64, "tokens": 256, "precision": "bf16", ...}'

SIDE is `sequela` or `processes` (the same with a process for each thread), or in the environment of `transformers`,
where there is no sequela, `generate`, `static` or `compiled`. MODEL is a checkpoint folder. The last line is JSON: the
seconds of one run, after a short one that warms up, and the tokens that came back; of our sides also the peak of matrix
products in FLOP/s and the memory's speed in bytes/s.

Letters: R rollouts, T their new tokens, V vocabulary.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from sequela.model.config import ModelConfig
    from sequela.rollout.engine.engine import Engine
    from sequela.rollout.engine.processes import EngineProcesses

BYTES = {"fp32": 4, "bf16": 2}
NEVER = 1 << 40  # minutes


def passes(config: ModelConfig, history: int, rollouts: int, tokens: int, precision: str) -> np.ndarray:
    """FLOPs and bytes of each pass through the model [2, T]: first the history, then every new token but the last.

    FLOPs are those of `sequela.model.flops`. Of bytes only those count that no implementation can do without: in each
    pass all weights once, the history's keys and values once for all rollouts, and each rollout's own once.
    """
    from sequela.model import flops

    weights = config.parameters - (0 if config.tied_embeddings else config.vocab_size * config.hidden_size)
    cached = 2 * config.layers * config.kv_heads * config.head_dim  # numbers a token
    work = [flops.products(config, history, history * (history + 1) // 2, predicted=1)]
    moved = [weights + history * cached]
    for own in range(1, tokens):
        seen = rollouts * (history + own)
        work.append(flops.products(config, rollouts, seen, predicted=rollouts))
        moved.append(weights + (history + rollouts * own) * cached)
    return np.array([work, np.array(moved) * BYTES[precision]], np.float64)


def roofline(costs: np.ndarray, peak: float, bandwidth: float) -> float:
    """Seconds of the passes [2, T] where each takes the longer of its FLOPs at the peak and its bytes at full speed."""
    return float(np.maximum(costs[0] / peak, costs[1] / bandwidth).sum())


def measured_bandwidth(
    megabytes: int = 512, times: int = 6, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Bytes/s of the memory on all threads: the best of reading a large array and of copying one (read and written)."""
    x = torch.ones(megabytes * 250_000)
    y = torch.empty_like(x)
    best = 0.0
    for work, moved in ((x.sum, 1), (lambda: y.copy_(x), 2)):
        work()
        for _ in range(times):
            begun = clock()
            work()
            best = max(best, moved * x.nbytes / (clock() - begun))
    return best


def prompt(size: int, history: int) -> np.ndarray:
    """Some tokens, the same on all sides."""
    return np.random.default_rng(0).integers(5, size, history)


def sequela(folder: Path, given: dict, processes: int = 1) -> dict:
    """Our engine, in this process or in several of one thread each."""
    from sequela.model import checkpoint
    from sequela.training.peak import measured_peak

    config = checkpoint.ModelConfig.load(folder)
    ids = prompt(config.vocab_size, given["history"])
    # By the module's name: another process does not know this one's main program
    make = partial(import_module("decoding").engine, folder, given["precision"])
    if processes > 1:
        from sequela.rollout.engine.processes import EngineProcesses

        run = sampling(EngineProcesses(make, processes), config.vocab_size, ids)
    else:
        run = sampling(make(), config.vocab_size, ids)
    run(2 * processes, 4)

    def speeds() -> tuple[float, float]:
        return measured_peak(config, given["precision"], seconds=1), measured_bandwidth()

    before = speeds()
    found = timed(run, given)
    if processes > 1:
        del found["cpu_seconds"]  # of this process, which waits
    peak, bandwidth = np.maximum(
        before, speeds()
    ).tolist()  # the machine at its best: the share is then the lower
    return found | {"peak": peak, "bandwidth": bandwidth, "parameters": config.parameters}


def engine(folder: Path, precision: str) -> Engine:
    """Our engine."""
    from sequela.model import checkpoint
    from sequela.rollout.engine.engine import Engine

    model = checkpoint.load(folder)
    return Engine(model, precision=precision)


def sampling(made: Engine | EngineProcesses, size: int, ids: np.ndarray) -> Callable[[int, int], int]:
    """A function of how many rollouts and how many tokens of each, which returns the tokens that came back."""
    from sequela.rollout.budget import FixedBudget
    from sequela.rollout.clock.minutes import TokenClock
    from sequela.rollout.engine.rollouts import Prompts
    from sequela.rollout.tracker import OutcomeTracker, StopRule, WatchedOutcomes
    from sequela.tokens.ragged import Ragged

    none = np.zeros(size, bool)
    # Watched on after it came: a rollout would end when nothing is watched any more
    watch = WatchedOutcomes(np.arange(size)[None] == 5, none[None], np.array([NEVER]), repeats=np.ones(1, bool))
    prompts = Prompts(Ragged.of([ids]), np.ones(1, np.int64))

    def sampled(rollouts: int, tokens: int) -> int:
        tracker = OutcomeTracker(StopRule(none, NEVER, tokens), watch, TokenClock.constant(np.zeros(size, np.int64)))
        return len(made.extend(prompts, FixedBudget(rollouts), tracker).tokens.flat)

    return sampled


def theirs(side: str, folder: Path, given: dict) -> dict:
    """`transformers`: its own generation, or a loop over a static cache."""
    import transformers

    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[given["precision"]]
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=kind, attn_implementation="sdpa"
    ).eval()
    ids = torch.from_numpy(prompt(model.config.vocab_size, given["history"]))
    torch.manual_seed(0)
    if side == "generate":

        def run(rollouts: int, tokens: int) -> int:
            out = model.generate(
                ids[None], num_return_sequences=rollouts, max_new_tokens=tokens,
                do_sample=True, top_k=0, top_p=1.0, temperature=1.0, eos_token_id=None, pad_token_id=0,
            )  # fmt: skip
            return out[:, len(ids) :].numel()

        run(2, 4)
        return timed(run, given)
    forward = torch.compile(model) if side == "compiled" else model
    begun = time.perf_counter()
    # what is compiled is of this shape, so the warming up needs the same cache
    static(model, forward, ids, given["rollouts"], given["tokens"], until=4)
    warm = time.perf_counter() - begun
    return timed(lambda rollouts, tokens: static(model, forward, ids, rollouts, tokens).numel(), given) | {
        "warm_up": warm
    }


@torch.inference_mode()
def static(model, forward, ids: Tensor, rollouts: int, tokens: int, until: int | None = None) -> Tensor:
    """int64 [R, T]: the history is read once, and its keys and values are copied to the rows of a static cache."""
    import transformers

    config, length = model.config, len(ids)
    read = transformers.DynamicCache(config=config)
    logits = model(ids[None], past_key_values=read, use_cache=True, logits_to_keep=1).logits[:, -1]
    cache = transformers.StaticCache(config=config, max_cache_len=length + tokens)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    cache.early_initialization(rollouts, config.num_key_value_heads, head_dim, model.dtype, model.device)
    for row, one in zip(cache.layers, read.layers, strict=True):
        row.keys[:, :, :length] = one.keys
        row.values[:, :, :length] = one.values
        row.cumulative_length.fill_(length)
    out = torch.empty(rollouts, tokens, dtype=torch.int64)
    out[:, 0] = drawn(logits.expand(rollouts, -1))
    for step in range(1, until or tokens):
        place = torch.full((1, 1), length + step - 1)
        logits = forward(
            input_ids=out[:, step - 1 : step].clone(),
            position_ids=place,
            past_key_values=cache,
            use_cache=True,
        ).logits[:, -1]
        out[:, step] = drawn(logits)
    return out


def drawn(logits: Tensor) -> Tensor:
    """A token of each row [R, V]."""
    return torch.multinomial(logits.float().softmax(-1), 1)[:, 0]


def timed(run: Callable[[int, int], int], given: dict) -> dict:
    """One run, its start with the history included."""
    begun, cpu = time.perf_counter(), time.process_time()
    tokens = run(given["rollouts"], given["tokens"])
    seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - cpu
    wanted = given["rollouts"] * given["tokens"]
    assert tokens == wanted and math.isfinite(seconds), f"{tokens} tokens came back, not {wanted}"
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "tokens": tokens}


def main() -> None:
    side, folder, given = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    torch.set_num_threads(given["threads"])
    if side in ("sequela", "processes"):
        found = sequela(folder, given, given["threads"] if side == "processes" else 1)
    else:
        found = theirs(side, folder, given)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
