"""In memory the same rollouts as in a simulated folder; and many threads at once."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import polars as pl
import pytest

from sequela.errors import InputError
from sequela.record.dataset import read_events
from sequela.record.duration import MINUTE
from sequela.record.edit import Edits
from sequela.record.events import Events, births
from sequela.rollout.clock.minutes import TokenClock
from sequela.rollout.engine.processes import EngineProcesses
from sequela.rollout.engine.shared import SharedDecoding
from sequela.rollout.forecast import forecast, load, load_words, make_engine, questions_in
from sequela.rollout.parts import simulate
from sequela.tokens.ragged import Ragged
from tests.rollout.test_parts import PATIENTS, SMALL, few

BOTH = {"scope": ["data"], "reach": ["data", "avoiding/death"]}


@pytest.fixture(scope="module")
def events(world_meds):
    return read_events(world_meds, "held_out").sort("subject_id", maintain_order=True)


def of(events, request):
    return events.filter(pl.col("subject_id").is_in(request.times["subject_id"].implode()))


def requests(meds):
    return [few(meds), few(meds, "lab", ("LAB//*",), (), 10**6, "all", patients=9)]


@pytest.mark.parametrize("estimator", list(BOTH))
@pytest.mark.parametrize("words", [{}, {"set": ["LAB//CREATININE = 1.9"]}], ids=str)
def test_it_is_what_a_simulated_folder_holds(rough, world_meds, events, tmp_path, estimator, words):
    asked, settings, edits = requests(world_meds), replace(SMALL, estimator=estimator), Edits.parse(**words)
    summary = simulate(rough, world_meds, tmp_path, asked, settings, edits)
    result = forecast(load(rough, settings), of(events, asked[0]), asked, settings, edits)
    table = pl.read_parquet(tmp_path / "rollouts.parquet")
    key = ["avoids", "subject_id", "rollout"]
    assert result.rollouts().sort(key).equals(table.select(result.rollouts().columns).sort(key))
    for where, avoids in zip(BOTH[estimator], (None, "death"), strict=False):
        written = pl.concat([pl.read_parquet(file) for file in sorted((tmp_path / where).iterdir())])
        key = ["subject_id", "rollout"]
        own = result.events(avoids).sort(key, maintain_order=True)
        assert own.equals(written.sort(key, maintain_order=True))
    assert len(result.questions) == summary["histories"] == PATIENTS
    assert result.without_history == summary["without_history"]
    if words:
        assert int(result.changed.sum()) == summary["changed"] > 0
    else:
        assert result.changed is None and "changed" not in result.rollouts().columns
    other = forecast(load(rough, settings), of(events, asked[0]), asked, replace(settings, seed=1), edits)
    assert not other.rollouts().equals(result.rollouts())  # negative control
    with pytest.raises(KeyError, match="lab"):
        result.events("lab")


def test_questions_without_a_history_are_counted(rough, world_meds, events):
    asked = few(world_meds, patients=4)
    early = asked.times.with_columns(prediction_time=pl.datetime(1900, 1, 1, time_unit="us"))
    asked = replace(asked, times=pl.concat([asked.times, early]))
    assert len(questions_in([asked, asked])) == 8
    result = forecast(load(rough, SMALL), of(events, asked), [asked], SMALL)
    assert (len(result.questions), result.without_history) == (4, 4)


def test_threads_that_share_a_model_get_what_each_gets_alone(rough, world_meds, events):
    """Eight threads, each with a patient of its own."""
    model = load(rough, SMALL)
    asked = [replace(few(world_meds), times=few(world_meds).times[p : p + 1]) for p in range(8)]

    def rolled_out(model, request):
        return forecast(model, of(events, request), [request], SMALL).rollouts()

    alone = [rolled_out(model, request) for request in asked]
    with SharedDecoding(model.extender) as shared, ThreadPoolExecutor(8) as pool:
        frames = list(pool.map(partial(rolled_out, replace(model, extender=shared)), asked))
    assert all(one.equals(other) for one, other in zip(frames, alone, strict=True))
    assert not frames[0].drop("subject_id").equals(frames[1].drop("subject_id"))


def test_other_processes_forecast_the_same(rough, world_meds, events):
    asked, model = few(world_meds, patients=5), load(rough, SMALL)
    tokenizer, _, window = load_words(rough)
    assert tokenizer.vocabulary.hash == model.tokenizer.vocabulary.hash and window.context == 64
    with EngineProcesses(partial(make_engine, rough, "fp32", True), 2) as processes:
        result = forecast(replace(model, extender=processes), of(events, asked), [asked], SMALL)
    assert result.rollouts().equals(forecast(model, of(events, asked), [asked], SMALL).rollouts())


def told_and_true(result, events):
    """The age band that each imagined event stands under, and that of its patient at its time; [N, 2]."""
    tokenizer, (pool,) = result.tokenizer, result.pools
    columns = Events.of(events)
    born = dict(zip(columns.patient[columns.starts].tolist(), births(columns).tolist(), strict=True))
    tokens = pool.rollouts.tokens
    moves = Ragged(TokenClock.of(tokenizer).moves_of(pool.prompts, pool.rollouts), tokens.offsets)
    at = result.questions["prediction_time"].to_physical().to_numpy()
    first, last = tokenizer.age_tokens[[0, -1]]
    out = []
    for row, prompt in enumerate(pool.rollouts.prompt):
        ids, clock = pool.prompts.ids[prompt], pool.prompts.clock[prompt]
        band = ids[(ids >= first) & (ids <= last)][-1] - first
        subject = result.questions["subject_id"][int(prompt)]
        for token, minutes in zip(tokens[row], moves[row], strict=True):
            clock += minutes
            band = token - first if first <= token <= last else band
            if tokenizer.place[token] in (0, 1):
                true = tokenizer.age_bands(np.array([born[subject]]), at[[prompt]] + clock * MINUTE)
                out.append((band, true[0]))
        assert clock == pool.rollouts.account["clock"][row]
    return np.array(out)


def test_imagined_ages_are_those_of_birth_and_clock(rough, world_meds, events):
    asked = replace(few(world_meds, patients=8), horizon_minutes=10**8)
    chosen = replace(SMALL, limit=200)
    result = forecast(load(rough, chosen), of(events, asked), [asked], chosen)
    told, true = told_and_true(result, events).T
    assert (told == true).all()
    assert np.isin(result.pools[0].rollouts.tokens.flat, result.tokenizer.age_tokens).sum() > 5
    free = replace(chosen, well_formed=False)
    told, true = told_and_true(forecast(load(rough, free), of(events, asked), [asked], free), events).T
    assert (told != true).mean() > 0.1  # planted: ages are sampled


def test_events_lie_where_the_tracker_counted(rough, world_meds, events):
    """Every future ends, in its events, at the minute of the clock that decided what counts."""
    asked = few(world_meds, patients=8)
    result = forecast(load(rough, SMALL), of(events, asked), [asked], SMALL)
    last = result.events().group_by("subject_id", "rollout").agg(pl.col("time").max())
    table = result.rollouts().join(last, on=["subject_id", "rollout"], validate="1:1")
    assert (table["end"] == table["time"]).all()


def test_a_loaded_model_is_kept_until_its_files_change(rough, tmp_path):
    assert load(rough, SMALL) is load(rough, SMALL)
    assert load(rough, replace(SMALL, well_formed=False)) is not load(rough, SMALL)
    with pytest.raises(InputError):
        load(tmp_path / "nothing", SMALL)


def test_progress_counts_questions(rough, world_meds, events):
    seen = []
    asked = [few(world_meds), few(world_meds, "lab", ("LAB//*",), (), 10**6)]
    settings = replace(SMALL, estimator="reach")
    forecast(
        load(rough, settings), of(events, asked[0]), asked, settings,
        progress=lambda done, total, **_: seen.append((done, total)),
    )  # fmt: skip
    assert seen == sorted(seen) and seen[-1] == pytest.approx((PATIENTS, PATIENTS))
    assert np.diff([done for done, _ in seen]).max() < PATIENTS


def test_a_model_that_does_not_know_when_a_record_is_over_is_refused_for_other_ends_than_death(
    rough, world_meds, events, tmp_path
):
    """Models of version 0.1 say nothing about it in their config.json."""
    old = tmp_path / "old"
    shutil.copytree(rough, old)
    config = json.loads((old / "config.json").read_text())
    assert config.pop("sequela_last_moments") is True
    (old / "config.json").write_text(json.dumps(config))
    asked = few(world_meds, patients=2)
    other = replace(asked, ends=("COHORT//ENTRY",))
    with pytest.raises(InputError, match=r"Task death: this model .* train it again"):
        forecast(load(old, SMALL), of(events, asked), [other], SMALL)
    for model, request in ((rough, other), (old, replace(asked, outcome=("LAB//*",), ends=("MEDS_DEATH",)))):
        assert len(forecast(load(model, SMALL), of(events, request), [request], SMALL).rollouts())
