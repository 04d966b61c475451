import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sequela.record.events import Events
from sequela.record.schema import BIRTH, DEATH, FOLLOW_UP_END
from sequela.record.timeline import STATIC
from sequela.tokens.ehr.encode import MINUTE, encode
from sequela.tokens.ehr.fit import fit
from sequela.tokens.ehr.settings import ETHOS_EDGES, TokenSettings
from tests.tokens.ehr import naive

CODES = (
    "ATC//A10BA02", BIRTH, "CHIEF_COMPLAINT//PAIN//KNEE", "CPT4//1", "CPT4//2", "ENCOUNTER_END//X",
    "ENCOUNTER_START//X",
    FOLLOW_UP_END, "GENDER//F", "GENDER//M", "ICD10CM//E11", "ICD10CM//E1165", "LAB//A", "LAB//B", DEATH,
    "RACE//W",
)  # fmt: skip
STATICS = [CODES.index(code) for code in ("GENDER//F", "GENDER//M", "RACE//W")]
YEARS = 60 * 525_960 * MINUTE

event = st.tuples(
    st.integers(0, 40).map(lambda step: step**4),  # minutes: many at the same time, some years apart
    st.integers(0, len(CODES) - 1),
    st.one_of(st.just(np.nan), st.floats(-5, 5, width=32)),
)
patient = st.tuples(
    st.lists(st.sampled_from(STATICS), max_size=3), st.lists(event, max_size=12), st.booleans()
)
people = st.lists(patient, min_size=1, max_size=6)
SCHEMES = [
    {},
    {"fused": True},
    {"joint": True},
    {"time": "rotary"},
    {"interval_edges": ETHOS_EDGES, "fused": True, "joint": True},
    {"min_patients": 2, "labs": 1, "procedures": 1},
    {"calendar_years": 0, "age_band_years": 1, "quantiles": 3},
]


def columns_of(population):
    rows = []
    for number, (static, events, born) in enumerate(population):
        own = [(STATIC, code, np.nan) for code in static] + (
            [(-YEARS, CODES.index(BIRTH), np.nan)] if born else []
        )
        dated = [(minute * MINUTE, code, value) for minute, code, value in events if code not in STATICS]
        rows += [(number, *row) for row in own + sorted(dated, key=lambda row: row[0])]
    patient, time, code, number = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Events(
        np.array(patient, np.int64),
        np.array(time, np.int64),
        np.array(code, np.int32),
        np.array(number, np.float32),
        CODES,
    )


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@settings(max_examples=60, deadline=None)
@given(people, people)
def test_the_encoder_agrees_with_the_naive_one(scheme, train, others):
    chosen = TokenSettings(**{"min_patients": 1, **scheme})
    always = ([STATICS[0]], [(0, CODES.index("LAB//A"), 1.0), (9, CODES.index("CPT4//1"), np.nan)], True)
    tokenizer = fit(columns_of([always, always, *train]), chosen)
    columns = columns_of(others)
    encoded = encode(tokenizer, columns)
    names = tokenizer.vocabulary.tokens
    got = {
        int(patient): [names[token] for token in encoded.tokens[row]]
        for row, patient in enumerate(encoded.patients)
    }
    assert got == naive.rows_of(tokenizer, columns)
    assert (encoded.clock is None) == (chosen.time == "intervals")


def test_the_clock_of_rotary_time_counts_minutes_from_the_first_event():
    lab = CODES.index("LAB//A")
    columns = columns_of([([], [(10, lab, 1.0), (70, lab, 2.0), (3010, lab, np.nan)], True)] * 2)
    tokenizer = fit(columns, TokenSettings(min_patients=1, time="rotary", calendar_years=0))
    encoded = encode(tokenizer, columns)
    assert encoded.clock[1].tolist() == [0, 0, 0, 0, 60, 60, 3000]  # BOS, age, lab and quantile twice, lab


def test_procedures_beyond_the_budget_are_unknown_and_labs_beyond_it_are_dropped():
    cpt, lab = CODES.index("CPT4//1"), CODES.index("LAB//A")
    events = [
        (1, cpt, np.nan),
        (2, cpt + 1, np.nan),
        (3, cpt, np.nan),
        (4, lab, 1.0),
        (5, lab, 1.0),
        (6, lab + 1, 1.0),
    ]
    columns = columns_of([([], events, False)])
    encoded = encode(fit(columns, TokenSettings(min_patients=1, procedures=1, labs=1)), columns)
    tokens = fit(columns, TokenSettings(min_patients=1, procedures=1, labs=1)).vocabulary.tokens
    names = [tokens[token] for token in encoded.tokens[0]]
    assert names.count("CPT4//1") == 2 and names.count("PROCEDURE//UNKNOWN") == 1
    assert encoded.dropped == {"LAB//B": 1}


def test_no_event_becomes_a_token_of_another_kind():
    """Codes that only other splits have: they were not there to be refused when the vocabulary was made."""
    lab = CODES.index("LAB//A")
    tokenizer = fit(
        columns_of([([STATICS[0]], [(1, lab, 1.0)], True)]), TokenSettings(min_patients=1, fused=True)
    )
    names = ("BOS", "GENDER//F", "LAB//A", "LAB//A=Q1", "TIME//6mo")
    code = np.arange(5, dtype=np.int32)
    others = Events(
        np.ones(5, np.int64), np.arange(5) * 90 * MINUTE, code, np.full(5, np.nan, np.float32), names
    )
    encoded = encode(tokenizer, others)
    tokens = [tokenizer.vocabulary.tokens[token] for token in encoded.tokens[0]]
    assert tokens[-1] == "LAB//A" and tokens.count("BOS") == 1 and "GENDER//F" not in tokens
    assert encoded.dropped == {"BOS": 1, "GENDER//F": 1, "LAB//A=Q1": 1, "TIME//6mo": 1}


@pytest.mark.parametrize(("year", "periods"), [(2020, True), (2150, False)])
def test_shifted_dates_have_no_calendar_periods(year, periods):
    moment = np.datetime64(f"{year}-01-01", "us").astype(int)
    columns = Events(np.ones(1, np.int64), np.array([moment]), np.array([CODES.index("LAB//A")], np.int32),
                      np.array([1.0], np.float32), CODES)  # fmt: skip
    assert bool(len(fit(columns, TokenSettings(min_patients=1)).period_tokens)) == periods
