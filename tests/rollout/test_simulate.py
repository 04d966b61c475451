import json
import shutil
from dataclasses import replace
from datetime import datetime, timedelta

import polars as pl
import pytest

from sequela.record.codes import DEATH, FOLLOW_UP_END
from sequela.record.columns import Columns
from sequela.record.errors import InputError
from sequela.record.store import read_events
from sequela.rollout.request import Request
from sequela.rollout.settings import SimulateSettings
from sequela.rollout.simulate import simulate
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


def imagined(folder):
    return pl.read_parquet(folder / "data" / "*.parquet")


def request(meds, outcome=(DEATH,), ends=(), split="held_out"):
    ids = read_events(meds, split)["subject_id"].unique().sort()
    times = pl.DataFrame({"subject_id": ids}).with_columns(prediction_time=pl.lit(AT).cast(pl.Datetime("us")))
    return Request("death", times, outcome, ends, WEEK)


def test_futures_are_written_from_the_prediction_time_on(world_meds, model, tmp_path):
    asked = request(world_meds)
    about = simulate(model, world_meds, tmp_path, [asked], SimulateSettings(rollouts=3))
    events = imagined(tmp_path)
    rollouts = pl.read_parquet(tmp_path / "rollouts.parquet")
    assert about["rollouts"] == len(rollouts) == 3 * about["histories"]
    assert (events["time"] >= events["prediction_time"]).all()
    assert set(rollouts["reason"]) <= {"end", "horizon", "limit"}
    maps = json.loads((tmp_path / "simulate.json").read_text())["maps"]
    assert (
        list(maps) == ["mimic-meds", "gem"] and load_same_maps(maps, tmp_path) == Tokenizer.load(model).maps
    )
    died = events.filter(pl.col("code") == DEATH).select("subject_id", "rollout")
    stopped = rollouts.filter(pl.col("reason") == "end").select("subject_id", "rollout")
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


def test_an_outcome_that_the_model_does_not_know_is_refused(world_meds, model, tmp_path):
    with pytest.raises(InputError, match="no token matches"):
        simulate(model, world_meds, tmp_path, [request(world_meds, outcome=("NO//SUCH",))])


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


def test_nobody_lives_on_after_death(world_meds, model, tmp_path):
    lab = Request("lab", request(world_meds).times, ("COHORT//ENTRY",), (), None)
    simulate(model, world_meds, tmp_path, [request(world_meds), lab], SimulateSettings(rollouts=3, limit=64))
    events = imagined(tmp_path).filter(pl.col("code") != FOLLOW_UP_END)
    key = ["subject_id", "prediction_time", "rollout"]
    last = events.group_by(key, maintain_order=True).agg(
        pl.col("code").last(), died=(pl.col("code") == DEATH).any()
    )
    assert last["died"].any()
    assert (last.filter("died")["code"] == DEATH).all()
