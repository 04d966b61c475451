"""Do simulated patients come as often as real ones? Moments with an event in the first year after the question.

    python bench/visits.py --demo demo-output            a demo, made if it is not there
    python bench/visits.py --demo demo-output --years 2
    python bench/visits.py --demo demo-output-quick --quick           a quick one: a look, no result

Counted are the moments after the prediction time at which anything is recorded that futures can hold, per person-year
under observation: of held-out patients up to the last row of their records, of their futures up to where they stop. So
records must state their end. Whose record holds nothing after the question is left out, and counted. Rows tell patients
apart by how often they came in the three years before. `ratio` is imagined over real, with a 95 % interval over
patients (`--resamples` bootstraps). The last line is JSON, with one row for each line of the table.
"""

from __future__ import annotations

import argparse
import json
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
from measure import process
from measure.demo import finished

from sequela.record.dataset import read_events
from sequela.record.questions import QUESTION
from sequela.record.schema import FOLLOW_UP_END
from sequela.rollout.folder import SimulatedFolder
from sequela.tokens.maps.recode import recoded_events

YEAR = timedelta(days=365.25)
BEFORE = 3 * YEAR
GROUPS = {"none": (0, 0), "1 or 2": (1, 2), "3 to 5": (3, 5), "6 to 8": (6, 8), "more than 8": (9, None)}
NOW = timedelta(0)
COUNTED = ["moments", "years", "imagined_moments", "imagined_years"]


def since() -> pl.Expr:
    """The time since the question."""
    return pl.col("time") - pl.col("prediction_time")


def visits(events: pl.DataFrame, key: list[str], years: float, known: pl.Series) -> pl.DataFrame:
    """`moments` with a `known` code, and person-`years` up to the last row, from the prediction time on, by `key`."""
    span = years * YEAR
    watched = pl.min_horizontal(since().max(), pl.lit(span)).dt.total_seconds() / YEAR.total_seconds()
    counted = pl.col("time").filter(pl.col("code").is_in(known.implode()) & (since() <= span)).n_unique()
    return events.group_by(key).agg(moments=counted, years=watched)


def compared(demo: Path, years: float) -> pl.DataFrame:
    """For each question: real and imagined moments and years, and how often the patient came `before`."""
    simulated = SimulatedFolder(demo / "simulated")
    futures = simulated.events([*QUESTION, "rollout", "time", "code"]).filter(since() >= NOW)
    questions = futures.select(QUESTION).unique()
    known = futures["code"].unique()
    known = known.filter(known != FOLLOW_UP_END)
    real = recoded_events(read_events(demo / "meds", "held_out"), simulated.maps())
    real = real.select("subject_id", "time", "code").drop_nulls("time").join(questions, on="subject_id")
    past = (since() < NOW) & (since() >= -BEFORE) & pl.col("code").is_in(known.implode())
    before = real.filter(past).group_by(QUESTION).agg(before=pl.col("time").n_unique())
    seen = visits(real.filter(since() >= NOW), QUESTION, years, known)
    imagined = visits(futures, [*QUESTION, "rollout"], years, known).group_by(QUESTION)
    imagined = imagined.agg(imagined_moments=pl.col("moments").sum(), imagined_years=pl.col("years").sum())
    print(
        f"{questions.height - seen.height:,} of {questions.height:,} questions are followed by nothing: left out.\n"
    )
    whole = questions.join(before, on=QUESTION, how="left").join(seen, on=QUESTION)
    return whole.join(imagined, on=QUESTION).with_columns(pl.col("before").fill_null(0))


def line(name: str, chosen: pl.DataFrame, draws: np.random.Generator, resamples: int) -> dict:
    """Rates of some questions, and their ratio with its interval over patients."""
    sums = chosen.group_by("subject_id", maintain_order=True).agg(pl.col(COUNTED).sum())
    counts = sums.select(COUNTED).to_numpy()
    weights = draws.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), resamples)
    moments, lived, made, imagined = np.vstack([counts.sum(0), weights @ counts]).T
    ratio = (made / imagined) / (moments / lived)
    low, high = np.quantile(ratio[1:], (0.025, 0.975))
    return {
        "before": name, "questions": len(chosen), "real": moments[0] / lived[0], "imagined": made[0] / imagined[0],
        "ratio": ratio[0], "low": float(low), "high": float(high),
    }  # fmt: skip


def main(given: argparse.Namespace) -> None:
    """Count, and print."""
    print(f"commit {process.commit()}; {process.machine()}\n")
    demo = finished(given.demo, quick=given.quick)
    found = compared(demo, given.years)
    draws, rows = np.random.default_rng(0), []
    for name, (low, high) in {"any number": (0, None), **GROUPS}.items():
        chosen = found.filter((pl.col("before") >= low) & (high is None or pl.col("before") <= high))
        if chosen["moments"].sum() and chosen["years"].sum():
            rows.append(line(name, chosen, draws, given.resamples))
    print(f"{'moments before':<16}{'questions':>10}{'real':>9}{'imagined':>10}{'ratio':>8}")
    for row in rows:
        span = f"{row['low']:.2f} to {row['high']:.2f}"
        numbers = f"{row['real']:>9.3f}{row['imagined']:>10.3f}{row['ratio']:>8.3f}"
        print(f"{row['before']:<16}{row['questions']:>10,}{numbers}  ({span})")
    ratio = rows[0]["ratio"] if rows else None
    print(
        json.dumps({"name": "visits", "years": given.years, "ratio": ratio, "ok": bool(rows), "rows": rows})
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--demo", type=Path, help="of a demo (default: demo-output, or demo-output-quick)")
    parser.add_argument("--quick", action="store_true", help="make a quick demo if there is none")
    parser.add_argument("--years", type=float, default=1.0, help="after the question (default: 1)")
    parser.add_argument("--resamples", type=int, default=1000, help="for the interval (default: 1000)")
    main(parser.parse_args())
