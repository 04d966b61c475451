"""How fast is a training step, beside the Trainer of `transformers` on the same rows, and beside the matrix products?

    bench/peers.sh                                    once: the peer's environment
    python bench/training.py --corpus FOLDER ...      corpora made by `sequela tokenize`
    python bench/training.py --quick                  the bundled cohort, one pair of short runs, under a minute

One model for all: Qwen2, 4 layers of 384, 9.5 million parameters; context 1,024; bf16 where the processor multiplies it
natively, else fp32 on both sides. Each side is a process of its own that takes the same steps, in turn, several times;
the first step of each is not counted. What is counted are real tokens, so padding earns nothing. The sides:

* sequela: the steps of `sequela train`, with AdamW as the Trainer has. It gets the very rows of the packed Trainer, two
  side by side, without the padding at their ends. `muon_ratio` is with Muon, its default, which needs fewer tokens.
* Trainer, packed: rows of 1,024 tokens, filled with whole patients as best they fit, positions restarting; from these
  `transformers` masks the patients from each other, so the work is the same. bf16=True; `bf16 weights` is the Trainer
  on a model of bf16. `ratio` is against the faster of the two.
* Trainer, padded: one patient a row, padded to the longest of its batch.

`mfu` is the exact FLOPs of our steps (attention included, what is masked out not) over their seconds and over the peak
of matrix products measured in the same process. `feed_share` is the time of steps on a batch held in memory over that
of steps whose batch the feed makes anew each time. `profile` is of one thread: its `mfu`, and where the time goes: the
products of blocks and head, attention, all other operations, and what is none (Python, mostly). Ratios named cpu_ are
of the processor's time instead of the wall's: other work on the machine disturbs them less.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from measure import process

import sequela
from sequela.model.precision import choose
from sequela.record.cohort import nafld
from sequela.tokens.corpus import Corpus
from sequela.tokens.packing import Windows, best_fit, within
from sequela.training.data import windows_of

CONTEXT = 1024
SHAPE = {"layers": 4, "width": 384, "heads": 6, "head_dim": 64, "intermediate": 1536, "context": CONTEXT}
OURS, OURS_MUON = "sequela", "sequela, Muon"
PRECISION = choose("auto", "cpu", SHAPE["width"])
PACKED, PACKED_LOW, PADDED = "Trainer, packed", "Trainer, packed, bf16 weights", "Trainer, padded"
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Work:
    """The steps that all sides take.

    Attributes:
        file: the rows, for both sides.
        rows: of CONTEXT tokens, in a step; `rows_a_pass` of them go through the Trainer's model at a time.
        patients_a_pass: rows of one patient in a pass of the padded Trainer.
        tokens: that are real, in each step but the first; of the padded Trainer's steps in `padded_tokens`.
    """

    corpus: Path
    file: Path
    steps: int
    rows: int
    rows_a_pass: int
    patients_a_pass: int
    vocabulary: int
    tokens: list[int]
    padded_tokens: list[int]


def prepare(corpus: Path, file: Path, steps: int, rows: int) -> Work:
    """Pack windows of training patients, in a random order, into rows, and write what both sides read."""
    data = Corpus.load(corpus, "train")
    cut = windows_of(data, CONTEXT)
    order = np.random.default_rng(0).permutation(len(cut))
    packed = [order[row] for row in best_fit(cut.lengths[order], CONTEXT)]
    chosen = np.random.default_rng(1).permutation(len(packed))
    some = [packed[chosen[number % len(chosen)]] for number in range(steps * rows)]
    flat = np.concatenate(some)
    lengths, rows_a_pass = cut.lengths[flat], min(rows, 4)
    np.savez(
        file, of_row=flat, windows_in_row=np.array([len(row) for row in some]), lengths=lengths,
        windows=np.concatenate([cut[window] for window in flat]), **_square(cut, some),
    )  # fmt: skip
    of_step = np.array([cut.lengths[row].sum() for row in some]).reshape(steps, rows).sum(1)
    each = max(1, len(flat) // (steps * (rows // rows_a_pass)))
    per_step = each * (rows // rows_a_pass)
    padded = [int(lengths[at : at + per_step].sum()) for at in range(0, steps * per_step, per_step)]
    return Work(
        corpus, file, steps, rows, rows_a_pass, each, len(data.tokenizer.vocabulary),
        of_step[1:].tolist(), padded[1:],
    )  # fmt: skip


def _square(cut: Windows, rows: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Rows of CONTEXT tokens, as `transformers` reads them: the label of a token is the token itself."""
    shape = len(rows), CONTEXT
    ids, labels, positions = np.zeros(shape, np.int64), np.full(shape, -100), np.zeros(shape, np.int64)
    for number, row in enumerate(rows):
        lengths = cut.lengths[row]
        filled = lengths.sum()
        ids[number, :filled] = labels[number, :filled] = np.concatenate([cut[window] for window in row])
        labels[number, np.cumsum(lengths) - lengths] = -100  # no patient is predicted from the one before
        positions[number] = within(np.append(lengths, CONTEXT - filled))
    return {"ids": ids, "labels": labels, "positions": positions}


def ours(
    work: Work, threads: int, optimizer: str, feed_repeats: int, profile: bool = False
) -> process.Spent:
    """Steps of ours, in the environment that runs this file."""
    rates = {"learning_rate": 1e-3, "matrix_rate": 1e-3, "tokens": 1e6, "precision": PRECISION}
    given = {
        "settings": {**SHAPE, **rates, "optimizer": optimizer, "row_tokens": 2 * CONTEXT},
        "rows_a_step": work.rows, "threads": threads, "feed_repeats": feed_repeats,
        "profile": profile,
    }  # fmt: skip
    return process.run([sys.executable, str(HERE / "measure/steps.py"), str(work.corpus), str(work.file),
                        json.dumps(given)])  # fmt: skip


def theirs(work: Work, threads: int, python: Path, layout: str, options: dict) -> process.Spent:
    """Steps of the Trainer."""
    config = {
        "vocab_size": work.vocabulary, "hidden_size": SHAPE["width"], "num_hidden_layers": SHAPE["layers"],
        "num_attention_heads": SHAPE["heads"], "num_key_value_heads": SHAPE["heads"],
        "intermediate_size": SHAPE["intermediate"], "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": True, "bos_token_id": 1, "pad_token_id": 0,
    }  # fmt: skip
    given = {
        "config": config, "layout": layout, "threads": threads, "steps": work.steps,
        "rows": work.rows_a_pass if layout == "packed" else work.patients_a_pass,
        "accumulate": work.rows // work.rows_a_pass, "workers": 0, "all_bf16": False, "bf16": PRECISION == "bf16",
        "compile": False, **options,
    }  # fmt: skip
    return process.run([str(python), str(HERE / "measure/trainer.py"), str(work.file), json.dumps(given)])


def compare(label: str, work: Work, given: argparse.Namespace) -> dict:
    """Run the sides in turn, print a row for each, and return the part of this corpus of the JSON object."""
    python, threads = given.peers / "transformers/bin/python", given.threads
    sides = {OURS: partial(ours, work, threads, "adamw", 2 if given.quick else 12, True)}
    if not given.quick:
        sides[OURS_MUON] = partial(ours, work, threads, "muon", 0)
    if python.exists():
        sides[PACKED] = partial(theirs, work, threads, python, "packed", {})
        if not given.quick and PRECISION == "bf16":
            sides[PACKED_LOW] = partial(theirs, work, threads, python, "packed", {"all_bf16": True})
        sides[PADDED] = partial(theirs, work, threads, python, "padded", {})
    runs, failed = process.in_turn(sides, given.repeats)
    found = {name: [_found(spent) for spent in own] for name, own in runs.items()}
    real = {name: sum(work.padded_tokens if name == PADDED else work.tokens) for name in found}
    speeds, cpu_speeds = (
        {name: [real[name] / sum(one[kind]) for one in own] for name, own in found.items()}
        for kind in ("seconds", "cpu_seconds")
    )
    for name, own in speeds.items():
        mfu = f"{statistics.median(_mfu(one) for one in found[name]):.0%}" if "peak" in found[name][0] else ""
        every = " ".join(f"{one:,.0f}" for one in own)
        loss = found[name][0]["loss"]
        print(
            f"| {label} | {name} | {statistics.median(own):,.0f} | {mfu} | {loss:.3f} | {every} |", flush=True
        )
    for name, words in failed.items():
        print(f"| {label} | {name} | failed: {words} |", flush=True)
    return _facts(found, speeds, cpu_speeds) | {"failed": failed}


def _found(spent: process.Spent) -> dict:
    return json.loads(spent.output.strip().splitlines()[-1])


def _mfu(one: dict) -> float:
    return sum(one["flops"]) / sum(one["seconds"]) / one["peak"]


def _facts(
    found: dict[str, list[dict]], speeds: dict[str, list[float]], cpu_speeds: dict[str, list[float]]
) -> dict:
    facts: dict = {"tokens_per_second": {name: round(statistics.median(own)) for name, own in speeds.items()}}
    packed = [name for name in (PACKED, PACKED_LOW) if name in speeds]
    if packed:
        best = max(packed, key=lambda name: statistics.median(speeds[name]))
        facts["packed"] = best
        pairs = {"ratio": (OURS, best), "muon_ratio": (OURS_MUON, best), "padded_ratio": (OURS, PADDED)}
        for key, (own, their) in pairs.items():
            if own in speeds and their in speeds:
                facts[key] = round(_middle(speeds[own], speeds[their]), 2)
                facts[f"cpu_{key}"] = round(_middle(cpu_speeds[own], cpu_speeds[their]), 2)
    facts["mfu"] = round(statistics.median(_mfu(one) for one in found[OURS]), 3)
    facts["peak_gflops"] = round(statistics.median(one["peak"] for one in found[OURS]) / 1e9)
    shares = [
        kept[0] / made[0]
        for one in found[OURS]
        for kept, made in zip(one["in_memory"], one["made_anew"], strict=True)
    ]
    facts["profile"] = {name: round(share, 3) for name, share in found[OURS][0]["profile"].items()}
    facts["feed_share"] = round(statistics.median(shares), 3)
    return facts


def _middle(ours: list[float], theirs: list[float]) -> float:
    """The median of the ratios of runs that were one after the other."""
    return statistics.median(own / their for own, their in zip(ours, theirs, strict=True))


def summary(parts: dict[str, dict]) -> dict:
    """The JSON object: of every number the worst over the corpora."""

    def worst(key: str) -> float | None:
        return min((facts[key] for facts in parts.values() if key in facts), default=None)

    ratio, padded, share = worst("ratio"), worst("padded_ratio"), worst("feed_share")
    return {
        "name": "training",
        "ratio": ratio,
        "target": 2,
        "padded_ratio": padded,
        "padded_target": 3,
        "ok": bool(ratio and padded and share and ratio >= 2 and padded >= 3 and share >= 0.97),
        **{key: worst(key) for key in ("muon_ratio", "cpu_ratio", "cpu_padded_ratio", "mfu", "feed_share")},
        "commit": process.commit(),
        "machine": process.machine(),
        "corpora": parts,
    }


def arguments() -> argparse.Namespace:
    """What was asked for on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one pair of short runs")
    parser.add_argument(
        "--corpus", type=Path, nargs="*", default=[], help="corpora (default: of the bundled cohort)"
    )
    parser.add_argument("--repeats", type=int, help="how often every side runs (default: 5)")
    parser.add_argument("--threads", type=int, default=2, help="of each side (default: 2)")
    parser.add_argument(
        "--rows", type=int, help="rows of 1,024 tokens in a step (default: 16, what the dial chooses)"
    )
    parser.add_argument(
        "--peers", type=Path, default=HERE.parent / ".peers", help="where bench/peers.sh put them"
    )
    given = parser.parse_args()
    given.repeats = given.repeats or (1 if given.quick else 5)
    given.rows = given.rows or (4 if given.quick else 16)
    return given


def main() -> None:
    """Measure all corpora and print the table and the JSON object."""
    given = arguments()
    process.keep_to_cores(given.threads)
    if not (given.peers / "transformers/bin/python").exists():
        print(
            f"{given.peers / 'transformers'} is missing, so the peer is left out: run bench/peers.sh first."
        )
    print(f"commit {process.commit()}; {process.machine()}\n")
    print("| corpus | side | real tokens/s | MFU | nats/token | all runs |")
    print("|---|---|--:|--:|--:|---|")
    parts: dict[str, dict] = {}
    with tempfile.TemporaryDirectory(prefix="sequela-bench-") as name:
        folder = Path(name)
        if not given.corpus:
            sequela.tokenize(nafld(), folder / "nafld")
            given.corpus = [folder / "nafld"]
        for corpus in given.corpus:
            work = prepare(corpus, folder / "steps.npz", 3 if given.quick else 5, given.rows)
            parts[corpus.name] = compare(corpus.name, work, given)
    print()
    print(json.dumps(summary(parts)))


if __name__ == "__main__":
    main()
