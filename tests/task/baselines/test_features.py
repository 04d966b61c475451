import numpy as np
import polars as pl
import pytest

from sequela.task.baselines.features import FEWEST_PATIENTS, build_features
from tests.task.conftest import at_day, make_events

PATIENTS = FEWEST_PATIENTS + 2


def history(patient: int) -> list[tuple]:
    return [
        (patient, None, "GENDER//M" if patient % 2 else "GENDER//F"),
        (patient, -50 * 365.25, "MEDS_BIRTH"),
        (patient, -3, "LAB//A", 4.0),
        (patient, -2, "LAB//A", 1.0),
        (patient, -1, "LAB//A", 2.5),
        (patient, -1, "LAB//A"),  # ordered, never measured
        (patient, -1, "DIAGNOSIS//X"),
    ]


def table(rows: list[tuple], *, day: float = 0, train: range = range(PATIENTS)):
    events = make_events(rows)
    patients = events.select(pl.col("subject_id").unique().sort())
    times = patients.with_columns(prediction_time=pl.lit(at_day(day)).cast(pl.Datetime("us")))
    return build_features(events, times, pl.Series(list(train))), times


COHORT = [row for patient in range(PATIENTS) for row in history(patient)]


def test_the_summaries_of_a_history():
    features, times = table(COHORT)
    assert features.names[:2] == ("age", "sex")
    row = dict(zip(features.names, features.of(times)[1].tolist(), strict=True))
    assert row == {
        "age": pytest.approx(50),
        "sex": 1,
        "LAB//A count": 4,
        "LAB//A last": 2.5,
        "LAB//A mean": 2.5,
        "LAB//A min": 1,
        "LAB//A max": 4,
        "DIAGNOSIS//X count": 1,
    }
    assert features.of(times)[0, 1] == 0


def test_who_has_no_history_has_no_values():
    features, times = table([*COHORT, (99, 5, "LAB//A", 7.0)])
    row = dict(zip(features.names, features.of(times)[-1].tolist(), strict=True))
    assert row["LAB//A count"] == row["DIAGNOSIS//X count"] == 0
    assert all(np.isnan(row[name]) for name in ("age", "sex", "LAB//A last", "LAB//A mean"))


@pytest.mark.parametrize(("day", "leaks"), [(0, False), (3, False), (-0.5, True)])
def test_only_what_came_strictly_before_the_prediction_time_is_seen(day, leaks):
    """An event half a day before it is the negative control."""
    before, times = table(COHORT)
    after, _ = table([*COHORT, *((patient, day, "LAB//A", 1e6) for patient in range(PATIENTS))])
    assert np.array_equal(before.of(times), after.of(times), equal_nan=True) is not leaks


def test_the_training_patients_decide_on_the_columns():
    rare = [(patient, -1, "LAB//RARE", 1.0) for patient in range(FEWEST_PATIENTS)]
    assert "LAB//RARE mean" in table([*COHORT, *rare])[0].names
    assert "LAB//RARE mean" not in table([*COHORT, *rare], train=range(5, PATIENTS))[0].names


def test_the_end_of_the_follow_up_is_no_feature():
    stopped = [(patient, -1, "FOLLOW_UP//END") for patient in range(PATIENTS)]
    assert not any("FOLLOW_UP" in name for name in table([*COHORT, *stopped])[0].names)


def test_several_questions_about_one_patient():
    events = make_events(COHORT)
    days = [-2.5, 0]
    times = pl.DataFrame({"subject_id": [1, 1], "prediction_time": [at_day(day) for day in days]})
    times = times.with_columns(pl.col("prediction_time").cast(pl.Datetime("us")))
    everyone = pl.Series(range(PATIENTS))
    features = build_features(
        events, pl.concat([times, table(COHORT)[1].filter(pl.col("subject_id") != 1)]), everyone
    )
    last = features.names.index("LAB//A last")
    assert features.of(times)[:, last].tolist() == [4.0, 2.5]
    assert features.of(times.reverse())[:, last].tolist() == [2.5, 4.0]


@pytest.mark.parametrize(
    "male, female", [("SEX//male", "SEX//F"), ("Gender/8507", "Gender/8532"), ("GENDER//M", "GENDER//f")]
)
@pytest.mark.parametrize("day", [None, -7, 7])
def test_a_sex_is_known_in_any_spelling_and_from_birth(male, female, day):
    new = {"GENDER//M": male, "GENDER//F": female}
    rows = [(row[0], day, new[row[2]]) if row[2] in new else row for row in COHORT]
    rows = sorted(rows, key=lambda row: (row[0], -np.inf if row[1] is None else row[1]))
    features, times = table(rows)
    assert features.of(times)[:4, 1].tolist() == [0, 1, 0, 1]
    assert len(features.names) == len(table(COHORT)[0].names), "a sex is no event to count"


def test_numbers_for_a_sex_are_not_guessed():
    rows = [(*row[:2], "GENDER//1", *row[3:]) if row[2].startswith("GENDER") else row for row in COHORT]
    features, times = table(rows)
    assert np.isnan(features.of(times)[:, 1]).all()
    assert features.without_sex().startswith(f"The baselines know no sex in {PATIENTS} of {PATIENTS} histories: give")
    assert table(COHORT)[0].without_sex() == ""


def test_spellings_of_one_code_are_one_feature():
    spellings = ["ICD10CM//I21.4", "ICD10CM//I214", "icd10cm//i214", "DIAGNOSIS//ICD//10//I214"]
    extra = [(patient, -1, spellings[patient % 4]) for patient in range(PATIENTS)]
    rows = sorted([*COHORT, *extra], key=lambda row: row[0])
    features, times = table(rows)
    column = features.names.index("ICD10CM//I214 count")
    assert features.of(times)[:, column].tolist() == [1] * PATIENTS
    assert sum("I21" in name for name in features.names) == 1


def test_a_birth_that_says_more_gives_an_age():
    rows = [(*row[:2], "MEDS_BIRTH//REPORTED", *row[3:]) if row[2] == "MEDS_BIRTH" else row for row in COHORT]
    features, times = table(rows)
    assert features.of(times)[0, 0] == pytest.approx(50)
