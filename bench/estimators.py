"""How many rollouts of each estimator are as good as 100 votes?

    python bench/estimators.py                     the known world, whose risks are exact; ten minutes on a core
    python bench/estimators.py --model MODEL --meds MEDS --task in_hospital_death     a trained model and its patients
    python bench/estimators.py --quick             the known world, few rollouts, against 20 votes, under a minute

The held-out patients get one large pool of ordinary rollouts, which gives mc and scope for every n, and one of rollouts
that avoid the outcome, which gives reach. A pool is cut into two or more disjoint batches of n, again and again in
another order; a curve is the mean over the batches. Its standard error is that of the batches of one cut (other random
numbers), its interval a bootstrap by patient (other patients).

For each metric an estimator matches at the smallest n from which on every n that was tried is no worse than mc at 100;
`first` is the smallest n that is no worse, whatever comes after it, and "surely" asks for more than 1.96 standard
errors of the difference. The metrics are AUROC, Brier score and the distance of the calibration slope from 1, and,
since no estimator can mend the model, its distance from the slope of the model's own risks (those of the whole pool).
On the known world there are also those without the luck of the patients: the root mean squared error of the risks, and
AUROC and slope in expectation. mc itself stands in the table as the control: it must need 100. A vote of 0 of n has no
logit (`sequela evaluate` takes 1e-6 for it), which makes the slope of mc poor; so a second reference adds half a case
to each side ("mc + 1/2").

The intervals of single risks are held against the rest of the pool. `auto` is run on its own at some targets, with
other random numbers, and compared with as many tokens of reach spent evenly. "Error" is that of the risks against the
model's own, which the pool tells; "worst tenth" is the largest of the tenths of the patients by risk (evenly: expected,
for normal errors). Seconds are those of the processors, start-up and reading the histories included.

The last line is JSON. `needed`: over AUROC, Brier and distance of the slope from 1 the largest n of each estimator;
`needed_model`: with the distance from the slope of the model's own risks, and on the known world AUROC, error of the
risks and slope without the luck of the patients. `ratio` is the better of scope and reach in the latter; `ok`: at most
`target`, 10.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
from measure import process
from measure.curves import SURE, Mean, Truth, batches, half_a_case, matches, share, span, spread

import sequela
from sequela.record.dataset import read_events, write_dataset
from sequela.record.questions import QUESTION
from sequela.record.worlds.markov import MarkovWorld
from sequela.rollout.estimators import answers as answers_of
from sequela.rollout.folder import SimulatedFolder, score_column
from sequela.rollout.settings import SimulateSettings
from sequela.rollout.spread import interval, spread_of
from sequela.task.answers.estimate import answers, estimate
from sequela.task.catalog import load_task
from sequela.task.label import labels
from sequela.task.task import Task
from sequela.tokens.maps.recode import recoded_events
from sequela.training.settings import TrainSettings

WORLD_TASK = """name: death_in_a_week
title: Death within seven days
dataset: known world
kind: binary
at: {after: "COHORT//ENTRY", offset: 1 day}
outcome: [MEDS_DEATH]
ends: []
horizon: 7 days
exclude: []
"""
CHANCES = 8  # of death: the first at the prediction time itself, the last at the horizon
TRAINING = TrainSettings(
    depth=1, context=512, epochs=6, batch_tokens=4096, learning_rate=6e-3, matrix_rate=6e-3
)
MC, SMOOTH, SCOPE, REACH = "mc", "mc + 1/2", "scope", "reach"
LOWER = ("brier", "slope_error", "slope_off", "slope_exact_error", "rmse")  # better when lower
ASKED = ("auroc", "brier", "slope_error")
MODEL, EXACT = ("auroc", "brier", "slope_off"), ("auroc_exact", "rmse", "slope_exact_error")
WORDS = {
    "auroc": "AUROC",
    "brier": "Brier",
    "slope_error": "slope, from 1",
    "slope_off": "slope, from the model's own",
    "auroc_exact": "AUROC, expected",
    "slope_exact_error": "slope, expected, from 1",
    "rmse": "RMSE to the exact risk",
}
TOGETHER = 2  # batches that a bootstrap looks at


@dataclass(frozen=True)
class Study:
    """How much is computed."""

    patients: int
    ordinary: int
    avoiding: int
    counts: tuple[int, ...]
    reference: int
    times: int
    resamples: int
    targets: tuple[float, ...]
    threshold: float
    few: int


FULL = Study(
    6000, 200, 100, (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100), 100, 5, 1000, (0.05, 0.02, 0.01), 0.1, 10
)  # fmt: skip
QUICK = Study(2000, 40, 20, (1, 2, 5, 10, 20), 20, 3, 100, (0.05,), 0.1, 4)


@dataclass(frozen=True)
class Asked:
    """A model, its patients and the question; `world` where the risks are exact."""

    name: str
    model: Path
    meds: Path
    task: str
    patients: int | None = None
    world: MarkovWorld | None = None

    def simulate(self, out: Path, estimator: str, rollouts: int, seed: int, **aim: float) -> float:
        """Simulate, unless that was done; the seconds of the processors that it took."""
        clock = out.with_name(f"{out.name}.seconds")
        if not clock.exists():
            settings = SimulateSettings(estimator=estimator, rollouts=rollouts, seed=seed, **aim)
            begun = time.process_time()
            sequela.simulate(
                self.model, self.meds, out, task=self.task, patients=self.patients, settings=settings
            )
            clock.write_text(str(time.process_time() - begun))
        return float(clock.read_text())


@dataclass(frozen=True, eq=False)
class Pool:
    """Scores [Q, N] of one estimator, and the tokens [Q, N] of their rollouts."""

    scores: np.ndarray
    tokens: np.ndarray
    answer: Callable[[np.ndarray], np.ndarray] = share

    @property
    def length(self) -> float:
        """Tokens of a rollout, mean over patients."""
        return float(self.tokens.mean())


def known_world(work: Path, study: Study, patients: int | None) -> Asked:
    """Patients whose risks are exact, and a model of them."""
    meds, corpus, model, task = work / "meds", work / "corpus", work / "model", work / "task.yaml"
    if not meds.exists():
        write_dataset(MarkovWorld.known().events(study.patients, seed=0), meds, name="known world")
        task.write_text(WORLD_TASK)
    sequela.tokenize(meds, corpus)
    sequela.train(corpus, model, settings=TRAINING)
    return Asked("known world", model, meds, str(task), patients, MarkovWorld.known())


def matrix(questions: pl.DataFrame, rollouts: pl.DataFrame, *columns: str) -> list[np.ndarray]:
    """Columns of one row a rollout as [Q, N]; NaN where null."""
    placed = rollouts.join(questions.with_row_index("question"), on=QUESTION)
    at = placed["question"].to_numpy(), placed["rollout"].to_numpy()
    out = []
    for column in columns:
        values = np.full((len(questions), int(at[1].max()) + 1), np.nan)
        values[at] = placed[column].cast(pl.Float64).fill_null(np.nan).to_numpy()
        out.append(values)
    return out


def pools_of(task: Task, ordinary: Path, avoiding: Path) -> tuple[pl.DataFrame, dict[str, Pool]]:
    """The questions, and the pool of each estimator."""
    folder = SimulatedFolder(ordinary)
    plain, avoids = folder.rollouts(), SimulatedFolder(avoiding).rollouts()
    questions = plain.select(QUESTION).unique().sort(QUESTION)
    hazard, tokens = matrix(questions, plain, score_column(SCOPE, task.name), "tokens")
    (votes,) = matrix(questions, answers(task, folder, plain), "label")
    reached, avoiding_tokens = matrix(questions, avoids, score_column(REACH, task.name), "tokens")
    return questions, {
        MC: Pool(votes, tokens),
        SMOOTH: Pool(votes, tokens, half_a_case),
        SCOPE: Pool(hazard, tokens),
        REACH: Pool(reached, avoiding_tokens),
    }


def truth_of(asked: Asked, task: Task, folder: Path, questions: pl.DataFrame) -> Truth:
    """What the records say of the questions."""
    events = recoded_events(read_events(asked.meds, patients=questions["subject_id"]), SimulatedFolder(folder).maps())
    found = labels(task, events, questions)
    risk = None
    if asked.world is not None:
        exact = np.array([asked.world.risk(level, CHANCES) for level in range(len(asked.world.deaths))])
        risk = exact[asked.world.level_before(events, questions)]
    return Truth(
        found["label"].fill_null(np.nan).to_numpy(),
        found["until_days"].to_numpy(),
        questions["subject_id"].to_numpy(),
        risk,
    )


def curves(truth: Truth, pools: dict[str, Pool], study: Study, clocks: dict[str, list[float]]) -> list[dict]:
    """One entry for each estimator and n."""
    found = []
    for name, pool in pools.items():
        for n in (n for n in study.counts if 2 * n <= pool.scores.shape[1]):
            random = np.random.default_rng(n)
            partitions = list(batches(pool.scores, n, random, study.times, pool.answer))
            means, some = truth.means(partitions), partitions[0][:, :TOGETHER]
            of_some = truth.means([some])
            draws = {  # of some batches, moved to the mean of all
                key: values + means[key].value - of_some[key].value
                for key, values in truth.draws(some, count=study.resamples).items()
            }
            base, slope = clocks[REACH if name == REACH else SCOPE]
            one = {
                "estimator": name,
                "n": n,
                "batches": partitions[0].shape[1],
                "tokens": n * pool.length,
                "seconds": base + slope * n,
                "unpredicted": float(np.isnan(partitions[0]).mean()),
                "means": means,
                "draws": draws,
            }
            one["spans"] = {
                key: span(mean.value, draws[key]) for key, mean in one["means"].items() if key in draws
            }
            found.append(one)
            print(row(one), flush=True)
    return found


HEAD = ("estimator", "n", "tokens", "AUROC", "Brier", "slope", "O/E", "ECE", "RMSE to the exact risk")


def header(names: tuple[str, ...]) -> str:
    """Of a table."""
    return f"| {' | '.join(names)} |\n|{'---|' * len(names)}"


def row(one: dict) -> str:
    """A line of the table of curves: mean over batches ± its standard error (interval by patient)."""
    cells = [one["estimator"], str(one["n"]), f"{one['tokens']:.0f}"]
    for key in ("auroc", "brier", "slope", "oe", "ece", "rmse"):
        if key in one["means"]:
            mean, (low, high) = one["means"][key], one["spans"][key]
            digits = 3 if key in ("auroc", "slope", "oe") else 4
            cells.append(
                f"{mean.value:.{digits}f} ± {mean.error:.{digits + 1}f} ({low:.{digits}f}-{high:.{digits}f})"
            )
    return f"| {' | '.join(cells)} |"


def losses(found: list[dict], estimator: str, key: str) -> dict[int, Mean]:
    """By n, lower is better."""
    sign = 1 if key in LOWER else -1
    return {
        one["n"]: Mean(sign * one["means"][key].value, one["means"][key].error)
        for one in found
        if one["estimator"] == estimator
    }


def beside(one: dict, votes: dict, key: str) -> dict:
    """A metric of `one` less that of the votes, its standard error, the interval by patient, and what `one` costs."""
    difference = one["means"][key].value - votes["means"][key].value
    found = {
        "difference": difference,
        "error": float(np.hypot(one["means"][key].error, votes["means"][key].error)),
        "tokens_ratio": one["tokens"] / votes["tokens"],
        "seconds_ratio": one["seconds"] / votes["seconds"],
    }
    if key in one["draws"]:
        found["interval"] = span(difference, one["draws"][key] - votes["draws"][key])
    return found


def matched(found: list[dict], study: Study) -> list[dict]:
    """For each reference, metric and estimator: the n that matches, and the difference at 10 rollouts."""
    at = {(one["estimator"], one["n"]): one for one in found}
    out = []
    for reference in (MC, SMOOTH):
        votes = at[reference, study.reference]
        for key in (key for key in WORDS if key in votes["means"]):
            bound = losses(found, reference, key)[study.reference]
            for name in (MC, SCOPE, REACH):
                own = losses(found, name, key)
                entry = {
                    "reference": reference,
                    "metric": key,
                    "estimator": name,
                    "n": matches(own, bound),
                    "first": min((n for n, one in own.items() if one.value <= bound.value), default=None),
                    "surely": matches(own, bound, SURE),
                    "at_10": beside(at[name, 10], votes, key),
                }
                if entry["n"] is not None:
                    entry |= {"there": beside(at[name, entry["n"]], votes, key)}
                out.append(entry)
    return out


def print_matches(entries: list[dict], study: Study) -> None:
    """The table of what matches."""
    print(f"\nWhat matches {study.reference} votes:\n")
    words = ("reference", "metric", "estimator", "n", "first", "surely", "10 rollouts less the votes")
    print(header((*words, "tokens", "seconds")))
    for one in entries:
        cells = [one["reference"], WORDS[one["metric"]], one["estimator"]]
        cells += [f"{one[key] or 'none'}" for key in ("n", "first", "surely")]
        ten = one["at_10"]
        words = f"{ten['difference']:+.4f} ± {ten['error']:.4f}"
        if "interval" in ten:
            words += " ({:+.4f} to {:+.4f})".format(*ten["interval"])
        there = one.get("there")
        cells += [
            words,
            *([f"{there[f'{key}_ratio']:.3f}" for key in ("tokens", "seconds")] if there else ["", ""]),
        ]
        print(f"| {' | '.join(cells)} |")


def efficiency(pools: dict[str, Pool]) -> dict[str, dict]:
    """The error of the risks against the model's own: what one rollout and one token are worth."""
    out, votes = {}, float(np.nanmean(spread(pools[MC].scores)))
    print(header(("estimator", "mean variance of a score", "rollouts for 100 votes", "tokens for 100 votes")))
    for name in (MC, SCOPE, REACH):
        pool = pools[name]
        variance = float(np.nanmean(spread(pool.scores)))
        n = 100 * variance / votes
        tokens = n * pool.length / (100 * pools[MC].length)
        out[name] = {"variance": variance, "rollouts": n, "tokens_ratio": tokens, "length": pool.length}
        print(f"| {name} | {variance:.6f} | {n:.2f} | {tokens:.4f} |")
    means = {name: np.nanmean(answers_of(pools[name].scores).value) for name in (MC, SCOPE, REACH)}
    print("Mean risk: " + ", ".join(f"{name} {mean:.5f}" for name, mean in means.items()))
    for name, mean in means.items():
        out[name]["mean_risk"] = float(mean)
    return out


def coverage(pools: dict[str, Pool], study: Study) -> dict[str, dict[int, list[float]]]:
    """By estimator and n, the share of 95 % intervals that hold the risk, of those below it, of those above it.

    The risk is the mean score of the rest of the pool (of scope's for mc), which errs too: a share n / (N - n) as much.
    """
    print("\n95 % intervals against the rest of the pool:\n")
    print(
        header(("estimator", "n", "hold the risk", "too low", "too high", "variance of the rest, as a share"))
    )
    found: dict[str, dict[int, list[float]]] = {}
    for name, of in ((MC, SCOPE), (SCOPE, SCOPE), (REACH, REACH)):
        scores, risks = pools[name].scores, pools[of].scores
        size = scores.shape[1]
        for n in (n for n in (10, 20) if 2 * n <= size and n in study.counts):
            sides = []
            for batch in range(min(size // n, 10)):
                own = slice(n * batch, n * (batch + 1))
                answer = answers_of(scores[:, own])
                low, high = interval(answer, spread_of(answer, name))
                rest = share(np.delete(risks, own, 1))
                sides.append(
                    [np.mean((low <= rest) & (rest <= high)), np.mean(high < rest), np.mean(rest < low)]
                )
            found.setdefault(name, {})[n] = np.mean(sides, 0).tolist()
            cells = " | ".join(f"{one:.1%}" for one in found[name][n])
            print(f"| {name} | {n} | {cells} | {n / (size - n):.2f} |", flush=True)
    return found


def worst(square_Q: np.ndarray, risk_Q: np.ndarray) -> float:
    """Root mean squared error of the tenth of the patients, by risk, where it is largest."""
    tenths = np.array_split(np.argsort(risk_Q, kind="stable"), 10)
    return float(np.sqrt(max(max(square_Q[some].mean(), 0.0) for some in tenths)))


def automatic(
    asked: Asked, task: Task, work: Path, truth: Truth, pool: Pool, questions: pl.DataFrame, study: Study
) -> list[dict]:
    """Auto at each target, beside as many tokens of reach spent evenly."""
    aims = [{"target_error": target} for target in study.targets] + [{"threshold": study.threshold}]
    own, variance = pool.answer(pool.scores), spread(pool.scores)
    normal = np.random.default_rng(0).normal(size=(200, int(np.isfinite(variance).sum()))) ** 2
    out = []
    print("\nauto, and as many tokens of reach for everyone:\n")
    names = (
        "aim", "rollouts", "fewest-most", "tokens", "error", "evenly", "worst tenth", "evenly", "settled", "evenly",
        "AUROC", "Brier", "slope",
    )  # fmt: skip
    print(header(names))
    for aim in aims:
        name = " ".join(f"{key} {value}" for key, value in aim.items())
        folder = work / name.replace(" ", "-")
        seconds = asked.simulate(folder, "auto", 256, 1, **aim)
        simulated = SimulatedFolder(folder)
        said = estimate(task, simulated, simulated.rollouts(), "auto")
        said = questions.join(said, on=QUESTION, how="left", maintain_order="left")
        risk = said["prediction"].fill_null(np.nan).to_numpy()
        both = np.isfinite(risk) & np.isfinite(variance)
        n = float(said["tokens"].sum()) / len(said) / pool.length
        square = ((risk - own) ** 2 - variance / pool.scores.shape[1])[both]
        same = answers_of(pool.scores[:, : max(round(n), 1)])
        evenly = interval(same, spread_of(same, REACH))
        ends = [said[end].fill_null(np.nan).to_numpy() for end in ("low", "high")]
        metrics = {key: float(x) for key, x in truth.measure(risk, np.ones(len(risk))).items()}
        one = {
            "aim": name,
            "rollouts": float(said["rollouts"].mean()),
            "fewest_most": [int(said["rollouts"].min()), int(said["rollouts"].max())],
            "tokens": float(said["tokens"].sum()) / len(said),
            "seconds": seconds,
            "evenly_n": n,
            "error": float(np.sqrt(max(square.mean(), 0))),
            "error_evenly": float(np.sqrt(np.mean(variance[both]) / n)),
            "worst": worst(square, own[both]),
            "worst_evenly": float(
                np.mean([worst(drawn, own[both]) for drawn in normal * variance[both] / n])
            ),
            "settled": float(((ends[0] > study.threshold) | (ends[1] < study.threshold)).mean()),
            "settled_evenly": float(((evenly[0] > study.threshold) | (evenly[1] < study.threshold)).mean()),
            **metrics,
        }
        out.append(one)
        figures = [f"{one[key]:.4f}" for key in ("error", "error_evenly", "worst", "worst_evenly")]
        figures += [f"{one[key]:.1%}" for key in ("settled", "settled_evenly")]
        figures += [f"{one['auroc']:.3f}", f"{one['brier']:.4f}", f"{one['slope']:.3f}"]
        cells = [
            name,
            f"{one['rollouts']:.1f}",
            "-".join(map(str, one["fewest_most"])),
            f"{one['tokens']:.0f}",
        ]
        print(f"| {' | '.join(cells + figures)} |", flush=True)
    return out


def clocked(asked: Asked, work: Path, study: Study) -> dict[str, list[float]]:
    """Seconds of a simulation of no rollout, and of each further one, for ordinary rollouts and for reach."""
    out = {}
    for name, pool, many in ((SCOPE, "ordinary", study.ordinary), (REACH, "avoiding", study.avoiding)):
        few, all_ = (
            asked.simulate(work / folder, name, count, 2)
            for folder, count in ((f"{pool}-few", study.few), (pool, many))
        )
        slope = (all_ - few) / (many - study.few)
        out[name] = [few - slope * study.few, slope]
        print(f"{name}: {few:.1f} s for {study.few} rollouts of every patient, {all_:.1f} s for {many}")
    return out


def plain(found: list[dict]) -> list[dict]:
    """The curves as JSON has them: [mean, its standard error, low, high]."""
    kept = ("estimator", "n", "batches", "tokens", "seconds", "unpredicted")
    return [
        {key: one[key] for key in kept}
        | {
            key: [
                None if not np.isfinite(x) else round(x, 6)
                for x in (mean.value, mean.error, *one["spans"].get(key, ()))
            ]
            for key, mean in one["means"].items()
        }
        for one in found
    ]


def needed(entries: list[dict], keys: tuple[str, ...]) -> dict[str, int | None]:
    """By estimator, the n that matches mc in all of these metrics."""
    out = {}
    for name in (MC, SCOPE, REACH):
        own = [
            one["n"]
            for one in entries
            if one["reference"] == MC and one["estimator"] == name and one["metric"] in keys
        ]
        out[name] = None if None in own else max(own)
    return out


def study_of(asked: Asked, work: Path, study: Study) -> dict:
    """Simulate, measure, print; the JSON object."""
    task = load_task(asked.task)
    ordinary, avoiding = work / "ordinary", work / "avoiding"
    asked.simulate(ordinary, SCOPE, study.ordinary, 0)
    asked.simulate(avoiding, REACH, study.avoiding, 0)
    questions, pools = pools_of(task, ordinary, avoiding)
    truth = replace(truth_of(asked, task, ordinary, questions), own=share(pools[SCOPE].scores))
    print(
        f"{asked.name}, {task.name}: {len(questions):,} patients, {int(np.nansum(truth.outcome))} with the outcome"
    )
    print(f"pools of {study.ordinary} ordinary rollouts and {study.avoiding} that avoid it\n")
    facts = {
        name: SimulatedFolder(work / name).summary() for name in ("ordinary", "avoiding")
    }
    for name, one in facts.items():
        print(f"{name}: reasons {one['reasons']}, probability removed {one['probability_removed']:.2e}")
    worth = efficiency(pools)
    clocks = clocked(asked, work, study)
    print()
    print(header(HEAD[: 8 + (truth.risk is not None)]))
    found = curves(truth, pools, study, clocks)
    entries = matched(found, study)
    print_matches(entries, study)
    covered = coverage(pools, study)
    auto = automatic(asked, task, work, truth, pools[REACH], questions, study)
    model = needed(entries, MODEL if truth.risk is None else EXACT)
    ratio = min((n for name in (SCOPE, REACH) if (n := model[name]) is not None), default=None)
    return {
        "name": "estimators",
        "data": asked.name,
        "ratio": ratio,
        "target": 10,
        "ok": ratio is not None and ratio <= 10,
        "needed": needed(entries, ASKED),
        "needed_model": model,
        "reference": study.reference,
        "patients": len(questions),
        "positives": int(np.nansum(truth.outcome)),
        "worth": worth,
        "clocks": clocks,
        "matches": entries,
        "coverage": covered,
        "auto": auto,
        "curves": plain(found),
        "simulations": {
            name: {key: one[key] for key in ("rollouts", "tokens", "reasons", "probability_removed")}
            for name, one in facts.items()
        },
        "commit": process.commit(),
    }


def main() -> None:
    """Parse, study, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few patients and rollouts, against 20 votes")
    parser.add_argument("--model", type=Path, help="a folder of `sequela train`; none: the known world")
    parser.add_argument("--meds", type=Path, help="the MEDS dataset of --model")
    parser.add_argument("--task", help="of --model, a name or a path; kind binary, without conditions")
    parser.add_argument("--patients", type=int, help="held-out patients (default: all)")
    parser.add_argument("--work", type=Path, help="where simulations are kept (default: a temporary folder)")
    parser.add_argument(
        "--pools", type=int, nargs=2, help="rollouts, ordinary and avoiding (default: 200 100)"
    )
    parser.add_argument("--threads", type=int, default=1, help="default: 1")
    given = parser.parse_args()
    if given.model and not (given.meds and given.task):
        parser.error("--model needs --meds and --task")
    study = QUICK if given.quick else FULL
    if given.pools:
        study = replace(study, ordinary=given.pools[0], avoiding=given.pools[1])
        if study.ordinary < 2 * study.reference or study.avoiding < 2:
            parser.error(f"--pools: twice {study.reference} ordinary rollouts at least, and two that avoid")
    torch.set_num_threads(given.threads)
    print(f"commit {process.commit()}; {process.machine()}\n")
    if given.work is not None:
        given.work.mkdir(parents=True, exist_ok=True)
    with nullcontext(given.work) if given.work else tempfile.TemporaryDirectory() as name:
        work = Path(name).resolve()
        if given.model:
            asked = Asked(given.meds.name, given.model, given.meds, given.task, given.patients)
        else:
            asked = known_world(work, study, given.patients)
        print(json.dumps(study_of(asked, work, study)))


if __name__ == "__main__":
    main()
