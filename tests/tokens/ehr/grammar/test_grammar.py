"""Against a slow grammar that goes token by token through names, and knows nothing of nodes, keys and bits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sequela.record.events import Events
from sequela.tokens.ehr.encode import MINUTE, encode
from sequela.tokens.ehr.fit import fit
from sequela.tokens.ehr.grammar.fit import fit_grammar
from sequela.tokens.ehr.settings import TokenSettings
from sequela.tokens.ragged import Ragged

NAMES = (
    "ATC//A10BA02", "ATC//A10BB01", "CHIEF_COMPLAINT//PAIN//KNEE", "CHIEF_COMPLAINT//PAIN//HIP", "ED_ADMISSION",
    "ED_DISCHARGE//HOME", "ED_DISCHARGE", "ENCOUNTER_END//X", "ENCOUNTER_END//Y", "ENCOUNTER_START//X",
    "ENCOUNTER_START//Y", "HOSPITAL_DISCHARGE//DIED", "ICD10CM//E11", "ICD10CM//E1165", "ICD10CM//I1065", "LAB//A",
    "LAB//B", "MEDS_DEATH",
)  # fmt: skip
SCHEMES = [{}, {"joint": True}, {"fused": True}, {"fused": True, "joint": True}, {"time": "rotary"}]

event = st.tuples(
    st.integers(0, 45).map(lambda step: step**4),
    st.sampled_from(NAMES),
    st.one_of(st.just(np.nan), st.floats(-5, 5, width=32)),
)
people = st.lists(st.lists(event, min_size=1, max_size=14), min_size=1, max_size=6)


def columns_of(population):
    """Events (minute, code, value) of each patient, who was born sixty years before minute 0."""
    names = (*NAMES, "MEDS_BIRTH")
    rows = [
        (number, minute * MINUTE, names.index(code), value)
        for number, events in enumerate(population)
        for minute, code, value in [
            (-60 * 525_960, "MEDS_BIRTH", np.nan),
            *sorted(events, key=lambda e: e[0]),
        ]
    ]
    patient, time, code, value = zip(*rows, strict=True)
    return Events(
        np.array(patient), np.array(time), np.array(code, np.int32), np.array(value, np.float32), names
    )


def encoded(population, scheme, known=()):
    """A tokenizer that knows all codes of `population` and `known`, and the token rows of `population`."""
    every = columns_of([*population, *known])
    tokenizer = fit(every, TokenSettings(**{"min_patients": 1, "age_band_years": 5, "fused": False, **scheme}))
    return tokenizer, encode(tokenizer, columns_of(population)).tokens


class Slow:
    """The grammar of token rows, given by name. A state is (parts of the event so far, what was begun or reached)."""

    def __init__(self, tokenizer, rows):
        self.tokenizer, self.names = tokenizer, tokenizer.vocabulary.tokens
        self.ages = [self.names[t] for t in tokenizer.age_tokens]
        self.periods = [self.names[t] for t in tokenizer.period_tokens]
        self.continued, self.valued, self.ruled = set(), set(), {}
        ends = {}
        for row in rows:
            path, reached = (), frozenset()
            for token in row:
                name = self.names[token]
                in_parts = path and self.part(tokenizer.vocabulary.index[path[0]]) == 1
                if self.part(token) > 1 and in_parts and len(path) == self.part(token) - 1:
                    self.continued.add((*path, name))
                if name.startswith("Q//") and path and self.code(path) in tokenizer.bins.rows:
                    self.valued.add(path)
                kind = self.stay(token)
                if kind and kind[1]:
                    seen = ends.setdefault(kind[0], [0, 0])
                    seen[0] += 1
                    seen[1] += kind[0] not in reached
                path, reached = self.advance(path, reached, token)
        self.ends = ends
        self.ruled = {kind for kind, (many, without) in ends.items() if 1000 * without <= many}

    def part(self, token):
        """0: a whole code, 1 to 3: part of a code, -1: anything else."""
        name = self.names[token]
        if name in ("PAD", "BOS") or name.startswith(
            ("TIME//", "AGE//", "YEAR//", "Q//", "GENDER//", "RACE//")
        ):
            return -1
        pieces = name.split("//")
        in_parts = pieces[0] in ("ATC", "ICD10CM", "CHIEF_COMPLAINT") and not self.tokenizer.settings.joint
        return int(pieces[1]) if in_parts else 0

    def code(self, path):
        if (
            path[0].split("//")[0] not in ("ATC", "ICD10CM", "CHIEF_COMPLAINT")
            or self.tokenizer.settings.joint
        ):
            return path[0]
        between = "//" if path[0].startswith("CHIEF") else ""
        return path[0].split("//")[0] + "//" + between.join(part.split("//")[2] for part in path)

    def stay(self, token):
        """(kind, whether it ends); kinds are told by what this file's codes are called."""
        head, _, rest = self.names[token].split("=Q")[0].partition("//")
        if head in ("ENCOUNTER_START", "ENCOUNTER_END"):
            return f"ENCOUNTER//{rest}", head == "ENCOUNTER_END"
        place, _, what = head.partition("_")
        return (place, what == "DISCHARGE") if what in ("ADMISSION", "DISCHARGE") else None

    def advance(self, path, reached, token):
        name, part = self.names[token], self.part(token)
        for order in (self.ages, self.periods):
            if name in order:
                reached |= set(order[: order.index(name) + 1])
        kind = self.stay(token)
        if kind:
            reached = reached - {kind[0]} if kind[1] else reached | {kind[0]}
        if part in (0, 1):
            return (name,), reached
        longer = (*path, name)
        return (longer if part > 1 and longer in self.continued else ()), reached

    def allowed(self, path, reached, token):
        name, part = self.names[token], self.part(token)
        if name in self.ages or name in self.periods:
            return name not in reached
        if part > 1:
            return (*path, name) in self.continued
        if name.startswith("Q//"):
            return path in self.valued
        kind = self.stay(token)
        if kind and kind[1] and kind[0] in self.ruled:
            return kind[0] in reached
        return part in (0, 1) or name.startswith("TIME//")

    def walk(self, history, row):
        """The state after a history, and which tokens of what follows are faults."""
        path, reached = (), frozenset()
        for token in history:
            path, reached = self.advance(path, reached, token)
        state, faults = (path, reached), []
        for token in row:
            faults.append(not self.allowed(path, reached, token))
            path, reached = self.advance(path, reached, token)
        return state, faults


def path_of(grammar, node):
    """The names of the tokens that lead to a node."""
    names, many = grammar.vocabulary.tokens, len(grammar.base)
    if node < many:
        return (names[node],) if node else ()
    (key,) = grammar.pair_key[grammar.pair_child == node]
    return (*path_of(grammar, key // many), names[key % many])


def may(grammar, node, bits):
    """Which tokens may come in a state, as a simulation reads it off the arrays, bool [V]."""
    many = len(grammar.base)
    out = grammar.base.copy()
    first, end = np.searchsorted(grammar.pair_key, [node * many, (node + 1) * many])
    out[grammar.pair_key[first:end] - node * many] = True
    padded = np.append(bits, True)
    return out & padded[grammar.needs] & ~np.append(bits, False)[grammar.forbids]


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(people, people, st.randoms(use_true_random=False))
def test_it_agrees_with_a_slow_grammar_on_real_and_on_random_rows(scheme, train, others, random):
    tokenizer, rows = encoded(train, scheme, known=others)
    grammar, slow = fit_grammar(tokenizer, [rows]), Slow(tokenizer, [rows[r] for r in range(len(rows))])
    many = len(tokenizer.vocabulary)
    real = [
        row.tolist()
        for row in map(encode(tokenizer, columns_of(others)).tokens.__getitem__, range(len(others)))
    ]
    tokens = [one for row in real for one in row]
    noise = [
        [random.choice([random.randrange(many), random.choice(tokens)]) for _ in range(9)] for _ in range(6)
    ]
    cut = [random.randrange(len(row) + 1) for row in [*real, *noise]]
    histories = [row[:at] for row, at in zip([*real, *noise], cut, strict=True)]
    after = [row[at:] for row, at in zip([*real, *noise], cut, strict=True)]

    node, bits = grammar.states(Ragged.of(histories))
    wrong = Ragged(grammar.faults(Ragged.of(after), node, bits), Ragged.of(after).offsets)
    for row, (history, rest) in enumerate(zip(histories, after, strict=True)):
        (path, reached), faults = slow.walk(history, rest)
        assert path_of(grammar, node[row]) == path
        assert wrong[row].tolist() == faults
        assert may(grammar, node[row], bits[row]).tolist() == [
            slow.allowed(path, reached, token) for token in range(many)
        ]
    assert {one.kind: [one.ends, one.without_start] for one in grammar.stays if one.ends} == {
        kind.replace("ENCOUNTER//", "ENCOUNTER_END//") if "//" in kind else f"{kind}_DISCHARGE": seen
        for kind, seen in slow.ends.items()
    }


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.randoms(use_true_random=False))
def test_it_agrees_with_a_slow_grammar_that_was_fitted_on_noise(random):
    tokenizer, _ = encoded([[(hour, code, 1.0) for hour, code in enumerate(NAMES)]], {})
    later = np.flatnonzero(tokenizer.place > 0).tolist()
    many = [range(len(tokenizer.vocabulary)), later]
    rows = [[random.choice(random.choice(many)) for _ in range(random.randrange(12))] for _ in range(12)]
    grammar, slow = fit_grammar(tokenizer, [Ragged.of(rows[:5]), Ragged.of(rows[5:])]), Slow(tokenizer, rows)
    paths = {path_of(grammar, node) for node in range(len(tokenizer.vocabulary), grammar.nodes)}
    assert paths == slow.continued
    pairs = grammar.pair_key[grammar.pair_child == 0] // len(tokenizer.vocabulary)
    assert {path_of(grammar, node) for node in pairs} == slow.valued


@settings(max_examples=25, deadline=None, derandomize=True)
@given(people)
def test_what_it_was_fitted_on_has_no_faults_whatever_the_blocks(train):
    tokenizer, rows = encoded(train, {})
    whole = fit_grammar(tokenizer, [rows])
    apart = fit_grammar(tokenizer, [rows.take(np.array([r])) for r in reversed(range(len(rows)))])
    same_fields(whole, apart)
    heads = Ragged.of([row[:1] for row in map(rows.__getitem__, range(len(rows)))])
    rest = Ragged.of([row[1:] for row in map(rows.__getitem__, range(len(rows)))])
    node, bits = whole.states(heads)
    assert not whole.faults(rest, node, bits).any()


def same_fields(one, other):
    for name, held in vars(one).items():
        theirs = getattr(other, name)
        assert np.array_equal(held, theirs) if isinstance(held, np.ndarray) else held == theirs, name


def told(train, scheme=None):
    """A grammar of some patients, each a list of codes an hour apart with value 1 for labs, and the tokens by name."""
    population = [
        [(60 * hour, code, 1.0 if code.startswith("LAB") else np.nan) for hour, code in enumerate(patient)]
        for patient in train
    ]
    tokenizer, rows = encoded(population, scheme or {}, known=[[(0, code, 1.0) for code in NAMES]])
    return tokenizer, fit_grammar(tokenizer, [rows])


def faulty(tokenizer, grammar, history, row):
    """The names of the tokens of `row` that are faults after `history`."""
    index = tokenizer.vocabulary.index
    node, bits = grammar.states(Ragged.of([[index[name] for name in history]]))
    wrong = grammar.faults(Ragged.of([[index[name] for name in row]]), node, bits)
    return [name for name, bad in zip(row, wrong, strict=True) if bad]


E11, I10, OF_E11 = "ICD10CM//1//E11", "ICD10CM//1//I10", "ICD10CM//2//65"
LIVED = [["ICD10CM//E1165", "LAB//A", "ED_ADMISSION", "ED_DISCHARGE", "ATC//A10BA02"], ["ICD10CM//I1065"]]


@pytest.mark.parametrize(
    ("history", "row", "wrong"),
    [
        ([], [E11, OF_E11, "LAB//A", "Q//1", "TIME//6mo", "ATC//1//A10", "ATC//2//BA", "ATC//3//02"], []),
        ([], [OF_E11], [OF_E11]),
        ([], [E11, "TIME//6mo", OF_E11], [OF_E11]),
        ([E11], [OF_E11, OF_E11], [OF_E11]),
        ([E11], ["ATC//2//BA", "LAB//A"], ["ATC//2//BA"]),
        ([], ["ATC//1//A10", "ATC//2//BB"], ["ATC//2//BB"]),
        (["ATC//1//A10", "ATC//2//BA"], ["ATC//3//02"], []),
        ([E11, "ATC//2//BA"], ["ATC//3//02", "Q//1"], ["ATC//3//02", "Q//1"]),
        (["LAB//A"], ["Q//10"], []),
        (["LAB//A", "Q//1"], ["Q//2"], ["Q//2"]),
        (["LAB//B"], ["Q//1"], ["Q//1"]),
        ([], ["ED_DISCHARGE"], ["ED_DISCHARGE"]),
        (["ED_ADMISSION", "TIME//6mo"], ["ED_DISCHARGE//HOME", "ED_DISCHARGE"], ["ED_DISCHARGE"]),
        (["ED_ADMISSION", "ED_DISCHARGE"], ["ED_ADMISSION", "ED_DISCHARGE"], []),
        (["AGE//60-64"], ["AGE//65-69", "AGE//75-79"], []),
        (["AGE//60-64"], ["AGE//60-64", "AGE//65-69", "AGE//60-64"], ["AGE//60-64"] * 2),
        (["YEAR//1970-1974"], ["YEAR//1970-1974"], ["YEAR//1970-1974"]),
        ([], ["BOS", "PAD"], ["BOS", "PAD"]),
    ],
)  # fmt: skip
def test_a_planted_fault_is_found(history, row, wrong):
    tokenizer, grammar = told(LIVED)
    assert faulty(tokenizer, grammar, ["BOS", *history], row) == wrong


def test_another_grammar_rejects_what_its_patients_never_had():
    tokenizer, grammar = told([["ICD10CM//I1065", "LAB//B"]])
    assert faulty(tokenizer, grammar, [], [E11, OF_E11, "LAB//A", "Q//1"]) == [OF_E11, "Q//1"]
    assert faulty(tokenizer, grammar, [], [I10, OF_E11, "LAB//B", "Q//1"]) == []


def test_a_quantile_that_decode_would_not_read_may_not_come():
    """Where the vocabulary lacks the last part of a code, its values have no bins under the shorter name."""
    names, patients = ("CHIEF_COMPLAINT//PAIN//KNEE", "CHIEF_COMPLAINT//PAIN//HIP", "LAB//A"), 3
    rows = [(n, n % 2, 1.0) for n in range(patients)] + [(n, 2, 1.0) for n in range(patients)]
    patient, code, value = (np.array(column) for column in zip(*sorted(rows), strict=True))
    columns = Events(patient, np.arange(6) * MINUTE, code.astype(np.int32), value.astype(np.float32), names)
    tokenizer = fit(columns, TokenSettings(min_patients=3, fused=False))
    tokens = encode(tokenizer, columns).tokens
    grammar = fit_grammar(tokenizer, [tokens])
    after = ["CHIEF_COMPLAINT//1//PAIN", "Q//1", "LAB//A", "Q//1"]
    assert set(after) <= {tokenizer.vocabulary.tokens[token] for token in tokens.flat}
    assert faulty(tokenizer, grammar, [], after) == ["Q//1"]


def test_an_ill_formed_event_of_several_tokens_counts_once():
    tokenizer, grammar = told(LIVED)
    index = tokenizer.vocabulary.index

    def counted(*rows, histories=None):
        histories = histories or [["BOS"]] * len(rows)
        node, _ = grammar.states(Ragged.of([[index[name] for name in row] for row in histories]))
        return grammar.invalid_multi_token(Ragged.of([[index[name] for name in row] for row in rows]), node)

    assert counted([E11, OF_E11, "LAB//A", "LAB//A", "Q//1", "TIME//6mo"], [E11]) == (0, 2)
    assert counted(["LAB//A", "Q//1", "Q//1", "Q//2", "ED_DISCHARGE"]) == (1, 1)
    assert counted([E11, "ATC//2//BA", "ATC//3//02", "LAB//A", "Q//1"]) == (1, 2)
    assert counted(["Q//1"], [OF_E11, "LAB//A", "Q//1"], histories=[["LAB//A"], ["LAB//A"]]) == (1, 3)
    assert counted([], [], histories=[[], []]) == (0, 0)
