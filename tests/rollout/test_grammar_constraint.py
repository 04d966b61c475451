"""Against the slow grammar of tests/tokens/test_grammar.py, which goes token by token through names."""

import numpy as np
import pytest
import torch

from sequela.rollout.grammar_constraint import GrammarConstraint
from sequela.tokens.ehr.grammar.fit import fit_grammar
from sequela.tokens.ragged import Ragged
from tests.tokens.ehr.grammar.test_grammar import NAMES, SCHEMES, Slow, encoded, path_of, told

PEOPLE = [
    [
        (1, "ED_ADMISSION", np.nan), (9, "ICD10CM//E1165", np.nan), (40, "LAB//A", 1.0), (300, "LAB//A", 2.5),
        (900, "ATC//A10BA02", np.nan), (20_000, "ED_DISCHARGE//HOME", np.nan), (3_000_000, "LAB//B", 3.0),
    ],
    [(1, "ICD10CM//E11", np.nan), (5, "ENCOUNTER_START//X", np.nan), (5, "ENCOUNTER_END//X", np.nan)],
    [(2, "CHIEF_COMPLAINT//PAIN//KNEE", np.nan), (4, "ATC//A10BB01", 4.0), (9, "ICD10CM//I1065", 5.0)],
    [(3, "HOSPITAL_DISCHARGE//DIED", np.nan), (700_000, "MEDS_DEATH", np.nan)],
]  # fmt: skip
OTHERS = [[(hour, code, 1.0) for hour, code in enumerate(NAMES)]]


def world(scheme):
    """Grammar, slow grammar, and the rows that both were fitted on."""
    tokenizer, rows = encoded(PEOPLE, scheme, known=OTHERS)
    return fit_grammar(tokenizer, [rows]), Slow(tokenizer, [rows[r] for r in range(len(rows))]), rows


def histories(rows, random, count):
    """Real rows cut anywhere, and noise."""
    many = int(rows.flat.max()) + 1
    whole = [rows[int(r)].tolist() for r in random.integers(len(rows), size=count)]
    whole = [row[: random.integers(1, len(row) + 1)] for row in whole]
    whole[::4] = [random.integers(many, size=random.integers(1, 9)).tolist() for _ in whole[::4]]
    return whole


def drawn(grammar, allowed, random):
    """Mostly a token that may come, a later part where there is one, so that walks get somewhere; sometimes any."""
    if random.random() < 0.15:
        return random.integers(len(allowed))
    parts = np.flatnonzero(allowed & (grammar.place > 1))
    return random.choice(parts if len(parts) and random.random() < 0.7 else np.flatnonzero(allowed))


def walked(grammar, slow, starts, random, steps):
    """Walk random sequences with both; at each step yield what the constraint is about to do, and what it should."""
    constraint, size = GrammarConstraint(grammar), len(grammar.base)
    node, bits = (torch.from_numpy(x) for x in grammar.states(Ragged.of(starts)))
    states = [slow.walk(row, [])[0] for row in starts]
    for _ in range(steps):
        allowed = np.array([[slow.allowed(*state, token) for token in range(size)] for state in states])
        yield constraint, node, bits, allowed, states
        token = np.array([drawn(grammar, row, random) for row in allowed])
        node, bits = constraint.advance(node, bits, torch.from_numpy(token))
        states = [slow.advance(*state, one) for state, one in zip(states, token, strict=True)]


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_it_leaves_what_may_come_and_tells_what_it_took(scheme):
    grammar, slow, rows = world(scheme)
    random = np.random.default_rng(0)
    left, seen = [], set()
    for constraint, node, bits, allowed, states in walked(
        grammar, slow, histories(rows, random, 24), random, 12
    ):
        mass = random.random(allowed.shape).astype(np.float32) ** 4 + 1e-6
        mass *= random.random((len(mass), 1)) + 0.1  # need not sum to 1
        kept = torch.from_numpy(mass.copy())
        removed = constraint.mask(kept, node, bits)
        np.testing.assert_array_equal(kept.numpy(), np.where(allowed, mass, 0))
        np.testing.assert_allclose(removed, 1 - (mass * allowed).sum(1) / mass.sum(1), atol=1e-5)
        assert [path_of(grammar, int(one)) for one in node] == [path for path, _ in states]
        left.append(allowed.mean(1))
        seen |= {len(path) for path, _ in states}
    assert np.unique(np.concatenate(left)).size > 3
    assert ({0, 1, 2} if scheme.get("joint") is None else {0, 1}) <= seen  # later parts were reached


@pytest.mark.parametrize("scheme", [{}, {"fused": True}], ids=str)
def test_the_checker_sees_a_constraint_of_other_patients(scheme):
    """Negative control: fitted without the first patient, or a walk that loses its bits, or its node."""
    _, slow, rows = world(scheme)
    tokenizer, other = encoded(PEOPLE[1:], scheme, known=[*OTHERS, PEOPLE[0]])
    grammar, _, _ = world(scheme)

    def agrees(grammar, change=lambda node, bits: (node, bits)):
        random = np.random.default_rng(0)
        for constraint, node, bits, allowed, _ in walked(
            grammar, slow, histories(rows, random, 24), random, 6
        ):
            kept = torch.ones(allowed.shape)
            constraint.mask(kept, *change(node, bits))
            if not np.array_equal(kept > 0, allowed):
                return False
        return True

    assert agrees(grammar)
    assert not agrees(fit_grammar(tokenizer, [other]))
    assert not agrees(grammar, lambda node, bits: (node, torch.zeros_like(bits)))
    assert not agrees(grammar, lambda node, bits: (torch.zeros_like(node), bits))


def test_what_it_lets_through_has_no_faults():
    """Sequences sampled under the mask, by the grammar's own account of whole rows."""
    grammar, _, rows = world({})
    random = np.random.default_rng(1)
    starts = Ragged.of(histories(rows, random, 40))
    began = grammar.states(starts)
    constraint, (node, bits) = GrammarConstraint(grammar), (torch.from_numpy(x) for x in began)
    out = []
    for step in range(30):
        mass = torch.from_numpy(random.random((40, len(grammar.base)), np.float32))
        if step < 25:  # then anything, as a negative control
            constraint.mask(mass, node, bits)
        out.append(mass.argmax(1))
        node, bits = constraint.advance(node, bits, out[-1])
    drawn = torch.stack(out, 1).numpy()
    assert not grammar.faults(Ragged.of(list(drawn[:, :25])), *began).any()
    assert grammar.faults(Ragged.of(list(drawn)), *began).reshape(40, 30)[:, 25:].mean() > 0.2


def test_a_part_is_told_from_the_first_part_that_it_follows():
    """By hand: what may follow E11 is what followed it."""
    tokenizer, grammar = told([["ICD10CM//E1165", "LAB//A"], ["ICD10CM//I1065"], ["ICD10CM//E11"]])
    index = tokenizer.vocabulary.index
    constraint = GrammarConstraint(grammar)
    first = torch.tensor([index["ICD10CM//1//E11"], index["LAB//A"], index["TIME//6mo"]])
    node, bits = constraint.advance(
        torch.zeros(3, dtype=torch.int64), torch.zeros(3, grammar.sets.shape[1], dtype=torch.bool), first
    )
    assert node.tolist() == [first[0], first[1], 0]
    mass = torch.ones(3, len(index))
    removed = constraint.mask(mass, node, bits)
    may = lambda row, name: bool(mass[row, index[name]])  # noqa: E731
    assert [may(row, "ICD10CM//2//65") for row in range(3)] == [True, False, False]
    assert [may(row, "Q//3") for row in range(3)] == [False, True, False]
    assert [may(row, "BOS") for row in range(3)] == [False] * 3
    assert [may(row, "ICD10CM//1//I10") for row in range(3)] == [True] * 3
    assert torch.allclose(removed, 1 - mass.sum(1) / len(index))
