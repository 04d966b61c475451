"""The study of states: who knows the hidden course is seen to, who knows nothing is not, and times are right."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from sequela.record.dataset import write_dataset


@pytest.fixture(scope="module")
def latent(imported):
    return imported("measure.latent")


@pytest.fixture(scope="module")
def world_model(imported):
    return imported("world_model")


@pytest.fixture(scope="module")
def cohort(latent):
    return latent.Cohort(seed=1, counts=(("train", 700), ("tuning", 300), ("held_out", 1200)))


def shares(latent, cohort, vectors: np.ndarray) -> dict[str, tuple]:
    """Of each question the gain over plain features, and the two scores."""
    plain = latent.answers(cohort, cohort.last_values())
    closed = latent.closed(cohort, [latent.answers(cohort, vectors)], [plain])
    return {question: (gap, scores) for question, _, gap, scores in closed}


def test_who_knows_the_hidden_course_is_above_the_ceiling_and_who_guesses_is_far_below(latent, cohort):
    names = ["severity", "velocity", "dies"]
    truth = cohort.truth.select(pl.col(names).cast(pl.Float32)).to_numpy()
    knowing = shares(latent, cohort, truth)
    assert len(knowing) == 9 and all(gap.peeks for gap, _ in knowing.values())
    assert all(scores.model.value > 0.99 for _, scores in knowing.values())
    guessing = shares(latent, cohort, np.random.default_rng(0).normal(size=(len(truth), 4)).astype(np.float32))
    for question, (gap, scores) in guessing.items():
        assert scores.model.value == pytest.approx(0.5 if question.startswith("dies") else 0.0, abs=0.08)
        assert gap.gain.high < 0 and gap.beyond.high < 0


def test_who_knows_what_can_be_known_closes_the_gap(latent, cohort):
    best = cohort.truth.select(pl.col("^.*_best$").cast(pl.Float32)).to_numpy()
    for question, (gap, scores) in shares(latent, cohort, best).items():
        assert scores.model.value == pytest.approx(scores.ceiling.value, abs=0.03), question
        assert not gap.peeks


def test_plain_features_see_nothing_of_the_time_after_the_question(latent, cohort):
    first = cohort.last_values()
    later = latent.Cohort(seed=1, counts=cohort.counts)
    asked = later.truth.group_by("subject_id").agg(pl.col("prediction_time").max())
    known = later.events.join(asked, on="subject_id").filter(pl.col("time") < pl.col("prediction_time"))
    later.__dict__["events"] = known.drop("prediction_time")
    same = (first == later.last_values()).all(1)
    assert same.all()
    later.__dict__["events"] = cohort.events.with_columns(pl.col("numeric_value") + 1)  # negative control
    assert not (first == later.last_values()).all(1).any()


def test_hours_into_a_stay(world_model, tmp_path):
    end = pl.datetime(2000, 1, 3)
    events = pl.select(
        subject_id=pl.lit(7), time=end, code=pl.lit("RECORD//48H"), numeric_value=pl.lit(None, pl.Float32)
    )
    write_dataset(events, tmp_path / "meds", name="made", fractions=(1.0, 0.0, 0.0))
    rows = world_model.hours_in(tmp_path / "meds")
    assert rows["landmark"].to_list() == [f"{hours} hours" for hours in (6, 12, 24, 36, 48)]
    waited = rows["prediction_time"] - rows["prediction_time"][0]
    assert waited.to_list() == [timedelta(hours=hours - 6) for hours in (6, 12, 24, 36, 48)]
    assert rows["prediction_time"][4] == events["time"][0] + timedelta(minutes=1)


def test_a_claim_without_a_number_is_null(world_model):
    row = world_model.Claim("a claim", world_model.estimate_of({"value": None})).as_dict()
    assert (row["value"], row["low"], row["high"], row["met"]) == (None, None, None, None)
    row = world_model.Claim("a claim", world_model.estimate_of({"value": 0.5, "low": 0.4, "high": 0.6})).as_dict()
    assert (row["value"], row["low"], row["high"]) == (0.5, 0.4, 0.6)
