import json
import shutil
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

from sequela.record.codes import DEATH
from sequela.record.columns import Columns
from sequela.record.errors import InputError
from sequela.record.store import read_events
from sequela.rollout.request import Request
from sequela.rollout.settings import SimulateSettings
from sequela.rollout.simulate import prompts_of, simulate
from sequela.tokens.recode import load_same_maps
from sequela.tokens.settings import TokenSettings
from sequela.tokens.tokenize import fit
from sequela.tokens.tokenizer import Tokenizer
from sequela.tokens.vocabulary import Vocabulary
from sequela.train.loop import train
from sequela.train.settings import TrainSettings

AT = datetime(2000, 1, 5)
WEEK = 7 * 1440


@pytest.fixture(scope="module")
def model(world_corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("model")
    train(world_corpus, out, TrainSettings(depth=1, context=512, batch_tokens=2048, epochs=1))
    return out


def request(meds, outcome=(DEATH,), ends=(), split="held_out"):
    ids = read_events(meds, split)["subject_id"].unique().sort()
    times = pl.DataFrame({"subject_id": ids}).with_columns(prediction_time=pl.lit(AT).cast(pl.Datetime("us")))
    return Request("death", times, outcome, ends, WEEK)


def test_futures_are_written_from_the_prediction_time_on(world_meds, model, tmp_path):
    asked = request(world_meds)
    about = simulate(model, world_meds, tmp_path, [asked], SimulateSettings(rollouts=3))
    events = pl.read_parquet(tmp_path / "data" / "0.parquet")
    rollouts = pl.read_parquet(tmp_path / "rollouts.parquet")
    assert about["rollouts"] == len(rollouts) == 3 * about["histories"]
    assert (events["time"] >= events["prediction_time"]).all()
    assert set(rollouts["reason"]) <= {"token", "horizon", "limit"}
    maps = json.loads((tmp_path / "simulate.json").read_text())["maps"]
    assert (
        list(maps) == ["mimic-meds", "gem"] and load_same_maps(maps, tmp_path) == Tokenizer.load(model).maps
    )
    died = events.filter(pl.col("code") == DEATH).select("subject_id", "rollout")
    stopped = rollouts.filter(pl.col("reason") == "token").select("subject_id", "rollout")
    assert died.sort(pl.all()).equals(stopped.sort(pl.all()))
    passed = rollouts.filter(pl.col("reason") == "horizon")
    assert (passed["end"] > AT + timedelta(minutes=WEEK)).all()
    assert rollouts["scope//death"].is_between(0, 2).all()


def test_a_simulation_repeats(world_meds, model, tmp_path):
    frames = []
    for name, rows in (("a", 1024), ("b", 10)):
        (tmp_path / name).mkdir()
        simulate(
            model, world_meds, tmp_path / name, [request(world_meds)], SimulateSettings(rollouts=2, rows=rows)
        )
        frames.append(pl.read_parquet(tmp_path / name / "rollouts.parquet").drop("scope//death"))
    assert frames[0].equals(frames[1])


def small():
    day = lambda n, minutes=0: datetime(2000, 1, 1) + timedelta(days=n, minutes=minutes)  # noqa: E731
    rows = [
        (1, day(0), "LAB//A"),
        (1, day(2), "LAB//B"),
        (1, day(9), "LAB//C"),
        (2, day(1), "LAB//A"),
        (3, day(8), "LAB//A"),
    ]
    events = pl.DataFrame(
        rows, schema={"subject_id": pl.Int64, "time": pl.Datetime("us"), "code": pl.String}, orient="row"
    )
    return events.with_columns(numeric_value=pl.lit(None, pl.Float32)), day


def test_nothing_at_or_after_the_prediction_time_is_in_a_prompt():
    events, day = small()
    tokenizer = fit(Columns.of(events), TokenSettings(min_patients=1))
    index = tokenizer.vocabulary.index
    times = pl.DataFrame({"subject_id": [1, 1, 3], "prediction_time": [day(2), day(2, 1), day(5)]}).cast(
        {"prediction_time": pl.Datetime("us")}
    )
    kept, prompts = prompts_of(tokenizer, events, times, 100)
    assert kept["prediction_time"].to_list() == [day(2), day(2, 1)]  # patient 3 has no history by then
    assert index["LAB//B"] not in prompts.ids[0] and index["LAB//B"] in prompts.ids[1]
    assert index["LAB//C"] not in prompts.ids.flat
    assert prompts.clock.tolist() == [-2 * 1440, -1]


def test_the_first_gap_carries_the_clock_to_the_prediction_time():
    events, day = small()
    tokenizer = fit(Columns.of(events), TokenSettings(min_patients=1))
    names = tokenizer.vocabulary.tokens
    times = pl.DataFrame({"subject_id": [2, 2, 2], "prediction_time": [day(1, 0), day(3), day(400)]})
    times = times.with_columns(pl.col("prediction_time").cast(pl.Datetime("us")))
    _, prompts = prompts_of(tokenizer, events, times.tail(2), 100)
    allowed = [{names[i] for i in np.flatnonzero(row)} for row in prompts.first]
    assert "TIME//1d-3d" in allowed[0] and "TIME//12h-1d" not in allowed[0] and "LAB//A" not in allowed[0]
    # 399 days: two whole half-years are in the prompt, the rest of 39 days waits.
    assert [names[i] for i in prompts.ids[1][-2:]] == ["TIME//6mo"] * 2
    assert (
        prompts.clock[1] == -39 * 1440 and "TIME//1mo-6mo" in allowed[1] and "TIME//2w-1mo" not in allowed[1]
    )
    with pytest.raises(InputError, match="No history"):
        prompts_of(tokenizer, events, times.head(1), 100)


@pytest.mark.parametrize(
    ("code", "word"), [("NO//SUCH", "no token matches"), ("ICD10CM//I214", "more than one token")]
)
def test_an_outcome_without_a_token_of_its_own_is_refused(world_meds, model, tmp_path, code, word):
    with pytest.raises(InputError, match=word):
        simulate(model, world_meds, tmp_path, [request(world_meds, outcome=(code,))])


@pytest.mark.parametrize("same_size", [False, True])
def test_a_model_with_another_vocabulary_is_refused(world_meds, model, tmp_path, same_size):
    shutil.copytree(model, tmp_path / "mixed")
    events, _ = small()
    other = fit(Columns.of(events), TokenSettings(min_patients=1))
    if same_size:
        ours = Tokenizer.load(model)
        other = replace(ours, vocabulary=Vocabulary((*ours.vocabulary.tokens[:-1], "SOMETHING//ELSE")))
    other.save(tmp_path / "mixed")
    with pytest.raises(InputError, match="different runs"):
        simulate(tmp_path / "mixed", world_meds, tmp_path, [request(world_meds)])


def test_a_limit_that_leaves_no_room_for_the_history_is_refused(world_meds, model, tmp_path):
    with pytest.raises(InputError, match="lower the limit"):
        simulate(model, world_meds, tmp_path, [request(world_meds)], SimulateSettings(limit=500))


def test_nobody_lives_on_after_death(world_meds, model, tmp_path):
    lab = Request("lab", request(world_meds).times, ("COHORT//ENTRY",), (), None)
    simulate(model, world_meds, tmp_path, [request(world_meds), lab], SimulateSettings(rollouts=3, limit=64))
    events = pl.read_parquet(tmp_path / "data" / "0.parquet")
    key = ["subject_id", "prediction_time", "rollout"]
    last = events.group_by(key, maintain_order=True).agg(
        pl.col("code").last(), died=(pl.col("code") == DEATH).any()
    )
    assert last["died"].any()
    assert (last.filter("died")["code"] == DEATH).all()
