"""How long does `sequela evaluate` take, and how much memory, for five models and 10^4 to 10^6 questions?

    python bench/evaluate.py              10^4, 10^5 and 10^6 questions, each predicted by five models
    python bench/evaluate.py --quick      10^3 and 10^4

Every patient has a known risk; two in five are lost before the horizon, so that every resample has weights of its own.
Beside it stands the plain way for the same points and intervals, which is timed for some resamples and multiplied:
patients drawn with replacement, and scikit-learn's AUROC, average precision and Brier score of the weighted rows, one
call each for every model (no calibration, no O/E). `ratio` is the seconds with the most questions, to stay below
`target`; `peak_gb` (10^9 bytes) must stay below `memory_target`. The data are deleted.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
from measure import process
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from sequela.task.answers.prediction import write_predictions
from sequela.task.scoring.bootstrap import RESAMPLES
from sequela.task.scoring.censoring import censoring_weights

TARGET, MEMORY_TARGET = 120.0, 2.0
HORIZON = 5.0  # years
MODELS = {"sequela": 0.3, "cox": 0.7, "trees": 1.1, "logistic": 1.5, "age_sex": 1.9}  # noise of the logit
PLAIN_CELLS = 4_000_000  # questions x resamples that the plain way is timed on


def made(count: int, seed: int = 0) -> tuple[pl.DataFrame, dict[str, np.ndarray]]:
    """Questions with their truth, and each model's risks."""
    draw = np.random.default_rng(seed)
    rate = np.exp(draw.normal(-3.5, 1, count))
    event, lost = draw.exponential(1 / rate), draw.uniform(0, 12, count)
    until = np.minimum.reduce([event, lost, np.full(count, HORIZON)])
    label = np.where(until == event, 1.0, np.where(until == HORIZON, 0.0, np.nan))
    logit = np.log(np.expm1(HORIZON * rate))
    truth = pl.DataFrame(
        {
            "subject_id": np.arange(count),
            "prediction_time": pl.repeat(datetime(2020, 1, 1), count, eager=True),
            "label": pl.Series(label).fill_nan(None),
            "until_days": until,
        }
    )
    return truth, {
        model: 1 / (1 + np.exp(-logit - draw.normal(0, noise, count))) for model, noise in MODELS.items()
    }


def plain(truth: pl.DataFrame, risks: dict[str, np.ndarray]) -> float:
    """Seconds that all resamples would take the plain way."""
    until, outcome = truth["until_days"].to_numpy(), truth["label"].fill_null(np.nan).to_numpy()
    known, count = ~np.isnan(outcome), len(outcome)
    times = max(1, min(20, PLAIN_CELLS // count))
    draw, started = np.random.default_rng(0), time.perf_counter()
    for _ in range(times):
        copies = np.bincount(draw.integers(count, size=count), minlength=count)
        weights = censoring_weights(until, known, copies)[known]
        for risk in risks.values():
            for metric in (roc_auc_score, average_precision_score, brier_score_loss):
                metric(outcome[known], risk[known], sample_weight=weights)
    return (time.perf_counter() - started) / times * RESAMPLES


def measure(count: int, folder: Path) -> dict:
    """Make the predictions, evaluate them, print a row, and return the numbers."""
    truth, risks = made(count)
    for model, risk in risks.items():
        path = folder / f"predictions-{count}" / "made" / f"{model}.parquet"
        write_predictions(truth.with_columns(prediction=pl.Series(risk)), "binary", path)
    spent = process.run(
        process.sequela("evaluate", folder / f"predictions-{count}", folder / f"scores-{count}", "--quiet")
    )
    theirs = plain(truth, risks)
    row = {
        "questions": count,
        "patients": count,
        "seconds": round(spent.seconds, 1),
        "cpu_seconds": round(spent.cpu_seconds, 1),
        "peak_gb": round(spent.tree_bytes / 1e9, 3),
        "plain_seconds": round(theirs),
    }
    print(
        f"| {count:,} | {row['seconds']} | {row['cpu_seconds']} | {row['peak_gb']} | {theirs:,.0f} "
        f"| {theirs / spent.seconds:.1f} |",
        flush=True,
    )
    return row


def summary(rows: list[dict], failed: str | None) -> dict:
    """The JSON object."""
    seconds, peak = (rows[-1][key] if rows else None for key in ("seconds", "peak_gb"))
    return {
        "name": "evaluate",
        "ratio": seconds,
        "target": TARGET,
        "peak_gb": peak,
        "memory_target": MEMORY_TARGET,
        "ok": failed is None and bool(rows) and seconds <= TARGET and peak <= MEMORY_TARGET,
        "failed": failed,
        "commit": process.commit(),
        "machine": process.machine(),
        "runs": rows,
    }


def main() -> None:
    """Measure all sizes and print the table and the JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="10^3 and 10^4 questions")
    parser.add_argument("--questions", type=int, nargs="+", help="other numbers of questions")
    parser.add_argument("--work", type=Path, help="a folder for scratch (default: a temporary one)")
    given = parser.parse_args()
    sizes = given.questions or ([10**3, 10**4] if given.quick else [10**4, 10**5, 10**6])
    process.keep_to_cores(2)
    print(f"commit {process.commit()}; {process.machine()}\n")
    print("| questions x 5 models | evaluate s | CPU-s | peak GB | plain s (projected) | plain / evaluate |")
    print("|--:|--:|--:|--:|--:|--:|")
    rows: list[dict] = []
    failed = None
    with tempfile.TemporaryDirectory(dir=given.work, prefix="sequela-bench-") as name:
        for size in sizes:
            try:
                rows.append(measure(size, Path(name)))
            except process.Failed as error:
                failed = f"{size} questions: {error.reason}"
                print(f"| {size:,} | failed: {error.reason} |", flush=True)
                break
    print()
    print(json.dumps(summary(rows, failed)))


if __name__ == "__main__":
    main()
