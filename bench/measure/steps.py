"""Steps of `sequela train` one after another, timed: our side of bench/training.py.

    python steps.py CORPUS STEPS.npz '{"optimizer": "muon", "precision": "bf16", ...}'

The last line is JSON: the seconds of each step after the first, on the wall and of the processor, the mean loss in nats
a token, the peak of matrix products in FLOP/s, the exact FLOPs of each of these steps, and, of steps that repeat one
batch, both kinds of seconds with the batch made anew by the feed and with the batch held in memory; with "profile",
also for a step on one thread, its utilisation and the shares of its seconds by what they are spent on.
"""

import json
import sys
import time
from collections import Counter
from itertools import repeat
from pathlib import Path

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sequela.model import flops
from sequela.training.cpu_threads import ParallelRows
from sequela.training.data import Step, feed
from sequela.training.parallel import ProcessGroup
from sequela.training.peak import measured_peak
from sequela.training.run import Run, RunPlan
from sequela.training.settings import TrainSettings


def timed(run: Run, steps) -> tuple[np.ndarray, list[float]]:
    """Seconds on the wall and of the processor [2, steps after the first]; nats a token of every step."""
    ends, losses = [], []
    for step, passes in steps:
        result = run.take(step, passes)
        losses.append(result.loss / result.weight)
        ends.append((time.perf_counter(), time.process_time()))
    return np.diff(ends, axis=0).T, losses


KINDS = {
    "products": ("mm", "addmm", "mv"),
    "attention": ("bmm", "baddbmm", "baddbmm_", "_softmax", "_softmax_backward_data"),
}


class Spent(TorchDispatchMode):
    """Adds up the seconds of PyTorch's operations by what they do."""

    def __init__(self):
        super().__init__()
        self.seconds = Counter(dict.fromkeys([*KINDS, "others"], 0.0))
        self.kind = {name: kind for kind, names in KINDS.items() for name in names}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        begun = time.perf_counter()
        result = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        self.seconds[self.kind.get(name, "others")] += time.perf_counter() - begun
        return result


def profiled(run: Run, step: Step, passes: list) -> dict:
    """Of the middle one of five steps on one thread: shares of its seconds, and its utilisation."""
    torch.set_num_threads(1)
    run.parallel_rows = ParallelRows(run.objective)
    peak = measured_peak(run.plan.config, run.precision)
    exact = flops.train(run.plan.config, run.lengths(step))
    found = []
    for _ in range(5):
        begun = time.perf_counter()
        run.take(step, passes)
        plain = time.perf_counter() - begun
        begun = time.perf_counter()
        with Spent() as spent:
            run.take(step, passes)
        whole = time.perf_counter() - begun
        kinds = {kind: seconds / whole for kind, seconds in spent.seconds.items()}
        found.append({"mfu": exact / plain / peak, **kinds, "python": 1 - sum(kinds.values())})
    return sorted(found, key=lambda one: one["mfu"])[2]


def main() -> None:
    corpus, file, given = Path(sys.argv[1]), np.load(sys.argv[2]), json.loads(sys.argv[3])
    torch.set_num_threads(given["threads"])
    run = Run(RunPlan.of(corpus, TrainSettings(**given["settings"])), ProcessGroup())
    rows = np.split(file["of_row"], np.cumsum(file["windows_in_row"])[:-1])
    # two rows of the context's length side by side are one of ours
    pairs = [np.concatenate(rows[at : at + 2]) for at in range(0, len(rows), 2)]
    each = given["rows_a_step"] // 2
    steps, tokens = [], 0
    for at in range(0, len(pairs), each):
        own = pairs[at : at + each]
        after = tokens + int(run.plan.windows.lengths[np.concatenate(own)].sum())
        steps.append(Step(own, tokens, {**run.position, "tokens": after}))
        tokens = after
    peak = measured_peak(run.plan.config, run.precision)
    (seconds, cpu_seconds), losses = timed(run, feed(steps, run.collate))
    peak = max(peak, measured_peak(run.plan.config, run.precision))
    # a short step, so that many pairs can be had: the machine's own speed changes from one second to the next
    short = Step(steps[0].rows[:2], 0, steps[0].after)
    ((_, held),) = feed([short], run.collate)
    made_anew, in_memory = [], []
    for _ in range(given["feed_repeats"]):
        fed, _ = timed(run, feed(repeat(short, 3), run.collate))
        kept, _ = timed(run, repeat((short, held), 3))
        made_anew.append(fed.sum(1).tolist())
        in_memory.append(kept.sum(1).tolist())
    profile = profiled(run, short, held) if given["profile"] else None
    about = {
        "profile": profile,
        "seconds": seconds.tolist(),
        "cpu_seconds": cpu_seconds.tolist(),
        "loss": sum(losses) / len(losses),
        "peak": peak,
        "flops": [flops.train(run.plan.config, run.lengths(step)) for step in steps[1:]],
        "made_anew": made_anew,
        "in_memory": in_memory,
        "parameters": run.plan.config.parameters,
    }
    print(json.dumps(about))


if __name__ == "__main__":
    main()
