"""The share of a gap that a model closes: exact where it must be, wide enough, and no one passes the ceiling unseen."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from sequela.record.worlds.belief import ceiling
from sequela.record.worlds.latent import HIDDEN, LABS, LatentWorld
from sequela.task.scoring.metric import AUROC

VISIT = 4


@pytest.fixture(scope="module")
def bench(imported):
    return imported("measure.gap")


@pytest.fixture(scope="module")
def rows():
    """Patients of the world at the fifth visit: truth, ceiling, last labs, and what is known a visit later."""
    world = LatentWorld()
    events, truth = world.events(2500, seed=3), world.truth(2500, seed=3)
    best = ceiling(world, events)
    labs = (
        events.filter(pl.col("code").is_in(LABS))
        .group_by("subject_id", "time")
        .agg(pl.col("numeric_value").mean())
    )
    key = ["subject_id", "visit"]
    labs = truth.with_columns(time=pl.col("prediction_time").dt.offset_by("-1m")).join(
        labs, on=["subject_id", "time"]
    )
    next_visit = best.with_columns(pl.col("visit") - 1).with_columns(lives=1.0)
    return (
        truth.filter(pl.col("visit") == VISIT)
        .join(best, on=key, suffix="_best", maintain_order="left")
        .join(next_visit, on=key, how="left", suffix="_next", maintain_order="left")
        .join(labs.select(*key, lab="numeric_value"), on=key, maintain_order="left")
        .fill_null(0.0)
    )


def fitted(rows, columns, outcome):
    """A regression on some columns, of the other half of the patients: [1, N]."""
    x = np.column_stack([rows.select(columns).to_numpy(), np.ones(len(rows))])
    half, out = np.arange(len(rows)) % 2 == 0, np.empty(len(rows))
    for fit, use in ((half, ~half), (~half, half)):
        out[use] = x[use] @ np.linalg.lstsq(x[fit], outcome[fit], rcond=None)[0]
    return out[None]


def answered(bench, rows, what):
    outcome = rows[what].to_numpy().astype(float)
    reference, best = fitted(rows, ["lab"], outcome), rows[f"{what}_best"].to_numpy()
    return bench.Answered(rows["subject_id"].to_numpy(), outcome, reference, reference, best)


@pytest.mark.parametrize("what", ["severity", "velocity", "dies"])
def test_reference_and_ceiling_close_nothing_and_all(bench, rows, what):
    metric = AUROC if what == "dies" else bench.R2
    here = answered(bench, rows, what)
    nothing = bench.gap_closed(here, metric, count=200)
    assert nothing.gap.low > 0 and (nothing.share.low, nothing.share.high) == (0, 0) and not nothing.peeks
    everything = bench.gap_closed(replace(here, model=here.ceiling[None]), metric, count=200)
    assert everything.share.low == everything.share.high == pytest.approx(1) and not everything.peeks
    half = bench.gap_closed(replace(here, model=(here.reference + here.ceiling) / 2), metric, count=200)
    assert 0 < half.share.low < half.share.value < half.share.high and not half.peeks


@pytest.mark.parametrize("what", ["severity", "velocity", "dies"])
def test_a_look_at_the_next_visit_is_seen(bench, rows, what):
    """A regression on the ceiling's own answers is no better than they are, with those of a visit later it is."""
    metric = AUROC if what == "dies" else bench.R2
    here = answered(bench, rows, what)
    now = [f"{name}_best" for name in (*HIDDEN, "dies")]
    later = [*now, *(f"{name}_next" for name in (*HIDDEN, "dies")), "lives"]
    honest = replace(here, model=fitted(rows, now, here.outcome))
    peeking = replace(here, model=fitted(rows, later, here.outcome))
    assert not bench.gap_closed(honest, metric, count=200).peeks
    assert bench.gap_closed(peeking, metric, count=200).peeks


def test_no_gap_no_share(bench, rows):
    here = answered(bench, rows, "severity")
    closed = bench.gap_closed(
        replace(here, reference=here.ceiling[None], model=here.ceiling[None]), count=200
    )
    assert np.isnan(closed.share.value) and "not surely" in closed.as_dict()["share"]["reason"]
    assert closed.gain.value == closed.gap.value == 0


def toy(random, seeds):
    """Answers whose expected R2 is known: 1/2 for the ceiling, 1/2 - noise / 2 for a model, by seed."""
    best, count = random.normal(size=400), 400
    outcome = best + random.normal(size=count)

    def noisy(low, high):
        noise = random.uniform(low, high, seeds)[:, None]
        return best + np.sqrt(noise) * random.normal(size=(seeds, count))

    return np.arange(count), outcome, noisy(0.1, 0.3), noisy(0.4, 0.8), best


def test_intervals_hold_the_truth_over_patients_and_seeds(bench):
    """Noise of 0.2 and 0.6 on average: a third of the noise is left, so the share is two thirds."""
    random = np.random.default_rng(0)
    closed = [bench.gap_closed(bench.Answered(*toy(random, 5)), count=200) for _ in range(80)]
    true = {"gain": 0.2, "gap": 0.3, "share": 2 / 3, "beyond": -0.1}
    for name, value in true.items():
        estimates = [getattr(each, name) for each in closed]
        assert np.mean([each.low <= value <= each.high for each in estimates]) > 0.88
    one_seed = [bench.gap_closed(bench.Answered(*toy(random, 1)), count=200) for _ in range(80)]
    held = np.mean([each.share.low <= 2 / 3 <= each.share.high for each in one_seed])
    assert held < 0.85  # one seed tells nothing about others
