"""Hazards, occurrences, clock and end of single rows, reckoned by hand."""

import numpy as np
import pytest
import torch

from sequela.rollout.clock.minutes import TokenClock
from sequela.rollout.engine.rollouts import REASONS, Prompts
from sequela.rollout.engine.sampling import Sampling
from sequela.rollout.engine.step import TokenStep
from sequela.rollout.engine.tracker import DecodingState
from sequela.rollout.grammar_constraint import GrammarConstraint
from sequela.rollout.tracker import OutcomeTracker, StopRule, WatchedOutcomes
from sequela.tokens.ragged import Ragged
from tests.tokens.ehr.grammar.test_grammar import told

V = 6
HOUR, DAY, DEATH, LAB, STROKE, NOTE = range(V)
MINUTES = np.array([60, 1440, 0, 0, 0, 0])
FLAT = [0.1, 0.2, 0.1, 0.3, 0.2, 0.1]


def flags(*rows):
    """bool [len(rows), V]: the tokens of each row."""
    out = np.zeros((len(rows), V), bool)
    for row, tokens in enumerate(rows):
        out[row, list(tokens)] = True
    return out


def rules_of(
    watch,
    *,
    death=(DEATH,),
    horizon=10**6,
    limit=100,
    constraint=None,
    minutes=MINUTES,
    avoid=False,
    **options,
):
    stops = np.zeros(len(minutes), bool)
    stops[list(death)] = True
    tracker = OutcomeTracker(StopRule(stops, horizon, limit), watch, TokenClock.constant(minutes), avoid=avoid)
    return TokenStep(tracker, constraint, Sampling(**options))


def fresh(rules, rows=1, clock=0, bits=0):
    prompts = Prompts(
        Ragged.of([[1]] * rows),
        np.arange(rows),
        bits=np.zeros((rows, bits), bool),
        clock=np.full(rows, clock),
    )
    return rules.start(prompts, np.arange(rows), torch.arange(rows))


def choose(rules, state, share=FLAT, first=None):
    """The chosen tokens, where the next token has these probabilities in every row."""
    logits = torch.tensor(share).log().expand(len(state.seed), -1).clone() + 3.7
    return rules.choose(logits, state, first)[0]


def take(rules, state, *tokens):
    """The names of the reasons, None where a row goes on."""
    reasons = rules.take(torch.tensor(tokens), state, None).tolist()
    return [None if one < 0 else REASONS[one] for one in reasons]


def listed(x):
    return np.round(x.double().numpy(), 6).tolist()


STROKE_OR_DEATH = WatchedOutcomes(
    flags([STROKE], [STROKE, DEATH]), flags([DEATH], []), np.array([1440, 2880])
)


def test_hazards_are_summed_until_the_outcome_came():
    rules = rules_of(STROKE_OR_DEATH)
    state = fresh(rules, rows=2)
    choose(rules, state)
    assert (
        listed(state.columns["hazard"]) == [[0.2, 0.3]] * 2
        and listed(state.columns["spared"]) == [[0.8, 0.7]] * 2
    )
    assert take(rules, state, LAB, STROKE) == [None, "settled"]
    assert state.columns["happened"].tolist() == [[0, 0], [1, 1]] and state.columns["watched"].tolist() == [
        [True] * 2,
        [False] * 2,
    ]
    choose(rules, state, [0.0, 0.5, 0.0, 0.0, 0.5, 0.0])
    assert listed(state.columns["hazard"]) == [[0.7, 0.8], [0.2, 0.3]]
    assert listed(state.columns["spared"]) == [[0.4, 0.35], [0.8, 0.7]]
    assert take(rules, state, STROKE, STROKE) == ["settled", "settled"]
    assert state.columns["happened"].tolist() == [
        [1, 1],
        [1, 1],
    ]  # the second stroke of the second row is not counted
    assert state.step.tolist() == [2, 2]


def test_an_end_or_the_horizon_stops_the_hazards_of_one_outcome_alone():
    other = WatchedOutcomes(flags([STROKE], [LAB]), flags([NOTE], []), np.array([10**9] * 2))
    rules = rules_of(other)
    state = fresh(rules, rows=2)
    assert take(rules, state, NOTE, HOUR) == [None, None]
    assert take(rules, state, HOUR, HOUR) == [None, None]
    assert state.columns["watched"].tolist() == [[False, True], [True, True]]
    choose(rules, state)
    assert listed(state.columns["hazard"]) == [[0, 0.3], [0.2, 0.3]] and listed(state.columns["spared"]) == [
        [1, 0.7],
        [0.8, 0.7],
    ]
    assert take(rules, state, STROKE, STROKE) == [None, None]
    assert state.columns["happened"].tolist() == [[0, 0], [1, 0]]


ONE_END = WatchedOutcomes(flags([STROKE]), flags([NOTE]), np.array([2880]))


def test_an_end_closes_a_question_once_the_clock_has_passed_its_moment():
    rules = rules_of(ONE_END)
    state = fresh(rules, rows=4)
    assert take(rules, state, NOTE, NOTE, NOTE, STROKE) == [None, None, None, "settled"]
    assert state.columns["watched"][:, 0].tolist() == [True, True, True, False]
    choose(rules, state)  # it can still come at this moment, also before the token that ends the moment
    assert listed(state.columns["hazard"][:, 0]) == [0.2, 0.2, 0.2, 0]
    assert take(rules, state, STROKE, LAB, HOUR, LAB) == ["settled", None, "settled", "settled"]
    choose(rules, state)
    assert listed(state.columns["hazard"][:, 0]) == [0.2, 0.4, 0.2, 0]
    assert take(rules, state, LAB, NOTE, STROKE, LAB) == ["settled", None, "settled", "settled"]  # a second end
    assert take(rules, state, LAB, DAY, LAB, LAB)[1] == "settled"
    assert state.columns["happened"][:, 0].tolist() == [1, 0, 0, 1]
    assert state.columns["clock"].tolist()[:2] == [0, 1440]


def test_a_moment_is_left_only_by_a_clock_that_moves():
    minutes = MINUTES.copy()
    minutes[HOUR] = 0  # no such token exists
    rules = rules_of(ONE_END, minutes=minutes)
    state = fresh(rules, rows=1)
    assert take(rules, state, NOTE) == take(rules, state, HOUR) == [None]
    assert take(rules, state, STROKE) == ["settled"] and state.columns["happened"].tolist() == [[1]]


def test_an_end_at_the_prediction_time_is_the_end_of_a_moment_too():
    """The clock is behind by what is known to have passed without an event; a first event is now."""
    rules = rules_of(ONE_END)
    state = fresh(rules, rows=2, clock=-3)
    assert take(rules, state, NOTE, NOTE) == [None, None] and state.columns["clock"].tolist() == [0, 0]
    assert take(rules, state, STROKE, HOUR) == ["settled", "settled"]
    assert state.columns["happened"].tolist() == [[1], [0]]


def test_a_rollout_that_is_truncated_at_the_moment_of_an_end_gives_no_answer():
    rules = rules_of(ONE_END, limit=2)
    state = fresh(rules, rows=2)
    assert take(rules, state, LAB, NOTE) == [None, None]
    assert take(rules, state, NOTE, HOUR) == ["limit", "settled"]
    assert state.columns["watched"].tolist() == [[True], [False]]


def test_an_outcome_that_is_also_an_end_counts():
    rules = rules_of(WatchedOutcomes(flags([DEATH]), flags([DEATH]), np.array([100])))
    state = fresh(rules)
    assert take(rules, state, DEATH) == ["end"] and state.columns["happened"].tolist() == [[1]]


def test_a_horizon_is_passed_not_reached():
    rules = rules_of(STROKE_OR_DEATH, horizon=2880)
    state = fresh(rules, rows=3)
    assert take(rules, state, DAY, DAY, DAY) == [None] * 3
    assert state.columns["watched"].tolist() == [[True, True]] * 3  # at 1440 minutes, exactly
    assert take(rules, state, STROKE, HOUR, DAY) == ["settled", None, None]
    assert state.columns["happened"].tolist() == [[1, 1], [0, 0], [0, 0]]
    assert state.columns["watched"].tolist() == [[False, False], [False, True], [False, True]]
    assert take(rules, state, LAB, DAY, STROKE) == ["settled", "horizon", "settled"]
    assert state.columns["happened"].tolist() == [[1, 1], [0, 0], [0, 1]]
    assert state.columns["clock"].tolist() == [1440, 2940, 2880]


def test_what_ends_a_row_first():
    """An end before the horizon, that before what is settled, and the limit last."""
    rules = rules_of(STROKE_OR_DEATH, horizon=1440, limit=1)
    assert take(rules, fresh(rules, 4), LAB, STROKE, DAY, DEATH) == ["limit", "settled", "limit", "end"]
    assert take(rules, fresh(rules, 2, clock=1400), HOUR, DEATH) == ["horizon", "end"]
    assert take(rules, fresh(rules, 1, clock=3000), HOUR) == ["horizon"]  # and settled
    rules = rules_of(STROKE_OR_DEATH, horizon=1440, limit=2)
    assert take(rules, fresh(rules, 2), LAB, STROKE) == [None, "settled"]


def test_without_a_question_nothing_is_settled():
    none = WatchedOutcomes(np.zeros((0, V), bool), np.zeros((0, V), bool), np.zeros(0, np.int64))
    rules = rules_of(none, limit=2)
    state = fresh(rules)
    choose(rules, state)
    assert take(rules, state, LAB) == [None] and take(rules, state, LAB) == ["limit"]


def test_repeats_are_counted_up_to_an_end_or_the_horizon():
    watch = WatchedOutcomes(
        flags([STROKE], [STROKE]), flags([NOTE], []), np.array([1440] * 2), repeats=np.array([True, False])
    )
    rules = rules_of(watch)
    state = fresh(rules, rows=3)
    for tokens in ([STROKE] * 3, [STROKE, NOTE, DAY], [STROKE, STROKE, HOUR], [LAB, HOUR, STROKE], [LAB, STROKE, LAB]):
        take(rules, state, *tokens)
    assert state.columns["happened"].tolist() == [[3, 1], [2, 1], [1, 1]]  # at the moment of the end too
    assert state.columns["watched"].tolist() == [[True, False], [False, False], [False, False]]
    choose(rules, state)
    assert listed(state.columns["hazard"][:, 0]) == [0.2, 0, 0]


def test_the_clock_is_clamped_at_the_first_token_only():
    rules = rules_of(STROKE_OR_DEATH)
    state = fresh(rules, rows=3, clock=-100)
    take(rules, state, HOUR, DAY, LAB)
    assert state.columns["clock"].tolist() == [0, 1340, 0]  # 40 minutes before now is now
    state.columns["clock"][2] = -1000  # nothing leads there; it shows where the clock is not held
    take(rules, state, HOUR, HOUR, HOUR)
    assert state.columns["clock"].tolist() == [60, 1400, -940]


def test_what_is_avoided_is_not_sampled_while_it_is_watched():
    rules = rules_of(STROKE_OR_DEATH, avoid=True)
    state = fresh(rules, rows=4000)
    drawn = choose(rules, state)
    share = torch.bincount(drawn, minlength=V) / 4000
    expected = torch.tensor([0.1, 0.2, 0, 0.3, 0, 0.1]) / 0.7
    assert (share[[DEATH, STROKE]] == 0).all()
    assert ((share - expected).abs() < 4 * (0.25 / 4000) ** 0.5).all()
    assert listed(state.columns["hazard"][:1]) == [[0.2, 0.3]] and listed(state.columns["spared"][:1]) == [
        [0.8, 0.7]
    ]
    state.columns["watched"][:] = False
    state.step += 1
    drawn = choose(rules, state)  # settled: it may come again
    assert ((torch.bincount(drawn, minlength=V) / 4000 - torch.tensor(FLAT)).abs() < 0.032).all()


def test_an_outcome_with_all_the_mass_comes_though_it_is_avoided():
    rules = rules_of(STROKE_OR_DEATH, avoid=True)
    state = fresh(rules, rows=50)
    drawn = choose(rules, state, [0, 0, 0.5, 0, 0.5, 0])
    assert set(drawn.tolist()) == {DEATH, STROKE}
    assert listed(state.columns["spared"][0]) == [0.5, 0]
    assert set(take(rules, state, *drawn.tolist())) == {"end", "settled"}
    assert (state.columns["happened"][:, 1] == 1).all()


def test_the_first_token_is_one_of_those_that_may_come():
    rules = rules_of(STROKE_OR_DEATH)
    state = fresh(rules, rows=200)
    first = torch.zeros(200, V, dtype=torch.bool)
    first[:, [HOUR, STROKE]] = True
    assert set(choose(rules, state, first=first).tolist()) == {HOUR, STROKE}
    np.testing.assert_allclose(state.columns["hazard"].numpy(), 2 / 3, rtol=1e-5)  # the share of what is left
    assert state.removed.tolist() == [0] * 200


def test_temperature_and_greed():
    rules = rules_of(STROKE_OR_DEATH, temperature=0.5)
    state = fresh(rules)
    choose(rules, state)
    squares = np.square(FLAT)
    np.testing.assert_allclose(state.columns["hazard"][0, 0], squares[STROKE] / squares.sum(), rtol=1e-5)
    assert choose(rules_of(STROKE_OR_DEATH, greedy=True), fresh(rules, 9)).tolist() == [LAB] * 9
    assert choose(rules_of(STROKE_OR_DEATH, greedy=True, avoid=True), fresh(rules, 2)).tolist() == [LAB] * 2


def test_more_outcomes_than_one_product_takes_at_least():
    """Each has its own hazard, however many are watched."""
    for many in (1, 3, 16, 20):
        outcome = flags(*([k % V] for k in range(many)))
        rules = rules_of(WatchedOutcomes(outcome, flags(*([] for _ in range(many))), np.full(many, 10)))
        state = fresh(rules)
        choose(rules, state)
        np.testing.assert_allclose(state.columns["hazard"][0], [FLAT[k % V] for k in range(many)], atol=1e-6)


def test_states_are_taken_and_joined_by_row():
    rules = rules_of(STROKE_OR_DEATH)
    state = fresh(rules, rows=3)
    take(rules, state, LAB, STROKE, DAY)
    again = DecodingState.joined([state.take(torch.tensor([2])), state.take(slice(0, 2))])
    back = again.take(torch.tensor([1, 2, 0]))
    for name in ("seed", "step", "node", "bits", "removed"):
        assert torch.equal(getattr(back, name), getattr(state, name)), name
    for name in ("clock", "watched", "hazard", "spared", "happened"):
        assert torch.equal(back.columns[name], state.columns[name]), name
    assert again.columns["clock"].tolist() == [1440, 0, 0] and again.columns["happened"][:, 0].tolist() == [
        0,
        0,
        1,
    ]


# With a grammar: diabetes is E11, told in full by a second part

TOKENIZER, GRAMMAR = told([["ICD10CM//E1165", "LAB//A"], ["ICD10CM//I1065"], ["ICD10CM//E11", "LAB//A"]])
INDEX, SIZE = TOKENIZER.vocabulary.index, len(TOKENIZER.vocabulary)
E11, I10, REST, A = (INDEX[x] for x in ("ICD10CM//1//E11", "ICD10CM//1//I10", "ICD10CM//2//65", "LAB//A"))


def after_e11(masks=False, **options):
    """Watches for E1165, which the second part decides after E11."""
    none = np.zeros((1, SIZE), bool)
    watch = WatchedOutcomes(none, none, np.array([10**6]), after=np.array([[E11, REST, 0]]))
    minutes, constraint = np.zeros(SIZE, np.int64), GrammarConstraint(GRAMMAR, masks=masks)
    return rules_of(watch, death=(), minutes=minutes, constraint=constraint, **options)


def at(rules, *tokens):
    """A state of rows that have each just said one of the tokens."""
    state = fresh(rules, len(tokens), bits=GRAMMAR.sets.shape[1])
    assert take(rules, state, *tokens) == [None] * len(tokens)
    return state


def mass(**shares):
    """Probabilities by name of this module's tokens, the rest shared by all others."""
    named = {INDEX[name.replace("__", "//")]: share for name, share in shares.items()}
    out = np.full(SIZE, (1 - sum(named.values())) / (SIZE - len(named)))
    out[list(named)] = list(named.values())
    return out.tolist()


REST_IS_LIKELY = mass(ICD10CM__2__65=0.4)


def test_an_outcome_told_by_a_node():
    rules = after_e11()
    state = at(rules, E11, I10, A)
    assert state.node.tolist() == [E11, I10, A]
    choose(rules, state, REST_IS_LIKELY)
    np.testing.assert_allclose(state.columns["hazard"][:, 0], [0.4, 0, 0], atol=1e-6)
    assert take(rules, state, REST, REST, REST) == ["settled", None, None]
    assert state.columns["happened"][:, 0].tolist() == [1, 0, 0]


def test_a_grammar_takes_away_and_tells_how_much():
    share = mass(ICD10CM__2__65=0.4, BOS=0.2)
    rules = after_e11()
    state = at(rules, E11, A)
    choose(rules, state, share)
    assert state.removed.tolist() == [0, 0]
    np.testing.assert_allclose(state.columns["hazard"][:, 0], [0.4, 0], atol=1e-5)

    rules = after_e11(masks=True)
    state = at(rules, E11, A)
    choose(rules, state, share)
    assert state.removed[0] > 0.2 and state.removed[1] > 0.6
    np.testing.assert_allclose(
        state.columns["hazard"][:, 0], [0.4 / (1 - float(state.removed[0])), 0], atol=1e-5
    )
    before = state.removed.clone()
    choose(rules, state, share)
    np.testing.assert_allclose(state.removed, 2 * before, rtol=1e-5)  # summed over positions


@pytest.mark.parametrize("masks", [False, True])
def test_an_outcome_told_by_a_node_is_avoided_there_alone(masks):
    rules = after_e11(avoid=True, masks=masks)
    state = at(rules, *([E11, I10] * 300))
    drawn = choose(rules, state, REST_IS_LIKELY)
    assert (drawn[::2] != REST).all()
    assert (drawn[1::2] == REST).any()  # after I10 the same part is another code
    assert state.columns["spared"][0, 0] < 0.7 and state.columns["spared"][1, 0] == 1


def test_the_node_matters():
    """Negative control: without a grammar the same token tells nothing."""
    none = np.zeros((1, SIZE), bool)
    watch = WatchedOutcomes(none, none, np.array([10**6]), after=np.array([[E11, REST, 0]]))
    rules = rules_of(watch, death=(), minutes=np.zeros(SIZE, np.int64))
    state = at(rules, E11)
    choose(rules, state, REST_IS_LIKELY)
    assert state.columns["hazard"].tolist() == [[0]]


@pytest.mark.parametrize(
    "other",
    [
        {"watch": WatchedOutcomes(flags((LAB,)), flags(()), np.array([1440]))},
        {"watch": WatchedOutcomes(flags((STROKE,)), flags((DEATH,)), np.array([1440]))},
        {"watch": WatchedOutcomes(flags((STROKE,)), flags(()), np.array([1441]))},
        {"watch": WatchedOutcomes(flags((STROKE,)), flags(()), np.array([1440]), repeats=np.array([True]))},
        {"horizon": 9},
        {"limit": 9},
        {"minutes": MINUTES + 1},
        {"avoid": True},
        {"death": (NOTE,)},
    ],
)
def test_trackers_that_do_the_same_have_the_same_key(other):
    watch = WatchedOutcomes(flags((STROKE,)), flags(()), np.array([1440]))
    same = WatchedOutcomes(flags((STROKE,)), flags(()), np.array([1440]), repeats=np.array([False]))
    assert rules_of(watch).tracker.key == rules_of(same).tracker.key
    assert rules_of(watch).tracker.key != rules_of(**{"watch": watch, **other}).tracker.key
