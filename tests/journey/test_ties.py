"""What is recorded of rollouts against a reading of their events in plain Python, where everything happens at once.

The tokens are drawn at random, most of them at the same few minutes: ends and outcomes in any order, two outcomes,
outcomes at the prediction time and at the horizon, deaths, and limits in the midst of all that. Nothing here knows
trackers, grammars or frames: an outcome counts unless an end came at an earlier minute.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
import torch

from sequela.record.duration import MINUTE, SECOND
from sequela.record.events import Events
from sequela.record.timeline import Timeline
from sequela.rollout.budget import FixedBudget
from sequela.rollout.clock.minutes import TokenClock
from sequela.rollout.engine.rollouts import REASONS, Prompts, Rollouts
from sequela.rollout.engine.sampling import Sampling, seeds
from sequela.rollout.engine.step import TokenStep
from sequela.rollout.engine.tracker import DecodingState
from sequela.rollout.forecast import Forecast, RolloutPool
from sequela.rollout.grammar_constraint import GrammarConstraint
from sequela.rollout.outcomes import stop_rule, watched_outcomes
from sequela.rollout.tracker import OutcomeTracker
from sequela.task.answers import estimate
from sequela.task.answers.forecaster import ForecastSimulation
from sequela.task.requests import request
from sequela.tokens.ehr.clock import Intervals
from sequela.tokens.ehr.encode import encode
from sequela.tokens.ehr.fit import fit
from sequela.tokens.ehr.grammar.fit import fit_grammar
from sequela.tokens.ehr.settings import TokenSettings
from sequela.tokens.ragged import Ragged
from tests.task.conftest import make_task

AT = datetime(2001, 1, 1, 7, 0, 30)
CODES = (
    "HOSPITAL_DISCHARGE//DIED", "HOSPITAL_DISCHARGE//HOME", "ICD10CM//E11", "ICD10CM//E1165", "LAB//A", "LEFT",
    "MEDS_DEATH", "STROKE",
)  # fmt: skip
E11, PART = "ICD10CM//1//E11", "ICD10CM//2//65"
MINUTES = {"TIME//1min-4min": 1, "TIME//4min-20min": 4, "TIME//20min": 20}
CENTERS = (1.0, 2.0)  # of the two bins of LAB//A
PATIENTS, EACH, LIMIT = 4, 4, 9
WORLDS = 24


def made_tokenizer():
    """A tokenizer whose time tokens pass 1, 4 and 20 minutes, and the grammar of a patient who had every code."""
    codes = [code for code in CODES for _ in range(2)]
    value = [1.0 + number % 2 if code == "LAB//A" else np.nan for number, code in enumerate(codes)]
    code = np.array([CODES.index(name) for name in codes], np.int32)
    time = np.arange(len(codes)) * MINUTE
    columns = Events(np.zeros(len(codes), np.int64), time, code, np.array(value, np.float32), CODES)
    edges = np.array([1, 4, 20])
    fitted = fit(columns, TokenSettings(min_patients=1, interval_edges=(1, 4, 20), quantiles=2, fused=False))
    fitted = replace(fitted, intervals=Intervals.constant(edges, edges))
    return fitted, fit_grammar(fitted, [encode(fitted, columns).tokens])


TOKENIZER, GRAMMAR = made_tokenizer()
NAMES = TOKENIZER.vocabulary.tokens
DRAWN = [number for number, name in enumerate(NAMES) if not name.startswith(("AGE", "YEAR", "PAD", "BOS"))]
TASKS = [
    {"name": "a", "outcome": ("STROKE",), "ends": ("HOSPITAL_DISCHARGE*", "MEDS_DEATH"), "horizon": 4 * MINUTE},
    {"name": "b", "outcome": ("MEDS_DEATH",), "ends": ("HOSPITAL_DISCHARGE*",), "horizon": None},
    {"name": "c", "outcome": ("ICD10CM//E116*", "LEFT"), "ends": ("MEDS_DEATH", "STROKE"), "horizon": 5 * MINUTE},
    {"name": "d", "outcome": ("HOSPITAL_DISCHARGE//DIED",), "ends": ("HOSPITAL_DISCHARGE*", "MEDS_DEATH")},
    {"name": "e", "outcome": ("STROKE", "LAB//A"), "ends": ("LEFT", "MEDS_DEATH"), "kind": "count"},
    {"name": "f", "outcome": ("LAB//A",), "ends": ("HOSPITAL_DISCHARGE*", "MEDS_DEATH"), "kind": "value"},
    {"name": "g", "outcome": ("LAB//A",), "ends": ("LEFT", "MEDS_DEATH"), "above": 1.5, "horizon": None},
    {"name": "h", "outcome": ("STROKE",), "ends": ("LEFT", "MEDS_DEATH"), "at_least": 2},
    {"name": "i", "outcome": ("STROKE", "MEDS_DEATH"), "ends": ("LEFT",), "kind": "time", "horizon": None},
    {"name": "j", "outcome": ("ICD10CM//E11*",), "ends": ("MEDS_DEATH",), "horizon": 0},
    {"name": "k", "outcome": ("STROKE",), "ends": ("LEFT", "MEDS_DEATH"), "horizon": 1 * MINUTE + 30 * SECOND},
]
TASKS = [make_task(**{"horizon": 6 * MINUTE, **fields}) for fields in TASKS]


# A reading of token names in plain Python


def happened(names, clock):
    """(minute, code, number) of each event, and the minute at the end."""
    events, before = [], None
    for place, name in enumerate(names):
        clock += MINUTES.get(name, 0)
        if place == 0:
            clock = max(clock, 0)
        if name == PART:
            if before == E11:
                events[-1] = (clock, "ICD10CM//E1165", np.nan)
        elif name.startswith("Q//"):
            if before == "LAB//A":
                events[-1] = (clock, before, CENTERS[int(name[3:]) - 1])
        elif name not in MINUTES:
            events.append((clock, "ICD10CM//E11" if name == E11 else name, np.nan))
        before = name
    return events, clock


def fits(code, patterns):
    return any(code.startswith(p[:-1]) if p.endswith("*") else code == p for p in patterns)


def inside(task, minute):
    return task.horizon is None or minute * MINUTE <= task.horizon


def answer_of(task, events, end, whole):
    """The answer of a future (None: no number, or not known), and whether it is settled.

    `whole`: nothing more came at minute `end`.
    """
    ends = [minute for minute, code, _ in events if fits(code, task.ends) and inside(task, minute)]
    last = min(ends, default=np.inf)
    numbers = {
        "value": lambda number: not np.isnan(number),
        "binary": lambda number: task.event.above is None or number > task.event.above,
    }.get(task.kind, lambda number: True)
    came = [
        (minute, number)
        for minute, code, number in events
        if fits(code, task.outcome) and inside(task, minute) and minute <= last and numbers(number)
    ]
    over = last < end or (last == end and whole)
    over |= task.horizon is not None and (end * MINUTE > task.horizon or (whole and end * MINUTE == task.horizon))
    if task.kind == "count":
        return (len(came) if over else None), over
    if len(came) >= task.event.at_least:
        minute, number = came[task.event.at_least - 1]
        return {"binary": 1, "time": minute / 1440, "value": number}[task.kind], True
    return (0 if over and task.kind == "binary" else None), over


def open_at(task, names, clock):
    """Whether an outcome as the next token would be the first that counts."""
    events, minute = happened(names, clock)
    minute = minute if names else max(clock, 0)
    before = [(then, code) for then, code, _ in events if inside(task, then)]
    ended = any(then < minute and fits(code, task.ends) for then, code in before)
    came = answer_of(task, events, minute, False)[0] is not None
    return inside(task, minute) and not ended and not came


def decides(task, name, before):
    """Whether this token, after that one, is the outcome."""
    if name == PART:
        return before == E11 and any(p.startswith("ICD10CM//E116") for p in task.outcome)
    return fits("ICD10CM//E11" if name == E11 else name, task.outcome)


# Rollouts of a model that says anything


@dataclass
class Drawn:
    """Rollouts, and of each token the probabilities [V] that it was drawn from, before anything was avoided."""

    prompts: Prompts
    rollouts: Rollouts
    shares: list[list[np.ndarray]]


def drawn(seed, tasks, questions, avoid=False, tracker=OutcomeTracker, sooner=0):
    """Random rollouts, with the account of a tracker whose horizons are so many minutes sooner."""
    random = np.random.default_rng(seed)
    asked = [request(task, questions) for task in tasks]
    watch = watched_outcomes(TOKENIZER, GRAMMAR, asked)
    watch = replace(watch, horizon=watch.horizon - sooner)
    stop = stop_rule(TOKENIZER, watch, int(random.integers(2, LIMIT)))
    constraint = GrammarConstraint(GRAMMAR)
    step = TokenStep(tracker(stop, watch, TokenClock.of(TOKENIZER), avoid=avoid), constraint, Sampling())
    count = PATIENTS * EACH
    clock = -random.integers(0, 4, PATIENTS)
    bits = np.zeros((PATIENTS, GRAMMAR.sets.shape[1]), bool)
    prompts = Prompts(Ragged.of([[1]] * PATIENTS), np.arange(PATIENTS), bits=bits, clock=clock)
    prompt, number = np.divmod(np.arange(count), EACH)
    state = step.start(prompts, prompt, seeds(torch.from_numpy(prompt), torch.from_numpy(number)))
    tokens, shares = [[] for _ in range(count)], [[] for _ in range(count)]
    reasons, done, live = np.zeros(count, np.int8), {}, np.arange(count)
    while len(live):
        logits = np.full((len(live), len(NAMES)), -np.inf, np.float32)
        logits[:, DRAWN] = 1.5 * random.normal(size=(len(live), len(DRAWN)))
        likely = torch.from_numpy(logits).softmax(-1)
        constraint.mask(likely, state.node, state.bits)
        likely = (likely / likely.sum(-1, keepdim=True)).double().numpy()
        token, mass = step.choose(torch.from_numpy(logits), state, None)
        for row, chosen, share in zip(live, token.tolist(), likely, strict=True):
            tokens[row].append(chosen)
            shares[row].append(share)
        reason = step.take(token, state, mass)
        over = (reason >= 0).numpy()
        reasons[live[over]] = reason.numpy()[over]
        for place in np.flatnonzero(over).tolist():
            done[int(live[place])] = state.take(slice(place, place + 1))
        live, state = live[~over], state.take(torch.from_numpy(~over))
    account = step.tracker.account(DecodingState.joined([done[row] for row in range(count)]))
    rollouts = Rollouts(prompt, number, Ragged.of(tokens), reasons, np.zeros(count, np.int64), account)
    return Drawn(prompts, rollouts, shares)


def faults(seed, *, tracker=OutcomeTracker, sooner=0, avoid=False):
    """Where the account of a world's rollouts, or a label of their events, is not what plain Python says."""
    random = np.random.default_rng(seed)
    chosen = [task for task in TASKS if not avoid or task.has_hazard]
    tasks = [chosen[number] for number in random.choice(len(chosen), 1 if avoid else 3, replace=False)]
    questions = pl.DataFrame({"subject_id": np.arange(PATIENTS), "prediction_time": [AT] * PATIENTS}).cast(
        {"prediction_time": pl.Datetime("us")}
    )
    made = drawn(seed, tasks, questions, avoid, tracker, sooner)
    rollouts = made.rollouts
    asked = tuple(request(task, questions) for task in tasks)
    pool = RolloutPool(tasks[0].name if avoid else None, asked, made.prompts, rollouts)
    future = ForecastSimulation(Forecast(TOKENIZER, questions, 0, (pool,)), FixedBudget(EACH))
    table = future.rollouts()
    labels = {} if avoid else {task.name: estimate.answers(task, future, table)["label"].to_list() for task in tasks}
    found = []
    for row in range(len(rollouts)):
        names = [NAMES[token] for token in rollouts.tokens[row]]
        clock = int(made.prompts.clock[rollouts.prompt[row]])
        events, end = happened(names, clock)
        whole = names[-1] == "MEDS_DEATH"
        for k, task in enumerate(tasks):
            truth, settled = answer_of(task, events, end, whole)
            story = f"{task.name} {names} from {clock}"
            if not avoid and not same(labels[task.name][row], truth):
                found.append(f"{story}: label {labels[task.name][row]}, not {truth}")
            if not avoid and not same(task.label(timeline_of(events, end, not whole), at_of(AT)), truth):
                found.append(f"{story}: the reference disagrees with {truth}")
            if task.counted == "all" and truth is not None and rollouts.account["happened"][row, k] != truth:
                found.append(f"{story}: counted {rollouts.account['happened'][row, k]}, not {truth}")
            if task.counted == "first":
                hazards = hazards_of(task, names, clock, made.shares[row])
                score = 1 - np.prod(1 - hazards) if avoid else hazards.sum()
                column = table[f"{'reach' if avoid else 'scope'}//{task.name}"]
                if not same(column[row], score if settled else None):
                    found.append(f"{story}: score {column[row]}, not {score if settled else None}")
                came = truth == 1 if task.kind == "binary" else truth is not None
                if rollouts.account["happened"][row, k] != came:
                    found.append(f"{story}: happened {rollouts.account['happened'][row, k]}, not {truth}")
    return found


def hazards_of(task, names, clock, shares):
    """The probability of the outcome at each place at which it would count."""
    hazards = [0.0]
    for place, share in enumerate(shares):
        if open_at(task, names[:place], clock):
            before = names[place - 1] if place else None
            hazards.append(sum(share[token] for token, name in enumerate(NAMES) if decides(task, name, before)))
    return np.array(hazards)


def same(one, other):
    if one is None or other is None:
        return one is other
    return bool(np.isclose(one, other, rtol=1e-4, atol=1e-5))


def at_of(time):
    return (time - datetime(1970, 1, 1)) // timedelta(microseconds=1)


def timeline_of(events, end, cut):
    time, code, number = zip(*events, strict=True) if events else ((), (), ())
    at = at_of(AT)
    return Timeline(
        1, at + np.array(time, np.int64) * MINUTE, np.array(code, object), np.array(number, np.float32),
        at + end * MINUTE, cut=cut,
    )  # fmt: skip


@pytest.mark.parametrize("avoid", [False, True])
def test_what_is_recorded_is_what_happened(avoid):
    for seed in range(WORLDS):
        assert faults(seed, avoid=avoid) == []


class EndsAtTheToken(OutcomeTracker):
    """The rule of version 0.1: an end closes a question at once."""

    def take(self, token, state, mass):
        reason = super().take(token, state, mass)
        state.columns["watched"] = state.columns["watched"] & ~self.ends[token]
        return torch.where(~state.columns["watched"].any(-1) & (reason < 0), REASONS.index("settled"), reason)


@pytest.mark.parametrize(
    "offence", [{"tracker": EndsAtTheToken}, {"sooner": 1}, {"sooner": -1}], ids=["token", "sooner", "later"]
)
@pytest.mark.parametrize("avoid", [False, True])
def test_another_rule_is_noticed(offence, avoid):
    """The negative control."""
    assert any(faults(seed, avoid=avoid, **offence) for seed in range(WORLDS // 3))


def test_futures_that_stop_within_a_moment_are_noticed(monkeypatch):
    monkeypatch.setattr(estimate, "cut_within_a_moment", lambda: pl.lit(False))
    assert any(faults(seed) for seed in range(WORLDS // 3))
