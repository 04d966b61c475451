"""Do 95 % intervals of single risks hold the risk that 1,000 rollouts give?

    python bench/coverage.py                        chains, and a NAFLD demo that is made first; an hour on two cores
    python bench/coverage.py --demo A --demo B      chains, and the models of finished folders of `sequela demo`
    python bench/coverage.py --quick                chains alone, under a minute

The chains are those of the known world (`sequela.record.worlds.markov`), with the exact risk as the truth: three levels
at one rate of death, and a cohort in which every patient has a rate of its own. Of a demo, held-out patients get a pool
of rollouts each; the truth is the mean of the pool. Pools are cut into runs of 5, 10, 20 and 50 rollouts, consecutive
by number, since the first tokens of consecutive rollouts are spread evenly. Every run is a cohort of its own, as
`sequela predict` would see it. A state rarer than one in a pool is not in its truth.

Beside the intervals stand their peers: Student's t after Hall's correction for skewness, from one patient's scores
alone, which is what sequela 0.1 printed. `effect` is the variance of a mean over that of independent scores.

The last line is JSON: `ratio` is the coverage that lies furthest outside of `target`, or nearest to its edge; `ok`
whether all lie within. The peers' coverage, and the widths of both, are in `rows`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from measure import process
from scipy import stats

import sequela
from sequela.record.questions import QUESTION
from sequela.record.worlds.markov import MarkovWorld
from sequela.rollout.engine.sampling import keys, openings
from sequela.rollout.estimators import RiskEstimates, answers, wilson
from sequela.rollout.folder import SimulatedFolder, score_column
from sequela.rollout.settings import SimulateSettings
from sequela.rollout.spread import interval, spread_of
from sequela.task.catalog import load_task

COUNTS = (5, 10, 20, 50)
TARGET = (0.93, 0.99)
DAYS = 7
RATES = (1.4, 1.0, 0.05, 0.02)  # of death, times that of the known world


@dataclass(frozen=True, eq=False)
class Pool:
    """Scores [Q, N] of consecutive rollouts, and the risks [Q] that they estimate."""

    name: str
    estimator: str
    scores: np.ndarray
    truth: np.ndarray


def chain(rates_Q: np.ndarray, level_Q: np.ndarray, rollouts: int, seed: int, *, avoid: bool) -> dict[str, np.ndarray]:
    """What the rollouts of patients at a level score, each [Q, N]: one token a day, the first ones spread evenly."""
    random, world = np.random.default_rng(seed), MarkovWorld.known()
    number = torch.arange(rollouts)
    key = torch.from_numpy(keys(seed, np.arange(len(rates_Q)), np.zeros(len(rates_Q), np.int64)))
    first = np.stack([openings(one.expand(rollouts), number).numpy() for one in key])
    level, alive = np.repeat(level_Q[:, None], rollouts, 1), np.ones(first.shape, bool)
    happened, hazard, survived = (np.full(first.shape, start) for start in (0.0, 0.0, 1.0))
    for day in range(DAYS):
        h = world.deaths[level] * rates_Q[:, None]
        hazard += np.where(alive, h, 0)
        survived *= np.where(alive, 1 - h, 1)
        u = random.random(first.shape) if day else first
        dies = np.zeros(first.shape, bool) if avoid else alive & (u < h)
        happened[dies] = 1
        alive &= ~dies
        rest = u if avoid else (u - h) / (1 - h)
        level = np.where(alive, (world.moves[level].cumsum(-1) < rest[..., None]).sum(-1).clip(0, 2), level)
    return {"mc": happened, "scope": hazard, "reach": 1 - survived}


def chains(patients: int, rollouts: int) -> list[Pool]:
    """Patients of the known world at each rate, and of a cohort of mixed rates. Votes have too few values to cover each
    of a few risks alike, so they are asked of the mixed cohort alone."""
    random = np.random.default_rng(0)
    cohorts = {f"chain x {rate:g}": np.full(patients, rate) for rate in RATES}
    cohorts["chains, mixed"] = np.exp(random.uniform(np.log(RATES[-1]), np.log(RATES[0]), patients))
    pools = []
    for name, rates in cohorts.items():
        level = np.arange(patients) % 3
        survived = np.zeros((patients, 3))
        survived[np.arange(patients), level] = 1
        world = MarkovWorld.known()
        for _ in range(DAYS):
            survived = (survived * (1 - world.deaths * rates[:, None])) @ world.moves
        truth = 1 - survived.sum(1)
        plain, avoiding = (chain(rates, level, rollouts, 1 + avoid, avoid=avoid) for avoid in (False, True))
        pools += [
            Pool(name, "scope", plain["scope"], truth),
            Pool(name, "reach", avoiding["reach"], truth),
        ]
        if name == "chains, mixed":
            pools.append(Pool(name, "mc", plain["mc"], truth))
    return pools


def of_demo(demo: Path, work: Path, patients: int, rollouts: int) -> list[Pool]:
    """The pools of a finished demo's model and its held-out patients, one for each task with hazards."""
    tasks = [path.name for path in sorted((demo / "predictions").iterdir()) if path.is_dir()]
    tasks = [name for name in tasks if load_task(name).has_hazard]
    out = work / f"{demo.resolve().name}-pool"
    settings = SimulateSettings(rollouts=rollouts, rows=512)
    sequela.simulate(demo / "model", demo / "meds", out, task=tuple(tasks), patients=patients, settings=settings)
    table = SimulatedFolder(out).rollouts()
    pools = []
    for task in tasks:
        column = score_column("scope", task)
        asked = table.filter(pl.col(column).is_not_null().any().over(QUESTION))
        asked = asked.sort(*QUESTION, "rollout").group_by(QUESTION, maintain_order=True).agg(column)
        scores = np.array([one.to_list() for one in asked[column]], float)
        pools.append(Pool(task, "scope", scores, answers(scores).risk))
    return pools


def hall(answer: RiskEstimates, scores_QN: np.ndarray, estimator: str) -> tuple[np.ndarray, np.ndarray]:
    """The peers' interval, [Q] and [Q]: W + g W^2 / 3 + g^2 W^3 / 27 + g / (6 n) = t for the skewness g (Hall 1992)."""
    mean, count = answer.value, answer.effective
    low, high = wilson(answer.risk, count)
    if estimator == "mc":
        return low, high
    deviation = np.sqrt(answer.variance)
    with np.errstate(invalid="ignore", divide="ignore"):
        skew = np.nan_to_num(((scores_QN - mean[:, None]) ** 3).mean(1) / deviation**3)
        g = np.where(np.abs(skew) < 1e-6, 1e-6, skew)
        t = stats.t.ppf(0.975, count - 1) / np.sqrt(count)
        ends = [
            np.clip(mean - deviation * 3 / g * (np.cbrt(1 + g * (y - g / (6 * count))) - 1), 0, 1) for y in (t, -t)
        ]
    spread = deviation > 1e-5 * mean
    return np.where(spread, ends[0], low), np.where(spread, ends[1], high)


def row(pool: Pool, n: int) -> dict[str, float | str]:
    """Coverage and width of both intervals for runs of n rollouts."""
    step = n + n % 2  # runs begin with an even number, as those of `sequela predict` do
    runs = [pool.scores[:, at : at + n] for at in range(0, pool.scores.shape[1] - n + 1, step)]
    own, peer, means, variances = [], [], [], []
    for scores in runs:
        answer = answers(scores)
        own.append(interval(answer, spread_of(answer, pool.estimator)))
        peer.append(hall(answer, scores, pool.estimator))
        means.append(answer.value)
        variances.append(answer.variance)
    (low, high), (their_low, their_high) = np.array(own).swapaxes(0, 1), np.array(peer).swapaxes(0, 1)
    square = np.nanmean((np.array(means) - pool.truth) ** 2)
    return {
        "cohort": pool.name,
        "estimator": pool.estimator,
        "n": n,
        "coverage": float(((low <= pool.truth) & (pool.truth <= high)).mean()),
        "too_low": float((high < pool.truth).mean()),
        "width": float((high - low).mean()),
        "peer_coverage": float(((their_low <= pool.truth) & (pool.truth <= their_high)).mean()),
        "peer_width": float((their_high - their_low).mean()),
        "effect": float(square * n / np.nanmean(variances)),
    }


def worst(coverages: list[float]) -> float:
    """The one that lies furthest outside of `TARGET`, or nearest to its edge."""
    return min(coverages, key=lambda one: min(one - TARGET[0], TARGET[1] - one))


def measured(pools: list[Pool]) -> dict:
    """The rows of all pools, printed, and the JSON object."""
    names = ("cohort", "estimator", "n", "held", "too low", "width", "peer held", "peer width", "effect")
    print(f"| {' | '.join(names)} |\n|{'---|' * len(names)}")
    rows = []
    for pool in pools:
        for n in COUNTS:
            one = row(pool, n)
            rows.append(one)
            print(
                f"| {pool.name} | {pool.estimator} | {n} | {one['coverage']:.1%} | {one['too_low']:.1%} | "
                f"{one['width']:.4f} | {one['peer_coverage']:.1%} | {one['peer_width']:.4f} | {one['effect']:.2f} |",
                flush=True,
            )
    ratio = worst([one["coverage"] for one in rows])
    return {
        "name": "coverage",
        "ratio": ratio,
        "target": list(TARGET),
        "ok": TARGET[0] <= ratio <= TARGET[1],
        "rows": rows,
        "patients": {pool.name: len(pool.truth) for pool in pools},
        "pool": {pool.name: pool.scores.shape[1] for pool in pools},
        "commit": process.commit(),
    }


def main() -> None:
    """Parse, simulate, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the chains alone")
    parser.add_argument("--demo", type=Path, action="append", default=[], help="a finished folder of `sequela demo`")
    parser.add_argument("--patients", type=int, default=200, help="of a demo's held-out patients (default: 200)")
    parser.add_argument("--pool", type=int, default=1000, help="rollouts of each patient (default: 1000)")
    parser.add_argument("--work", type=Path, help="where pools are kept (default: a temporary folder)")
    given = parser.parse_args()
    print(f"commit {process.commit()}; {process.machine()}\n")
    if given.work is not None:
        given.work.mkdir(parents=True, exist_ok=True)
    with nullcontext(given.work) if given.work else tempfile.TemporaryDirectory() as name:
        work = Path(name).resolve()
        pools = chains(300, 200 if given.quick else 1000)
        demos = [] if given.quick else given.demo or [work / "nafld"]
        for demo in demos:
            if not (demo / "model").exists():
                sequela.demo(out=demo)
            pools += of_demo(demo, work, given.patients, given.pool)
        print(json.dumps(measured(pools)))


if __name__ == "__main__":
    main()
