"""Where simulated answers come from: the estimator, the cost, and how well-formed the futures are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import polars as pl

from sequela.record.validate import read_parquet
from sequela.rollout.folder import SimulatedFolder
from sequela.serve.folder import manifest
from sequela.task.answers.prediction import SIMULATION

FACTS = (
    "histories", "rollouts", "tokens", "reasons", "windows", "events_of_several_tokens",
    "invalid_events_of_several_tokens", "probability_removed",
)  # fmt: skip
ENDS = {
    "horizon": "passed the horizon",
    "end": "died",
    "settled": "answered every question",
    "limit": "were truncated at the token limit",
}
ESTIMATORS = {  # how an answer is read off its futures, for people
    "scope": "mean of summed hazards (scope)",
    "mc": "share of futures with the outcome (mc)",
    "reach": "mean chance of the outcome over futures that avoid it (reach)",
    "cv": "mean of summed hazards, steadied by the value head (cv)",
    "head": "value head, without futures (head)",
    "median": "median of the futures",
    "mean": "mean of the futures",
}


def simulation(folders: Iterable[Path]) -> dict:
    """What the folders of predictions, and the simulated folders behind them, record.

    Returns:
        `answers`: by task the `estimator`, and the mean number of `rollouts` and `tokens` per patient; `futures`: for
        each folder of a simulation the FACTS in its simulate.json, and whether it kept to the grammar. What is not
        known is left out.
    """
    answers, futures = {}, {}
    for folder in folders:
        facts = manifest.read(folder) if folder.is_dir() else None
        for task, told in (facts or {"result": {}})["result"].items():
            path = folder / task / f"{SIMULATION}.parquet"
            if isinstance(told, dict) and "estimator" in told and path.exists():
                answers[task] = {"estimator": told["estimator"], **_cost(path)}
        for simulated in manifest.sources(folder, "simulated") if folder.is_dir() else []:
            about = SimulatedFolder(simulated).summary()
            if all(name in about for name in FACTS):
                kept = {"well_formed": about["settings"]["well_formed"]}
                futures[str(simulated)] = {name: about[name] for name in FACTS} | kept
    return {"answers": answers, "futures": list(futures.values())}


def _cost(path: Path) -> dict[str, float | None]:
    """Means over the patients."""
    told = read_parquet(path)
    rollouts, tokens = told.select(
        (pl.col("rollouts") + pl.col("undecidable_rollouts")).mean(), pl.col("tokens").mean()
    ).row(0)
    return {"rollouts": rollouts, "tokens": tokens}


def in_words(*answers: dict) -> str:
    """How the answers of tasks with the same estimator were made.

    >>> one = {"estimator": "mc", "rollouts": 20.0, "tokens": 1312.4}
    >>> in_words(one)
    'share of futures with the outcome (mc); 20 futures and 1,312 tokens per patient'
    >>> in_words(one, {**one, "tokens": 900.0})
    'share of futures with the outcome (mc); 20 futures and 900 to 1,312 tokens per patient'
    """
    estimator = answers[0]["estimator"]
    words = f"{ESTIMATORS.get(estimator, estimator)}; {_range(answers, 'rollouts', ',.4g')} futures"
    tokens = _range(answers, "tokens", ",.0f")
    return f"{words} and {tokens} tokens per patient" if tokens else f"{words} per patient"


def _range(answers: Sequence[dict], name: str, style: str) -> str:
    """The smallest and the largest number; empty if none is known."""
    known = sorted(one[name] for one in answers if one[name] is not None)
    ends = [f"{x:{style}}" for x in (known[:1] + known[-1:])]
    return " to ".join(dict.fromkeys(ends))


def sentences(futures: dict) -> list[str]:
    """Two sentences about a simulation: how its futures ended, and whether they are well-formed."""
    count, tokens = futures["rollouts"], futures["tokens"]
    ended = [
        f"{share(number, count)} {ENDS[reason]}"
        for reason, number in sorted(futures["reasons"].items(), key=lambda item: -item[1])
        if number
    ]
    windows = f" A full context was restarted {futures['windows']:,} times." if futures["windows"] else ""
    removed, several = futures["probability_removed"], futures["events_of_several_tokens"]
    kept = (
        f"The grammar removed {100 * removed:.2g} % of the probability per token, on average; "
        if futures["well_formed"]
        else "The grammar was not enforced; "
    )
    wrong = futures["invalid_events_of_several_tokens"]
    return [
        f"{count:,} futures of {futures['histories']:,} histories, {tokens / max(count, 1):,.0f} tokens each: "
        f"{', '.join(ended)}.{windows}",
        f"{kept}{wrong:,} of {several:,} multi-token events are malformed ({share(wrong, several)}).",
    ]


def share(part: float, whole: float) -> str:
    """Percent, with digits where it is small.

    >>> share(1586, 1710), share(3, 1710), share(0, 0)
    ('93 %', '0.18 %', '0 %')
    """
    percent = 100 * part / whole if whole else 0.0
    return f"{percent:.0f} %" if percent >= 9.5 or percent == 0 else f"{percent:.2g} %"
