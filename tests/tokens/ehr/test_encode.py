from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sequela.record.events import Events
from sequela.record.schema import BIRTH, DEATH, FOLLOW_UP_END
from sequela.record.timeline import STATIC
from sequela.tokens.ehr.encode import MINUTE, encode
from sequela.tokens.ehr.fit import fit
from sequela.tokens.ehr.grammar.fit import fit_grammar
from sequela.tokens.ehr.settings import ETHOS_EDGES, TokenSettings
from sequela.tokens.vocabulary import Vocabulary
from tests.tokens.ehr import naive

CODES = (
    "ATC//A10BA02", BIRTH, "CHIEF_COMPLAINT//PAIN//KNEE", "CPT4//1", "CPT4//2", "ENCOUNTER_END//X",
    "ENCOUNTER_START//X",
    FOLLOW_UP_END, "GENDER//F", "GENDER//M", "ICD10CM//E11", "ICD10CM//E1165", "LAB//A", "LAB//B", DEATH,
    "RACE//B", "RACE//W",
)  # fmt: skip
STATICS = [CODES.index(code) for code in ("GENDER//F", "GENDER//M", "RACE//B", "RACE//W")]
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
    {"min_patients": 2, "gap_years": 1},
    {"calendar_years": 0, "age_band_years": 1, "quantiles": 3},
]


def columns_of(population):
    rows = []
    for number, (static, events, born) in enumerate(population):
        own = [(STATIC, code, np.nan) for code in static] + (
            [(-YEARS, CODES.index(BIRTH), np.nan)] if born else []
        )
        dated = [(minute * MINUTE, code, value) for minute, code, value in events]
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
    rest = [None] * len(encoded.patients) if encoded.rest is None else encoded.rest.tolist()
    got = {
        int(patient): ([names[token] for token in encoded.tokens[row]], rest[row])
        for row, patient in enumerate(encoded.patients)
    }
    assert got == naive.rows_of(tokenizer, columns)
    assert (encoded.clock is None) == (chosen.time == "intervals")


def test_a_record_goes_on_as_long_as_it_is_known_to_and_after_death_not_at_all():
    lab, end, rare, dies = (CODES.index(code) for code in ("LAB//A", FOLLOW_UP_END, "LAB//B", DEATH))
    start, half_year = (0, lab, 1.0), 259_200
    stated = (3 * half_year - 1, end, np.nan)
    people = [
        [start], [start, (100, end, np.nan)], [start, stated], [start, (5, dies, np.nan), stated],
        [start, (5, dies, np.nan), (70, lab, 2.0)], [start, (300, rare, 1.0)],
        [start, (300, rare, 1.0), (90, end, np.nan)],
        [start, (half_year, end, np.nan)],
    ]  # fmt: skip
    columns = columns_of([([], sorted(events), False) for events in people])
    tokenizer = fit(columns, TokenSettings(min_patients=1, labs=1, calendar_years=0))
    encoded = encode(tokenizer, columns)
    assert encoded.dropped == {"LAB//B": 2}
    assert encoded.rest.tolist() == [0, 100, half_year - 1, -1, -1, 300, 90, 0]
    longest = tokenizer.vocabulary.index[tokenizer.intervals.names[-1]]
    assert [(encoded.tokens[row] == longest).sum() for row in range(8)] == [0, 0, 2, 0, 0, 0, 0, 1]
    cut = encoded.gaps.cut  # of those alive whose end is stated
    assert sorted(np.repeat(cut.numbers(), cut.count)) == [90, 100, half_year - 1] and encoded.gaps.longest == 3


def test_the_clock_of_rotary_time_counts_minutes_from_the_first_event():
    lab = CODES.index("LAB//A")
    columns = columns_of([([], [(10, lab, 1.0), (70, lab, 2.0), (3010, lab, np.nan)], True)] * 2)
    tokenizer = fit(columns, TokenSettings(min_patients=1, fused=False, time="rotary", calendar_years=0))
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
    assert tokens[-1] == "LAB//A" and tokens.count("BOS") == 1 and tokens[:2] == ["BOS", "GENDER//F"]
    assert encoded.dropped == {"BOS": 1, "LAB//A=Q1": 1, "TIME//6mo": 1}


def moments(*texts):
    return np.array(texts, "datetime64[us]").astype(np.int64)


def bands_of(born, *times, edition=2):
    """The age bands of one patient of these moments, in whole years."""
    time = moments(born, *times)
    code = np.array([CODES.index(BIRTH)] + [CODES.index("LAB//A")] * len(times), np.int32)
    columns = Events(np.ones(len(time), np.int64), time, code, np.full(len(time), np.nan, np.float32), CODES)
    tokenizer = replace(fit(columns, TokenSettings(min_patients=1, age_band_years=1)), edition=edition)
    names = [tokenizer.vocabulary.tokens[token] for token in encode(tokenizer, columns).tokens[0]]
    return [int(name.split("-")[1]) for name in names if name.startswith("AGE//")]


def test_a_band_begins_on_the_birthday_and_not_before():
    for age in range(1, 100):
        born, day = "1931-05-07T14:20", f"{1931 + age}-05-07T03:00"
        assert bands_of(born, f"{1931 + age}-05-06T03:00", day) == [age - 1, age], day
    assert bands_of("2000-02-29", "2025-02-28", "2025-03-01", "2028-02-28", "2028-02-29") == [24, 25, 27, 28]


@pytest.mark.parametrize("age", [1, 18, 25, 45, 65, 85, 99])
@pytest.mark.parametrize("now", ["2014-03-01T12:00", "2015-03-01", "2016-02-29T23:00", "2017-12-31"])
def test_who_was_born_so_many_years_ago_is_so_old(age, now):
    """On the calendar, or by years of 365.25 days: births are computed from ages in both ways."""
    year, rest = now[:4], now[4:].replace("-02-29", "-02-28") if (int(now[:4]) - age) % 4 else now[4:]
    assert bands_of(f"{int(year) - age}{rest}", now) == [age]
    born = str(np.datetime64(int(moments(now)[0]) - age * 525_960 * MINUTE, "us"))
    later = str(np.datetime64(int(moments(now)[0]) + 90 * MINUTE, "us"))
    assert bands_of(born, now, later) == [age]


def test_a_folder_of_version_0_1_counts_ages_as_its_model_learned_them():
    assert bands_of("1990-03-01", "2015-03-01") == [25] and bands_of("1990-03-01", "2015-03-01", edition=1) == [24]


def test_a_date_of_9999_costs_a_bounded_number_of_tokens_and_decodes_to_the_bound():
    lab = CODES.index("LAB//A")
    events = [(0, lab, 1.0), (1440, lab, 1.0), (8000 * 525_960, lab, 1.0)]
    columns = columns_of([([], [*events, (9000 * 525_960, CODES.index(FOLLOW_UP_END), np.nan)], True)])
    bounded = fit(columns, TokenSettings(min_patients=1))
    row = encode(bounded, columns).tokens
    longest = bounded.vocabulary.index[bounded.intervals.names[-1]]
    assert (row[0] == longest).sum() == 2 * 243  # the gap and the tail: 120 years in half-years
    time = bounded.decode(row, np.zeros(1, np.int64)).time
    assert time[-1] - time[-2] == bounded.longest_gap * MINUTE == 243 * 259_200 * MINUTE
    unbounded = fit(columns, TokenSettings(min_patients=1, gap_years=0))
    assert (encode(unbounded, columns).tokens[0] == longest).sum() > 18_000  # the negative control
    rotary = fit(columns, TokenSettings(min_patients=1, time="rotary"))
    assert encode(rotary, columns).clock[0].max() == 1440 + rotary.longest_gap


def test_a_rare_end_of_a_stay_is_the_end_of_a_stay():
    """Two of three destinations are too rare; the old way, the negative control, loses those ends."""
    codes = ("HOSPITAL_ADMISSION//ER", "HOSPITAL_DISCHARGE//HOME", "HOSPITAL_DISCHARGE//MOON", "MEDS_DEATH//X")
    ways = [(0, 1), (0, 1), (0, 2), (0, 3)]
    columns = Events(
        np.repeat(np.arange(4), 2),
        np.tile([0, 3600 * 10**6], 4),
        np.ravel(ways).astype(np.int32),
        np.full(8, np.nan, np.float32),
        codes,
    )
    tokenizer = fit(columns, TokenSettings(min_patients=2))
    names = [[tokenizer.vocabulary.tokens[token] for token in row] for row in encode(tokenizer, columns).tokens]
    assert [row[-1] for row in names[:3]] == ["HOSPITAL_DISCHARGE//HOME"] * 2 + ["HOSPITAL_DISCHARGE"]
    assert encode(tokenizer, columns).dropped == {"MEDS_DEATH//X": 1}, "one death is too rare for any token"
    (kind,) = fit_grammar(tokenizer, [encode(tokenizer, columns).tokens]).stays
    assert (kind.ends, kind.without_start) == (3, 0)
    assert encode(replace(tokenizer, edition=1), columns).dropped == {"HOSPITAL_DISCHARGE//MOON": 1, "MEDS_DEATH//X": 1}


@pytest.mark.parametrize(("year", "periods"), [(2020, True), (2150, False)])
def test_shifted_dates_have_no_calendar_periods(year, periods):
    moment = np.datetime64(f"{year}-01-01", "us").astype(int)
    columns = Events(np.ones(1, np.int64), np.array([moment]), np.array([CODES.index("LAB//A")], np.int32),
                      np.array([1.0], np.float32), CODES)  # fmt: skip
    assert bool(len(fit(columns, TokenSettings(min_patients=1)).period_tokens)) == periods


def words(tokenizer, rows):
    """The tokens of patients, from rows (patient, minute or None, code)."""
    patient, minute, code = zip(*rows, strict=True)
    names = tuple(sorted(set(code)))
    columns = Events(
        np.array(patient, np.int64),
        np.array([STATIC if at is None else at * MINUTE for at in minute], np.int64),
        np.array([names.index(name) for name in code], np.int32),
        np.full(len(rows), np.nan, np.float32),
        names,
    )
    settings = TokenSettings(min_patients=1, calendar_years=0)
    tokenizer = tokenizer or fit(columns, settings)
    encoded = encode(tokenizer, columns)
    tokens = tokenizer.vocabulary.tokens
    return tokenizer, [[tokens[token] for token in row if token > 2] for row in encoded.tokens]


def test_a_dated_sex_is_known_from_birth_and_a_dated_race_from_its_date_on():
    told, rows = words(None, [
        (1, 0, "LAB//A"), (1, 2, "LAB//B"), (1, 2, "RACE//W"), (1, 2, "SEX//female"), (1, 4, "LAB//A"),
        (2, 0, "LAB//A"), (2, 0, "Race/W"), (2, 3, "RACE//W"), (2, 4, "LAB//B"), (2, 4, "RACE//B"), (2, 9, "RACE//W"),
        (3, None, "GENDER//8507"), (3, None, "RACE//B"), (3, 0, "LAB//A"), (3, 1, "RACE//B"), (3, 2, "LAB//B"),
    ])  # fmt: skip
    rows = [[word for word in row if not word.startswith("TIME")] for row in rows]
    assert rows == [
        ["GENDER//F", "LAB//A", "RACE//W", "LAB//B", "LAB//A"],
        ["RACE//W", "LAB//A", "RACE//B", "LAB//B"],  # what is known after the last event has no place
        ["GENDER//M", "RACE//B", "LAB//A", "LAB//B"],
    ]
    assert [token for token in told.vocabulary.tokens if "GENDER" in token or "RACE" in token] == [
        "GENDER//F", "GENDER//M", "RACE//B", "RACE//W",
    ]  # fmt: skip


def test_spellings_of_one_code_are_one_token_for_old_vocabularies_too():
    _, rows = words(None, [
        (1, 0, "ICD10CM//I21.4"), (2, 0, "icd10cm//i214"), (3, 0, "ICD10CM/I21.4"),
        (4, 0, "ICD10//I21.4"), (5, 0, "ICD10//i214"), (6, 0, "MEDS_DEATH//X"),
    ])  # fmt: skip
    assert rows[0] == rows[1] == rows[2] == ["ICD10CM//1//I21", "ICD10CM//2//4"]
    assert rows[3] == rows[4] == ["ICD10//I214"] and rows[5] == ["MEDS_DEATH//X"]
    tokenizer, _ = words(None, [(1, 0, "LAB//A")])
    tokens = ("ICD10//I21.4", "ICD10CM/I21.4", "ICD10CM//1//i22", "OPCS4//K40.1", "GENDER//FEMALE", "MEDS_DEATH")
    old = replace(tokenizer, vocabulary=Vocabulary((*tokenizer.vocabulary.tokens, *tokens)))
    assert words(old, [
        (1, None, "SEX//F"), (1, 0, "ICD10//I214"), (1, 0, "ICD10CM//I21.4"), (1, 0, "ICD10CM//i22"),
        (1, 0, "OPCS4//K401"), (1, 0, "MEDS_DEATH//AT_HOME"), (1, 0, "OPCS4//K402"),
    ])[1] == [[tokens[4], tokens[0], tokens[1], tokens[2], tokens[3], tokens[5]]]  # fmt: skip


def test_deaths_that_say_more_are_a_death_where_each_is_rare():
    code = np.array([code for patient in range(10) for code in (patient, 10)], np.int32)
    names = (*(f"MEDS_DEATH//{patient}" for patient in range(10)), "LAB//A")
    columns = Events(np.repeat(np.arange(10), 2), np.zeros(20, np.int64), code, np.full(20, np.nan, np.float32), names)
    tokenizer = fit(columns, TokenSettings(min_patients=10))
    encoded = encode(tokenizer, columns)
    assert not encoded.dropped and "MEDS_DEATH" in tokenizer.vocabulary.tokens
    assert "MEDS_DEATH" not in fit(columns, TokenSettings(min_patients=1)).vocabulary.tokens


def test_a_few_far_dates_leave_the_calendar_as_it_is():
    years = np.repeat(np.arange(2010, 2020), 20)
    dates = np.concatenate([years, [1900, 2099, 9999]])
    time, nothing = moments(*(f"{year:04d}-06-01" for year in dates)), np.zeros(len(dates))
    columns = Events(np.arange(len(dates)), time, nothing.astype(np.int32), nothing.astype(np.float32), ("LAB//A",))
    tokenizer = fit(columns, TokenSettings(min_patients=1))
    names = [tokenizer.vocabulary.tokens[token] for token in tokenizer.period_tokens]
    assert names == ["YEAR//2010-2014", "YEAR//2015-2019"]
    rows = encode(tokenizer, columns).tokens
    assert [names.index(tokenizer.vocabulary.tokens[rows[row][1]]) for row in (200, 201, 202)] == [0, 1, 1]
