"""What a step of training on a CPU gains from each way in which it is computed: every choice beside its alternative.

    python bench/choices.py --corpus FOLDER    a corpus made by `sequela tokenize`
    python bench/choices.py --quick            the bundled cohort, a small model, under a minute

The model is that of bench/training.py (4 layers of 384, Qwen2, context 1,024), in bf16 where the processor has bf16
products. One batch is taken again and again, by the choice and its alternatives in turn, and the medians compared:

* attention by tiles, by PyTorch's flash attention patient by patient, or under one dense mask
* rows on threads of their own, or all threads in each product
* what lies between the products as PyTorch runs it, or fused by `torch.compile`
* bf16 or fp32 products

The last line is JSON: for each alternative its time over that of the choice.
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from measure import process
from torch import Tensor

import sequela
from sequela.model import precision
from sequela.model.attention import Masked
from sequela.model.tiles import Tiled
from sequela.record.cohort import nafld
from sequela.training.data import Inputs, Step
from sequela.training.parallel import ProcessGroup
from sequela.training.run import Run, RunPlan
from sequela.training.settings import TrainSettings

SHAPE = {"layers": 4, "width": 384, "heads": 6, "head_dim": 64, "intermediate": 1536, "context": 1024}
SMALL = {"layers": 1, "width": 64, "context": 256}
CHOICE = "as it is"


class Flash:
    """Each patient of a packed row by PyTorch's fused attention."""

    def __init__(self, lengths: list[int]):
        self.lengths = lengths

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        parts = zip(*(x.split(self.lengths, 2) for x in (q, k, v)), strict=True)
        seen = [F.scaled_dot_product_attention(*part, is_causal=True, enable_gqa=True) for part in parts]
        return torch.cat(seen, 2)


def segments(row: Inputs) -> Tensor:
    """The patient of each position; a position of padding counts as a patient of its own."""
    return ((row.positions == 0).cumsum(1) - 1).int()


def attending(passes: list[tuple[Inputs, float]], way: str) -> list[tuple[Inputs, float]]:
    """The same rows, read in another way."""
    found = []
    for row, weight in passes:
        of_position = segments(row)
        if way == "dense":
            attention = Masked.packed(of_position.numpy())
        else:
            attention = Flash(of_position.flatten().bincount().tolist())
        found.append((replace(row, attention=attention), weight))
    return found


def seconds(run: Run, step: Step, passes: list[tuple[Inputs, float]]) -> float:
    """Of one step."""
    begun = time.perf_counter()
    run.take(step, passes)
    return time.perf_counter() - begun


def main() -> None:
    """Measure, print a row for each alternative, and the JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, help="default: of the bundled cohort")
    parser.add_argument("--layers", type=int, help="of another model, with --width (default: 4 of 384)")
    parser.add_argument("--width", type=int, help="of the other model")
    parser.add_argument("--quick", action="store_true", help="a small model, three steps of each")
    parser.add_argument("--repeats", type=int, help="steps of each (default: 7)")
    parser.add_argument("--threads", type=int, default=2, help="default: 2")
    given = parser.parse_args()
    repeats = given.repeats or (3 if given.quick else 7)
    process.keep_to_cores(given.threads)
    torch.set_num_threads(given.threads)
    print(f"commit {process.commit()}; {process.machine()}\n")
    with tempfile.TemporaryDirectory(prefix="sequela-bench-") as folder:
        corpus = given.corpus or Path(folder, "corpus")
        if given.corpus is None:
            sequela.tokenize(nafld(), corpus)
        shape = SMALL if given.quick else SHAPE
        if given.layers and given.width:
            shape = {"layers": given.layers, "width": given.width, "context": shape["context"]}
        found = measure(corpus, shape, repeats)
    every = {name: statistics.median(times) for name, times in found.items()}
    print("| | seconds a step | over the choice's | all |")
    print("|---|--:|--:|---|")
    for name, times in found.items():
        ratio = every[name] / every[CHOICE]
        print(f"| {name} | {every[name]:.3f} | {ratio:.2f} | {' '.join(f'{one:.2f}' for one in times)} |")
    ratios = {name: round(one / every[CHOICE], 2) for name, one in every.items() if name != CHOICE}
    print(json.dumps({"name": "choices", "ratios": ratios, "commit": process.commit()}))


def measure(corpus: Path, shape: dict, repeats: int) -> dict[str, list[float]]:
    """Seconds of a step, by how it is computed."""
    row = 2 * shape["context"]
    chosen = "bf16" if precision.has_bf16("cpu") else "fp32"
    # a rate of next to nothing: the weights stay what they are
    settings = TrainSettings(
        **shape, row_tokens=row, batch_tokens=4 * row, tokens=1e6, optimizer="adamw", learning_rate=1e-9,
        matrix_rate=1e-9, precision=chosen,
    )  # fmt: skip
    run = Run(RunPlan.of(corpus, settings), ProcessGroup())
    feed = run.feed()
    step, passes = next(feed)
    feed.close()
    shared, fused = (Run(run.plan, ProcessGroup()) for _ in range(2))
    shared.parallel_rows.limit = 1
    Tiled.__call__ = torch.compiler.disable(Tiled.__call__)  # every row has tiles of its own
    fused.objective.decoder.compile_blocks()
    ways = {
        CHOICE: (run, passes),
        "attention: flash, patient by patient": (run, attending(passes, "flash")),
        "attention: dense mask": (run, attending(passes, "dense")),
        "all threads in each product": (shared, passes),
        "blocks compiled": (fused, passes),
    }
    if chosen == "bf16":
        ways["fp32"] = Run(RunPlan.of(corpus, replace(settings, precision="fp32")), ProcessGroup()), passes
    for other, rows in ways.values():  # compile, warm up
        other.take(step, rows)
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, (other, rows) in ways.items():
            found[name].append(seconds(other, step, rows))
    return found


if __name__ == "__main__":
    main()
