"""What a step costs that also learns to foresee, over a step of next-token prediction alone.

    python bench/jepa.py            NAFLD with the demo's model, some minutes
    python bench/jepa.py --quick    fewer steps

The same rows, collated anew each time, go through both objectives in turn, forward, backward and optimizer; so do those
of the other objectives, for comparison. The last line is JSON: `ratio` is the time of `state_jepa` over that of
`next_token`, the median of pairs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import sequela
from sequela.record.cohort import nafld
from sequela.serve.presets import preset
from sequela.training.data import Step
from sequela.training.parallel import ProcessGroup
from sequela.training.run import Run, RunPlan

AT_ONCE = {
    "next_token": (),
    "state_jepa": ("stages='at_once'",),
    "time_to_event": ("stages='at_once'",),
    "smb_faithful": ("stages='at_once'",),
}


def seconds(run: Run, steps: list[Step]) -> float:
    """The time of these steps."""
    begun = time.perf_counter()
    for step in steps:
        run.take(step, [(run.collate(row), 1.0) for row in step.rows])
    return time.perf_counter() - begun


def main(pairs: int, count: int) -> None:
    """Measure, and print the result."""
    chosen = preset("nafld")
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        sequela.tokenize(nafld(), corpus, settings=chosen.tokenize)
        runs = {}
        for name, options in AT_ONCE.items():
            settings = replace(chosen.train, objective=name, options=options)
            runs[name] = Run(RunPlan.of(corpus, settings), ProcessGroup())
        batches = runs["next_token"].plan.batches()
        found: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(pairs + 1):
            steps = list(islice(batches, count))
            for name, run in runs.items():
                found[name].append(seconds(run, steps))
    base = found["next_token"][1:]  # the first ones warm up
    ratios = {
        name: statistics.median(a / b for a, b in zip(times[1:], base, strict=True)) for name, times in found.items()
    }
    print(f"{'objective':<16}{'s a step':>10}{'ratio':>8}")
    for name, ratio in ratios.items():
        print(f"{name:<16}{statistics.median(found[name][1:]) / count:10.3f}{ratio:8.2f}")
    ratio = ratios["state_jepa"]
    print(json.dumps({"name": "jepa", "ratio": ratio, "target": 1.35, "ok": ratio <= 1.35, "ratios": ratios}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two pairs of two steps")
    main(*((2, 2) if parser.parse_args().quick else (7, 10)))
