"""Which arm knows more? Differences to the reference at every landmark, over the course, and by how varied it is.

Three families of comparisons are corrected by Holm's method, each for itself, so that asking more of the baselines does
not cost the arms their power: arms with the reference, baselines with the reference, and how differences move with the
landmark, the horizon, and the entropy of the history.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sequela.holm import holm
from sequela.record.duration import DAY, UNITS
from sequela.task.probing.arm_score import ArmScore, combined, difference
from sequela.task.probing.cell import Cell, MeasuredCell, Seeds, measure_cells
from sequela.task.probing.variety import THIRDS
from sequela.task.probing.wins import win_rate
from sequela.task.scoring.bootstrap import LEVEL, RESAMPLES, Estimate
from sequela.task.scoring.comparison import BEATEN, BEATS, MATCHES, OPEN, Comparison, corrected

UPPER_LESS_LOWER = "gain in the upper less that in the lower third by entropy"


@dataclass(frozen=True, eq=False)
class Contest:
    """Who is compared, and how.

    Attributes:
        arms: the models of each arm, by its name.
        reference: the arm that all others are compared with.
        baselines: models that no seed moves.
        margin: within which two models are as good as each other (see `sequela.task.scoring.comparison`).
        seed: of the resamples.
        resample_count: how many.
    """

    arms: dict[str, Seeds]
    reference: str
    baselines: tuple[str, ...] = ()
    margin: float = 0.02
    seed: int = 0
    resample_count: int = RESAMPLES

    @property
    def rivals(self) -> list[str]:
        """The arms besides the reference."""
        return [name for name in self.arms if name != self.reference]

    def score(self, cell: MeasuredCell, name: str, metric: str, third: int | None = None) -> ArmScore | None:
        """A metric of an arm or a baseline; None if it is not defined, or was not asked."""
        if name in self.arms:
            return cell.score(self.arms[name], metric, trained=True, third=third)
        return cell.score({name: None}, metric, trained=False, third=third)


def compare(cells: Sequence[Cell], contest: Contest) -> dict[str, object]:
    """What metrics.json says: `tasks` and `comparisons` in the shape of `sequela evaluate`, and `probe`.

    Each cell (a task at a landmark) is one of the `tasks`, with every metric of every arm (the mean over its seeds) and
    baseline, and the `difference` of each to the reference. `probe` holds `wins`, `thirds` and `courses`, where a gain
    above 0 is in favor of the arm; the `chosen` penalties; `few_shot`; and each probe again on `rounded` vectors.
    """
    measured = measure_cells(cells, contest.seed, contest.resample_count)
    arms = _differences(measured, contest, contest.rivals)
    plain = _differences(measured, contest, list(contest.baselines))
    by_third, contrasts = _thirds(measured, contest)
    courses = contrasts + _slopes(measured, contest)
    for entry, p in zip(courses, holm(np.array([entry["p"] for entry in courses])), strict=True):
        entry["p"] = float(p)
    tasks = {
        cell.cell.name: _report(cell, contest, {**arms.get(cell.cell.name, {}), **plain.get(cell.cell.name, {})})
        for cell in measured
    }
    return {
        "tasks": tasks,
        "comparisons": {
            "count": sum(map(len, arms.values())),
            "of_baselines": sum(map(len, plain.values())),
            "of_courses": len(courses),
            "confidence": LEVEL,
            "margin": contest.margin,
            "words": _words(contest, sum(map(len, arms.values()))),
        },
        "probe": {
            "reference": contest.reference,
            "arms": {name: list(models) for name, models in contest.arms.items()},
            "wins": _wins(measured, contest),
            "thirds": by_third,
            "courses": courses,
            "chosen": {cell.name: cell.chosen for cell in cells},
            "few_shot": {cell.name: _few_shot(cell, contest) for cell in cells if cell.few_shot},
            "rounded": {
                cell.name: {name: again.as_dict() for name, again in cell.rounded.items()} for cell in cells
            },
        },
    }


def _differences(
    cells: Sequence[MeasuredCell], contest: Contest, names: list[str]
) -> dict[str, dict[str, Comparison]]:
    """Each of these less the reference in the headline metric, by cell, corrected over all."""
    keys, comparisons = [], []
    for cell in cells:
        headline = cell.cell.task.asks.headline
        theirs = contest.score(cell, contest.reference, headline.name)
        for name in names:
            mine = contest.score(cell, name, headline.name)
            if mine is None or theirs is None:
                continue
            estimate, p = difference(mine, theirs, contest.seed)
            gain = estimate.value if headline.higher_is_better else -estimate.value
            keys.append((cell.cell.name, name))
            comparisons.append(Comparison(estimate, gain, p, headline.margin(contest.margin, theirs.value)))
    result: dict[str, dict[str, Comparison]] = defaultdict(dict)
    for (cell_name, name), comparison in zip(keys, corrected(comparisons), strict=True):
        result[cell_name][name] = comparison
    return result


def _report(cell: MeasuredCell, contest: Contest, comparisons: dict[str, Comparison]) -> dict[str, object]:
    """One entry of `tasks`."""
    kind, nothing = cell.cell.task.asks, Estimate(np.nan, np.nan, np.nan)
    models: dict[str, dict[str, Estimate]] = {}
    deviations, each = {}, {}
    for name in (*contest.arms, *contest.baselines):
        if not any(model in cell.cell.predictions for model in contest.arms.get(name, {name: None})):
            continue
        scores = {metric.name: contest.score(cell, name, metric.name) for metric in kind.metrics}
        models[name] = {key: nothing if x is None else x.estimate(contest.seed) for key, x in scores.items()}
        headline = scores[kind.headline.name]
        if name in contest.arms and headline is not None and len(headline.each) > 1:
            each[name] = dict(zip(contest.arms[name], headline.each.tolist(), strict=True))
            deviations[name] = {key: x.deviation for key, x in scores.items() if x is not None}
    return cell.counts() | {
        "unpredicted": {},
        "rollouts": {},
        "models": {
            name: {key: x.as_dict(cell.reason) for key, x in scores.items()} for name, scores in models.items()
        },
        "difference": {name: comparison.as_dict() for name, comparison in comparisons.items()},
        "seeds": max((len(contest.arms[name]) for name in each), default=1),
        "between_seeds": deviations,
        "by_seed": each,
        "verdict": _verdict(cell, contest, models.get(contest.reference, {}), comparisons),
    }


def _verdict(
    cell: MeasuredCell, contest: Contest, scores: dict[str, Estimate], comparisons: dict[str, Comparison]
) -> str:
    words, headline = cell.cell.task.asks.words, cell.cell.task.asks.headline
    score = scores.get(headline.name)
    if score is None or math.isnan(score.value):
        return f"{contest.reference} cannot be scored here: {cell.reason or 'the answers known are all alike'}."
    digits = words.digits

    def listed(word: str, lead: str) -> str:
        chosen = {name: one.difference for name, one in comparisons.items() if one.word == word}
        parts = [
            f"{name} ({x.value:+.{digits}f}, {x.low:+.{digits}f} to {x.high:+.{digits}f})" for name, x in chosen.items()
        ]
        return f" {lead}: {', '.join(parts)}." if parts else ""

    return (
        f"{contest.reference} reaches {words.reaches} {score.value:.{digits}f} "
        f"({score.low:.{digits}f} to {score.high:.{digits}f})."
        + listed(BEATS, "Better")
        + listed(BEATEN, "Worse")
        + listed(MATCHES, "As good")
        + listed(OPEN, "Not decided")
    )


def _words(contest: Contest, count: int) -> str:
    if not count:
        return ""
    fewest = min(len(models) for models in contest.arms.values())
    training = (
        "The intervals hold what other patients and other training runs would change."
        if fewest > 1
        else "An arm with one training run is taken to move as much as the arm that it is compared with; with one "
        "each, how far another run would move these numbers is not in the intervals."
    )
    return (
        f"Differences are to {contest.reference}. Over all {count} comparisons of arms, equal arms pass for different "
        f"in at most {100 * (1 - LEVEL):.0f} % of such runs (Holm), and so do baselines. An arm is as good if the "
        f"{100 * LEVEL:.0f} % interval lies within {contest.margin:g} of AUROC, or within {100 * contest.margin:g} % "
        f"of an error. {training}"
    )


def _wins(cells: Sequence[MeasuredCell], contest: Contest) -> dict[str, dict[str, object]]:
    """How often each arm is ahead of the reference in the headline metric, over all cells in which both have one."""
    report = {}
    for name in contest.rivals:
        gains = []
        for cell in cells:
            headline = cell.cell.task.asks.headline
            mine, theirs = (contest.score(cell, each, headline.name) for each in (name, contest.reference))
            if mine is not None and theirs is not None:
                sign = 1 if headline.higher_is_better else -1
                gain = sign * (mine.value - theirs.value), sign * (mine.draws - theirs.draws)
                gains.append((cell.cell.task.name, *gain))
        if gains:
            report[name] = win_rate(gains, contest.seed)
    return report


def _thirds(cells: Sequence[MeasuredCell], contest: Contest) -> tuple[dict[str, dict], list[dict]]:
    """The gain of each arm in each third by entropy; and the gain in the upper less that in the lower third."""
    report: dict[str, dict] = {}
    contrasts: list[dict] = []
    for cell in cells:
        headline = cell.cell.task.asks.headline
        sign = 1 if headline.higher_is_better else -1
        known = {}
        for name in (contest.reference, *contest.rivals):
            parts = [contest.score(cell, name, headline.name, third) for third in range(len(THIRDS))]
            known[name] = [None if part is None else combined([sign], [part]) for part in parts]
        theirs = known.pop(contest.reference)
        report[cell.cell.name] = {
            name: {
                third: {} if mine is None or other is None else difference(mine, other, contest.seed)[0].as_dict()
                for third, mine, other in zip(THIRDS, parts, theirs, strict=True)
            }
            for name, parts in known.items()
        }
        for name, parts in known.items():
            ends = parts[-1], parts[0], theirs[-1], theirs[0]
            if all(part is not None for part in ends):
                mine, other = combined([1, -1], ends[:2]), combined([1, -1], ends[2:])
                contrasts.append(_course(cell.cell.name, name, UPPER_LESS_LOWER, mine, other, contest))
    return report, contrasts


def _slopes(cells: Sequence[MeasuredCell], contest: Contest) -> list[dict]:
    """How the gain of each arm moves over landmarks of one task, and over horizons of tasks that are else alike."""
    groups: dict[tuple[str, str], list[tuple[float, MeasuredCell]]] = defaultdict(list)
    for cell in cells:
        task, offset = cell.cell.task, cell.cell.landmark.offset
        if offset is not None:
            groups[task.name, "gain per year of landmark"].append((offset / UNITS["year"], cell))
        if task.horizon is not None:
            alike = {key: value for key, value in task.as_dict().items() if key not in ("name", "title", "horizon")}
            group = f"{alike} at {cell.cell.landmark.name}"
            groups[group, "gain per doubling of the horizon"].append((math.log2(task.horizon / DAY), cell))
    result = []
    for (_, over), members in groups.items():
        at = np.array([x for x, _ in members])
        if len(set(at.tolist())) < 2:
            continue
        weights = (at - at.mean()) / ((at - at.mean()) ** 2).sum()
        headline = members[0][1].cell.task.asks.headline
        signed = (weights if headline.higher_is_better else -weights).tolist()
        names = ", ".join(cell.cell.name for _, cell in members)
        for name in contest.rivals:
            mine, other = (
                [contest.score(cell, each, headline.name) for _, cell in members] for each in (name, contest.reference)
            )
            if all(score is not None for score in (*mine, *other)):
                sums = combined(signed, mine), combined(signed, other)
                result.append(_course(names, name, over, *sums, contest))
    return result


def _course(where: str, arm: str, what: str, mine: ArmScore, theirs: ArmScore, contest: Contest) -> dict:
    estimate, p = difference(mine, theirs, contest.seed)
    return {"of": where, "arm": arm, "what": what, **estimate.as_dict(), "p": p}


def _few_shot(cell: Cell, contest: Contest) -> dict[str, dict[str, dict[str, float | None]]]:
    """By arm and k: the mean over replicates and seeds, the standard deviation over replicates, and the gain.

    The same patients are drawn for all arms, so the gain over the reference is taken replicate by replicate.
    """

    def replicates(name: str) -> dict[int, np.ndarray]:
        models = [cell.few_shot[model] for model in contest.arms.get(name, {name: None}) if model in cell.few_shot]
        return {shots: np.mean([model[shots] for model in models], axis=0) for shots in (models[0] if models else {})}

    def spread(values: np.ndarray) -> float | None:
        return float(values.std(ddof=1)) if len(values) > 1 else None

    theirs = replicates(contest.reference)
    report = {}
    for name in (*contest.arms, *contest.baselines):
        report[name] = {
            str(shots): {
                "value": float(values.mean()),
                "deviation": spread(values),
                "gain": float((values - theirs[shots]).mean()),
                "gain_deviation": spread(values - theirs[shots]),
            }
            for shots, values in replicates(name).items()
        }
    return {name: by_shots for name, by_shots in report.items() if by_shots}
