from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from sequela.errors import InputError
from sequela.record.duration import MINUTE
from sequela.record.events import Events
from sequela.record.schema import FOLLOW_UP_END
from sequela.record.timeline import STATIC
from sequela.tokens.ehr.code import family
from sequela.tokens.ehr.fit import chosen_codes, fit, within_budget
from sequela.tokens.ehr.settings import TokenSettings
from sequela.tokens.ehr.statistics import CodeStatistics
from tests.tokens.ehr.test_encode import CODES, columns_of


def counted(*patients):
    columns = columns_of(
        [([], [(m, CODES.index(code), np.nan) for m, code in enumerate(codes)], False) for codes in patients]
    )
    return CodeStatistics.of(columns, TokenSettings())


def test_a_code_is_as_frequent_as_its_first_part_and_each_later_part_by_itself():
    statistics = counted(["ICD10CM//E11"], ["ICD10CM//E1165"], ["LAB//A"])
    kept, names = chosen_codes(statistics, TokenSettings(min_patients=2))
    assert kept == {"ICD10CM//E11", "ICD10CM//E1165"} and names == ["ICD10CM//1//E11"]
    kept, names = chosen_codes(statistics, TokenSettings(min_patients=1))
    assert names == ["ICD10CM//1//E11", "ICD10CM//2//65", "LAB//A"]


def test_a_code_of_a_dot_is_counted_and_splits_nothing():
    columns = Events(
        np.arange(2), np.full(2, 7), np.array([0, 1]), np.full(2, np.nan), ("ICD10CM//.", "ICD10CM//E11")
    )
    settings = TokenSettings(min_patients=1)
    assert chosen_codes(CodeStatistics.of(columns, settings), settings)[1] == [
        "ICD10CM//.",
        "ICD10CM//1//E11",
    ]


def test_data_without_any_time_and_data_of_few_patients_are_told_apart():
    undated = Events(np.arange(2), np.full(2, STATIC), np.zeros(2, int), np.full(2, np.nan), ("LAB//A",))
    with pytest.raises(InputError, match="No event of the training patients has a time"):
        fit(undated)
    with pytest.raises(InputError, match="in 10 or more of the 2 training patients: lower min_patients"):
        fit(replace(undated, time=np.zeros(2, int)))


def test_a_joint_code_stands_alone():
    statistics = counted(["ICD10CM//E11"], ["ICD10CM//E1165"], ["ICD10CM//E1165"])
    joint = TokenSettings(min_patients=2, joint=True)
    columns = columns_of(
        [([], [(0, CODES.index(code), np.nan)], False) for code in ("ICD10CM//E11", "ICD10CM//E1165") * 2]
    )
    assert chosen_codes(CodeStatistics.of(columns, joint), joint)[1] == ["ICD10CM//E11", "ICD10CM//E1165"]
    assert chosen_codes(statistics, TokenSettings(min_patients=3))[1] == ["ICD10CM//1//E11"]


def names_of(carriers, min_patients=10):
    """The tokens of codes that so many patients have, each of them no other."""
    codes = tuple(sorted(carriers))
    rows = np.repeat(np.arange(len(codes)), [carriers[code] for code in codes]).astype(np.int32)
    columns = Events(np.arange(len(rows)), np.zeros(len(rows), int), rows, np.full(len(rows), np.nan), codes)
    settings = TokenSettings(min_patients=min_patients)
    return chosen_codes(CodeStatistics.of(columns, settings), settings)[1]


@pytest.mark.parametrize(
    ("carriers", "names"),
    [
        # Rare ways to leave, few patients in all: what was begun must end.
        ({"HOSPITAL_ADMISSION//ER": 50, "HOSPITAL_DISCHARGE//A": 3, "HOSPITAL_DISCHARGE//B//C": 1},
         ["HOSPITAL_ADMISSION//ER", "HOSPITAL_DISCHARGE"]),
        # The end of a kind of stay stands beside its start, not for all kinds.
        ({"ENCOUNTER_START//X": 12, "ENCOUNTER_END//X": 9, "ENCOUNTER_START//Y": 7, "ENCOUNTER_END//Y": 7},
         ["ENCOUNTER_END//X", "ENCOUNTER_START//X"]),
        ({"ENCOUNTER_START//X//WHY": 12, "ENCOUNTER_END//X": 9}, ["ENCOUNTER_END//X", "ENCOUNTER_START//X//WHY"]),
        # Rare kinds of stay that together are frequent; fewer ends than starts.
        ({"ENCOUNTER//A//START": 6, "ENCOUNTER//B//START": 6, "ENCOUNTER//A//END": 4},
         ["ENCOUNTER//END", "ENCOUNTER//START"]),
        ({"ED_REGISTRATION": 12, "ED_OUT": 4}, ["ED_OUT", "ED_REGISTRATION"]),
        ({"MEDS_DEATH//A": 6, "MEDS_DEATH//B": 5}, ["MEDS_DEATH"]),
        # Whoever died a rare death must not live on beside those of a frequent one.
        ({"MEDS_DEATH//A": 12, "MEDS_DEATH//B": 1}, ["MEDS_DEATH", "MEDS_DEATH//A"]),
        ({"MEDS_DEATH//A": 12, "MEDS_DEATH": 2, "DEATH//I21": 3}, ["MEDS_DEATH", "MEDS_DEATH//A"]),
        ({"Visit/IP": 12, "Visit/SNF": 6, "Visit/X": 5}, ["Visit", "Visit/IP"]),
        # The neighbors: too rare altogether, and families without stays.
        ({"MEDS_DEATH//A": 3, "HOSPITAL_DISCHARGE//A": 5, "LAB//A": 5, "LAB//B": 5, "LAB//C": 10}, ["LAB//C"]),
        ({"DEPARTMENT//A": 8, "DEPARTMENT//B": 8, "GENDER//F": 20}, []),
    ],
)  # fmt: skip
def test_rare_codes_of_stays_and_deaths_have_a_token_that_stands_for_them(carriers, names):
    assert names_of(carriers) == names


def test_the_most_frequent_of_a_family_get_the_tokens_and_the_first_by_name_of_equals():
    statistics = counted(["LAB//B", "LAB//A", "CPT4//1", "CPT4//2", "CPT4//2"])
    kept, names = chosen_codes(statistics, TokenSettings(min_patients=1, labs=1, procedures=1))
    assert kept == {"LAB//A", "CPT4//2"} and names == ["CPT4//2", "LAB//A", "PROCEDURE//UNKNOWN"]
    assert "PROCEDURE//UNKNOWN" not in chosen_codes(statistics, TokenSettings(min_patients=1))[1]


def counts(rows):
    return pl.DataFrame(rows, schema=["code", "events", "patients"], orient="row")


def test_a_limit_keeps_the_most_frequent_and_ties_go_by_name():
    table = counts(
        [("LAB//C", 5, 5), ("LAB//B", 5, 5), ("LAB//A", 9, 1), ("LAB//D", 7, 5), ("VITAL//X", 1, 2)]
    )
    assert within_budget(table, {"lab": 2}, 2) == (["LAB//B", "LAB//D", "VITAL//X"], [])
    assert within_budget(table, {"lab": 0}, 1) == (["VITAL//X"], [])
    assert within_budget(table, {}, 1)[0] == sorted(table["code"])


def test_only_procedures_have_an_unknown_token():
    table = counts([("CPT4//1", 9, 9), ("HCPCS//2", 8, 8), ("PROCEDURE//3", 7, 1), ("LAB//4", 6, 1)])
    assert within_budget(table, {"procedure": 1}, 2) == (["CPT4//1"], ["HCPCS//2", "PROCEDURE//3"])


def test_the_order_of_the_rows_does_not_matter():
    rng = np.random.default_rng(0)
    names = [f"{head}//{i}" for head in ("LAB", "CPT4", "NDC") for i in range(50)]
    table = counts([(name, int(rng.integers(1, 9)), int(rng.integers(1, 5))) for name in names])
    limits = {"lab": 20, "procedure": 10}
    assert within_budget(table, limits, 2) == within_budget(
        table.sample(fraction=1, shuffle=True, seed=1), limits, 2
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_naive_loop_keeps_the_same(seed):
    rng = np.random.default_rng(seed)
    names = [f"{head}//{i}" for head in ("LOINC", "HCPCS", "ATC") for i in range(30)]
    rows = [(name, int(rng.integers(1, 9)), int(rng.integers(1, 5))) for name in names]
    kept, unknown = set(), set()
    for group, limit in (("lab", 7), ("procedure", 5), ("medication", None)):
        mine = [row for row in rows if family(row[0]) == group]
        enough = sorted((row for row in mine if row[2] >= 3), key=lambda row: (-row[1], row[0]))
        kept |= {row[0] for row in enough[:limit]}
        unknown |= {row[0] for row in mine if group == "procedure"} - kept
    assert within_budget(counts(rows), {"lab": 7, "procedure": 5}, 3) == (sorted(kept), sorted(unknown))


def test_a_code_counted_twice_is_refused():
    with pytest.raises(ValueError, match="one row per code"):
        within_budget(counts([("LAB//A", 1, 1), ("LAB//A", 1, 1)]), {}, 1)


def test_no_codes_at_all():
    empty = pl.DataFrame(schema={"code": pl.String, "events": pl.Int64, "patients": pl.Int64})
    assert within_budget(empty, {"lab": 1}, 1) == ([], [])


def followed_for_months(people, random):
    """Visits that come back after exponential gaps, in minutes, of people who are followed for up to eight months."""
    day = 1440
    until = random.integers(5 * day, 240 * day, people)
    at = np.cumsum(np.ceil(random.exponential(80 * day, (people, 12))), 1).astype(np.int64)
    at = np.append(np.zeros((people, 1), np.int64), at, 1)
    patient, column = np.nonzero(at <= until[:, None])
    time, code = np.append(at[patient, column], until), np.repeat([0, 1], [len(patient), people])
    patient = np.append(patient, np.arange(people))
    order = np.lexsort((code, time, patient))
    bare = np.full(len(order), np.nan, np.float32)
    return Events(patient[order], time[order] * MINUTE, code[order], bare, ("VISIT", FOLLOW_UP_END))


def test_gaps_of_an_interval_are_as_long_as_life_has_them_also_where_follow_up_cuts_most_long_ones_off():
    columns = followed_for_months(20_000, np.random.default_rng(0))
    days = np.array([60, 90, 120, 150])

    def longer(events):
        """Of the gaps of one to six months, the share that is longer than so many days."""
        intervals = fit(events, TokenSettings(min_patients=1)).intervals
        return intervals.survival(days * 1440)[:, intervals.names.index("TIME//1mo-6mo")]

    left = np.exp(-np.append(days, [30, 180]) / 80)
    true = (left[:-2] - left[-1]) / (left[-2] - left[-1])
    assert np.abs(longer(columns) - true).max() < 0.015
    completed = columns.take(columns.code == 0)  # planted: no end is stated, so completed gaps are all there is
    assert (longer(completed) - true < -0.05).sum() >= 3
