import numpy as np
import polars as pl
import pytest
from statsmodels.duration.survfunc import CumIncidenceRight

from sequela.errors import InputError
from sequela.rollout.folder import SimulatedFolder
from sequela.task.answers.estimate import answers, estimate
from sequela.task.answers.incidence import incidence, incidences, time_span, time_spans
from tests.task.answers.test_estimate import AT, rollout, write_simulated
from tests.task.conftest import make_task

# each day a stroke, else a death, else the rollout is cut off; at most until the horizon
STROKE, DEATH, CUT, HORIZON = 0.03, 0.04, 0.05, 30
DAYS = np.array([1, 5, 10, 20, 30])
TRUTH = STROKE * (1 - (1 - STROKE - DEATH) ** DAYS) / (STROKE + DEATH)
NO_DEATH = 1 - (1 - STROKE / (1 - DEATH)) ** DAYS  # what 1 less Kaplan and Meier tends to


def chain(rollouts: int, seed: int, cut: float = CUT) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    decided = draw.geometric(STROKE + DEATH, rollouts)
    lost = (
        draw.geometric(cut, rollouts) if cut else np.full(rollouts, 999)
    )  # after that day's stroke or death
    stroke = draw.random(rollouts) < STROKE / (STROKE + DEATH)
    until = np.minimum.reduce([decided, lost, np.full(rollouts, HORIZON)])
    happened = np.where(stroke, "outcome", "end")
    how = np.where(until == decided, happened, np.where(until == lost, "censored", "horizon"))
    return until.astype(float), how


def frame(until_PN: np.ndarray, how_PN: np.ndarray) -> pl.DataFrame:
    """As `answers` gives it, in no order."""
    questions, rollouts = until_PN.shape
    whole = pl.DataFrame(
        {
            "subject_id": np.repeat(np.arange(questions), rollouts),
            "prediction_time": pl.Series([AT] * until_PN.size).cast(pl.Datetime("us")),
            "rollout": np.tile(np.arange(rollouts), questions),
            "until_days": until_PN.ravel(),
            "decided": how_PN.ravel().astype(str),
        }
    )
    return whole.sample(fraction=1.0, shuffle=True, seed=0)


@pytest.mark.parametrize("seed", range(8))
def test_the_incidence_of_a_chain_is_the_known_one(seed):
    until, how = chain(4_000, seed)
    risk, error = incidence(until, how, DAYS)
    assert (np.abs(risk - TRUTH) < 4 * error).all()
    assert (error < 0.02).all()


def test_death_taken_for_censoring_biases_upwards():
    """The negative control: 1 less Kaplan and Meier fails the same test, and is where theory puts it."""
    for seed in range(8):
        until, how = chain(4_000, seed)
        risk, error = incidence(until, np.where(how == "end", "censored", how), DAYS)
        assert (risk[3:] - TRUTH[3:] > 4 * error[3:]).all()
        assert (np.abs(risk - NO_DEATH) < 4 * error).all()


def test_the_standard_error_is_the_spread_over_repetitions():
    days, truth = DAYS[1:4], TRUTH[1:4]
    found = [incidence(*chain(200, seed), days) for seed in range(1_000)]
    risk_ST, error_ST = (np.array(column) for column in zip(*found, strict=True))
    np.testing.assert_allclose(error_ST.mean(axis=0), risk_ST.std(axis=0), rtol=0.08)
    assert (np.abs(risk_ST.mean(axis=0) - truth) < 4 * risk_ST.std(axis=0) / np.sqrt(1_000)).all()
    inside = (np.abs(risk_ST - truth) < 1.96 * error_ST).mean(axis=0)
    assert ((inside > 0.93) & (inside < 0.97)).all()


@pytest.mark.parametrize("whole_days", [False, True])
def test_it_is_the_estimator_of_aalen_and_johansen(whole_days):
    """Against statsmodels, values and standard errors; without ties and with many."""
    draw = np.random.default_rng(0)
    stroke, death, cut = draw.exponential(10, 300), draw.exponential(20, 300), draw.uniform(0, 15, 300)
    if whole_days:
        stroke, death, cut = (np.ceil(x) for x in (stroke, death, cut))
    until = np.minimum.reduce([stroke, death, cut])
    cause = np.select([until == stroke, until == death], [1, 2], 0)
    known = CumIncidenceRight(until, cause)
    times = known.times[:-1]  # of the last, statsmodels knows no error
    risk, error = incidence(until, np.array(["censored", "outcome", "end"])[cause], times)
    np.testing.assert_allclose(risk, known.cinc[0][:-1], atol=1e-12)
    np.testing.assert_allclose(error, known.cinc_se[0][:-1], atol=1e-12)


def test_without_censoring_it_is_a_share():
    until, how = chain(100, 0, cut=0)
    risk, error = incidence(until, how, DAYS)
    share = np.array([(how[until <= day] == "outcome").sum() for day in DAYS]) / 100
    np.testing.assert_allclose(risk, share)
    np.testing.assert_allclose(error, np.sqrt(share * (1 - share) / 100))


def test_where_no_rollout_goes_the_risk_is_not_known():
    until, how = np.array([1.0, 2, 3, 4]), np.array(["outcome", "censored", "end", "horizon"])
    risk, _ = incidence(until, how, [0, 0.5, 1, 4, 4.5])
    np.testing.assert_allclose(risk, [0, 0, 0.25, 0.25, np.nan])
    risk, _ = incidence(until, np.where(how == "horizon", "outcome", how), [4, 99])  # nothing is left open
    np.testing.assert_allclose(risk, [0.625, 0.625])


def test_frames_are_many_single_questions():
    until_PN, how_PN = (np.stack(x) for x in zip(*(chain(40, seed) for seed in range(12)), strict=True))
    answered = frame(until_PN, how_PN).filter(
        (pl.col("subject_id") > 3) | (pl.col("rollout") < 25)
    )  # not all alike
    found, spans = incidences(answered, DAYS), time_spans(answered, level=0.5)
    assert found["subject_id"].to_list() == np.repeat(np.arange(12), len(DAYS)).tolist()
    assert found["days"].to_list() == DAYS.tolist() * 12
    for question in range(12):
        until, how = (x[question, : 25 if question <= 3 else 40] for x in (until_PN, how_PN))
        risk, error = incidence(until, how, DAYS)
        own = found.filter(subject_id=question)
        np.testing.assert_allclose(own["risk"].fill_null(np.nan), risk)
        np.testing.assert_allclose(own["standard_error"].fill_null(np.nan), error)
        assert spans.row(question)[2:] == time_span(until, how, level=0.5)
    assert spans["high"].null_count() > 0 < spans["low"].count()


def test_many_questions_are_worked_on_in_parts(monkeypatch):
    answered = frame(*(np.stack(x) for x in zip(*(chain(20, seed) for seed in range(9)), strict=True)))
    whole = incidences(answered, DAYS)
    monkeypatch.setattr("sequela.task.answers.incidence.CELLS", 50)
    assert incidences(answered, DAYS).equals(whole)


def test_the_times_of_a_chain_with_censoring_are_the_known_ones():
    """Strokes alone, 3 % a day: half by day 23. Without the quarter that is cut off, the control, it is day 17."""
    draw = np.random.default_rng(1)
    stroke, cut = draw.geometric(STROKE, 8_000), draw.geometric(0.01, 8_000)
    until = np.minimum(stroke, cut).astype(float)
    found = time_span(until, np.where(stroke <= cut, "outcome", "censored"), level=0.8)
    truth = [np.ceil(np.log(share) / np.log(1 - STROKE)) for share in (0.5, 0.9, 0.1)]
    assert np.abs(np.array(found) - truth).max() <= 4
    assert np.median(until[stroke <= cut]) < truth[0] - 4


def test_a_time_that_is_not_reached_is_none():
    until, how = np.arange(1.0, 11), np.array(["outcome"] * 6 + ["end"] * 4)
    assert time_span(until, how) == (5.5, 1, None)  # seven in ten are not reached
    assert time_span(until, np.roll(how, 4)) == (9.5, 5, None)
    assert time_span(until, np.where(until > 5, "end", how)) == (None, 1, None)  # half of them, but no more
    assert time_span(until, np.full(10, "outcome")) == (5.5, 1, 10)


@pytest.mark.parametrize(("level", "cut"), [(0.95, np.inf), (0.8, 30.0)])
def test_the_interval_holds_as_many_further_times_as_it_says(level, cut):
    """Times of a constant hazard; 1,500 questions of 199 rollouts, and one further time each."""
    draw = np.random.default_rng(3)
    questions, rollouts = 1_500, 199
    stroke = draw.exponential(10, (questions, rollouts))
    lost = draw.exponential(cut, stroke.shape) if np.isfinite(cut) else np.full(stroke.shape, np.inf)
    how = np.where(stroke <= lost, "outcome", "censored")
    spans = time_spans(frame(np.minimum(stroke, lost), how), level)
    inside = pl.Series(draw.exponential(10, questions)).is_between(spans["low"], spans["high"])
    assert inside.null_count() == 0
    assert abs(inside.mean() - level) < 0.02 + (level < 0.9) * 0.015


def test_an_open_interval_holds_those_who_never_have_it():
    """Restricted and with death: a further rollout has its stroke inside, or none where the interval is open."""
    inside, questions = 0, 1_500
    for seed in range(questions):
        _, low, high = time_span(*chain(199, seed, cut=0), level=0.9)
        (days,), (what,) = chain(1, 10_000 + seed, cut=0)
        assert high is None  # 62 % never have one
        inside += what != "outcome" or days >= low
    # low is day 2, whose earlier day holds 3 %: days are whole
    assert inside / questions == pytest.approx(1 - STROKE, abs=0.015)


def test_from_simulated_futures(tmp_path):
    """Where nothing ends the wait and no rollout is cut off early, the times are those that `estimate` predicts."""
    draw = np.random.default_rng(2)
    rows, events = [], []
    for patient in range(6):
        for number in range(21):
            rows.append(rollout(patient, number, end=12))
            if draw.random() < 0.2 + patient / 10:
                events.append((patient, number, draw.uniform(1, 12), "STROKE"))
            if draw.random() < 0.1:
                events.append((patient, number, draw.uniform(1, 12), "MEDS_DEATH"))
    folder = write_simulated(tmp_path / "s", rows, events)
    simulated = SimulatedFolder(folder)
    task, rollouts = make_task(kind="time", ends=(), horizon=None), simulated.rollouts()
    spans = time_spans(answers(task, simulated, rollouts), level=0.7).sort("subject_id")
    predicted = estimate(task, simulated, rollouts, "mc", level=0.7).sort("subject_id")
    for name, column in {"median": "prediction", "low": "low", "high": "high"}.items():
        assert spans[name].to_list() == pytest.approx(predicted[column].to_list())
    assert spans["median"].null_count() in range(1, 6)
    risk = incidences(answers(make_task(), simulated, rollouts), [10])
    shares = estimate(make_task(), simulated, rollouts, "mc").sort("subject_id")
    np.testing.assert_allclose(risk["risk"], shares["prediction"])


def test_what_is_no_question():
    until, how = chain(10, 0)
    with pytest.raises(InputError, match=r"at -1\.0 days"):
        incidence(until, how, [3, -1])
    with pytest.raises(InputError, match=r"level of an interval is 1\.5"):
        time_span(until, how, level=1.5)
    with pytest.raises(InputError, match="no rollouts"):
        incidences(frame(until[None], how[None]).clear(), [3])
