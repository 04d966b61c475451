"""Steps of `sequela train` one after another, timed: our side of bench/training.py.

    python steps.py CORPUS STEPS.npz '{"optimiser": "muon", "precision": "bf16", ...}'

The last line is JSON: the seconds of each step after the first, on the wall and of the processor, the mean loss in nats
a token, the peak of matrix products in FLOP/s, the exact FLOPs of each of these steps, and, of steps that repeat one
batch, both kinds of seconds with the batch made anew by the feed and with the batch held in memory.
"""

import json
import sys
import time
from itertools import repeat
from pathlib import Path

import numpy as np
import torch

from sequela.model import flops
from sequela.train.batches import Step
from sequela.train.feed import feed
from sequela.train.parallel import World
from sequela.train.peak import measured_peak
from sequela.train.run import Plan, Run
from sequela.train.settings import TrainSettings


def timed(run: Run, steps) -> tuple[np.ndarray, list[float]]:
    """Seconds on the wall and of the processor [2, steps after the first]; nats a token of every step."""
    ends, losses = [], []
    for step, passes in steps:
        nats, _ = run.take(step, passes)
        losses.append(nats / run.predicted(step))
        ends.append((time.perf_counter(), time.process_time()))
    return np.diff(ends, axis=0).T, losses


def main() -> None:
    corpus, file, given = Path(sys.argv[1]), np.load(sys.argv[2]), json.loads(sys.argv[3])
    torch.set_num_threads(given["threads"])
    run = Run(Plan.of(corpus, TrainSettings(**given["settings"])), World())
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
    (seconds, cpu_seconds), losses = timed(run, feed(steps, run.plan.windows))
    peak = max(peak, measured_peak(run.plan.config, run.precision))
    ((_, held),) = feed(steps[:1], run.plan.windows)
    made_anew, in_memory = [], []
    for _ in range(given["feed_repeats"]):
        fed, _ = timed(run, feed(repeat(steps[0], 4), run.plan.windows))
        kept, _ = timed(run, repeat((steps[0], held), 4))
        made_anew.append(fed.sum(1).tolist())
        in_memory.append(kept.sum(1).tolist())
    about = {
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
