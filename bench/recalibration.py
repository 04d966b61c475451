"""What recalibration gains where few had the outcome: maps fitted to drawn patients, scored on all others.

    python bench/recalibration.py --predictions predictions/                 a folder of `sequela predict`
    python bench/recalibration.py --predictions predictions/ --tuning 1750   that many questions to fit to
    python bench/recalibration.py --predictions predictions/ --quick         a few draws: a look, no result

Of the simulated risks in a predictions folder, as many questions are drawn as there might be tuning patients; each way
to recalibrate is fitted to them and scored on the rest, `--draws` times. `saved` is how many nats a question are saved,
times 10,000, over the raw risk. `O/E` and `slope` are means over draws, `in` the share of draws that have them within
.85 to 1.15. Credibility is fitted to all questions, since it reads no outcome, and takes rollouts to be independent.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from sequela.rollout.spread import Spread
from sequela.task.answers.calibrate import credibility, known_risks
from sequela.task.answers.prediction import SIMULATION, read_predictions
from sequela.task.kinds import KINDS
from sequela.task.scoring.recalibration import SOUND, WHOLE, Credibility, enough, fit_isotonic, fit_logistic
from sequela.task.scoring.slope import CLIP, logistic_fit

PRIORS = (None, 0.1, SOUND, 0.2, 0.5)
Fit = Callable[[np.ndarray, np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray] | None]


def ways(drawn_in: Credibility) -> dict[str, Fit]:
    """Ways to recalibrate, by name: outcome, risk and weight to a map."""

    def line(prior: float | None, first: Credibility) -> Fit:
        return lambda outcome, risk, weights: fit_logistic(outcome, risk, weights, CLIP, prior, first)

    found: dict[str, Fit] = {"raw": lambda *_: lambda risk: risk, "credibility alone": lambda *_: drawn_in}
    for words, first in (("line", WHOLE), ("credibility and line", drawn_in)):
        for prior in PRIORS:
            found[f"{words}, {'free' if prior is None else prior}"] = line(prior, first)
    return found | {"isotonic": fit_isotonic}


def nats(outcome: np.ndarray, risk: np.ndarray, weights: np.ndarray) -> float:
    """The mean of -ln p(outcome)."""
    risk = np.clip(risk, CLIP, 1 - CLIP)
    return float(-np.average(outcome * np.log(risk) + (1 - outcome) * np.log1p(-risk), weights=weights))


def rows_of(path: Path, tuning: int, draws: int) -> Iterator[dict[str, object]]:
    """Of the risks of one task."""
    _, answers = read_predictions(path)
    outcome, risk, weights = known_risks(answers)
    random, scores = np.random.default_rng(0), {}
    share = min(tuning / len(answers), 0.9)
    drawn_in = credibility(answers, Spread(1.0))
    for _ in range(draws):
        drawn = random.random(len(outcome)) < share
        rest = ~drawn
        if not (enough(outcome[drawn]) and enough(outcome[rest])):
            continue
        base = nats(outcome[rest], risk[rest], weights[rest])
        for name, fit in ways(drawn_in).items():
            recalibrated = fit(outcome[drawn], risk[drawn], weights[drawn])
            if recalibrated is None:  # such a line would turn the order: the raw risk stands
                recalibrated = WHOLE
            found = np.clip(recalibrated(risk[rest]), CLIP, 1 - CLIP)
            saved = 1e4 * (base - nats(outcome[rest], found, weights[rest]))
            ratio = (weights[rest] @ outcome[rest]) / (weights[rest] @ found)
            slope = logistic_fit(outcome[rest], found, weights[rest])[1]
            scores.setdefault(name, []).append((saved, ratio, abs(ratio - 1) <= 0.15, slope, abs(slope - 1) <= 0.15))
    names = ("saved", "oe", "oe_in", "slope", "slope_in")
    for name, values in scores.items():
        means = dict(zip(names, map(float, np.mean(values, 0)), strict=True))
        yield {"task": path.parent.name, "way": name, "events": int(outcome.sum()), "draws": len(values), **means}


def main(given: argparse.Namespace) -> None:
    """Score every task that asks for a risk."""
    rows = []
    for path in sorted(given.predictions.glob(f"*/{SIMULATION}.parquet")):
        kind, _ = read_predictions(path)
        if not KINDS[kind].numeric:
            rows += rows_of(path, given.tuning, 3 if given.quick else given.draws)
    task = None
    for row in rows:
        if row["task"] != task:
            task = row["task"]
            print(f"{task}: {row['events']} events, {row['draws']} draws")
            print(f"  {'':<30}{'saved':>8}{'O/E':>8}{'in':>6}{'slope':>8}{'in':>6}")
        print(
            f"  {row['way']:<30}{row['saved']:8.1f}{row['oe']:8.3f}{row['oe_in']:6.0%}{row['slope']:8.3f}"
            f"{row['slope_in']:6.0%}"
        )
    print(json.dumps({"name": "recalibration", "tuning": given.tuning, "quick": given.quick, "rows": rows}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictions", type=Path, required=True, help="a folder of sequela predict")
    parser.add_argument("--tuning", type=int, default=1750, help="questions to fit to")
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="three draws")
    main(parser.parse_args())
