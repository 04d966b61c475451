import json
import shutil
import threading
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import torch

from sequela.errors import InputError
from sequela.model import checkpoint
from sequela.model.precision import has_bf16
from sequela.record.dataset import read_events
from sequela.record.edit import Edits
from sequela.record.events import Events
from sequela.record.schema import DEATH, FOLLOW_UP_END
from sequela.rollout import folder as folders
from sequela.rollout import forecast as forecasting
from sequela.rollout import parts as module
from sequela.rollout.budget import AdaptiveBudget
from sequela.rollout.folder import PARTS, part_folder
from sequela.rollout.parts import Execution, simulate
from sequela.rollout.request import Request
from sequela.rollout.settings import SimulateSettings
from sequela.tokens.ehr.fit import fit
from sequela.tokens.ehr.settings import TokenSettings
from sequela.tokens.ehr.tokenizer import EhrTokenizer
from sequela.tokens.maps.recode import load_same_maps
from sequela.tokens.vocabulary import Vocabulary
from sequela.training.loop import train
from sequela.training.settings import TrainSettings
from sequela.workers import Workers
from tests.rollout.test_prompts import small

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
        list(maps) == ["mimic-meds", "gem"]
        and load_same_maps(maps, tmp_path) == EhrTokenizer.load(model).maps
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
            model, world_meds, tmp_path / name, [few(world_meds)], SimulateSettings(rollouts=2, rows=rows)
        )
        frames.append(pl.read_parquet(tmp_path / name / "rollouts.parquet").drop("scope//death"))
    assert frames[0].equals(frames[1])


def test_another_model_in_the_same_folder_is_another_model(world_meds, model, tmp_path):
    """As after training again in one session: what was loaded before does not answer for it."""
    shutil.copytree(model, tmp_path / "model")
    frames = []
    for name in ("before", "same", "after"):
        if name == "after":
            other = checkpoint.load(tmp_path / "model").initialize(7)
            checkpoint.save(other, tmp_path / "model")
        (tmp_path / name).mkdir()
        simulate(
            tmp_path / "model",
            world_meds,
            tmp_path / name,
            [request(world_meds)],
            SimulateSettings(rollouts=1),
        )
        frames.append(pl.read_parquet(tmp_path / name / "rollouts.parquet"))
    assert frames[0].equals(frames[1]) and not frames[0].equals(frames[2])


def test_an_outcome_that_the_model_does_not_know_is_refused(world_meds, model, tmp_path):
    with pytest.raises(InputError, match="no token matches"):
        simulate(model, world_meds, tmp_path, [request(world_meds, outcome=("NO//SUCH",))])


@pytest.mark.parametrize("same_size", [False, True])
def test_a_model_with_another_vocabulary_is_refused(world_meds, model, tmp_path, same_size):
    shutil.copytree(model, tmp_path / "mixed")
    events, _ = small()
    other = fit(Events.of(events), TokenSettings(min_patients=1))
    if same_size:
        ours = EhrTokenizer.load(model)
        other = replace(ours, vocabulary=Vocabulary((*ours.vocabulary.tokens[:-1], "SOMETHING//ELSE")))
    other.save(tmp_path / "mixed")
    with pytest.raises(InputError, match="different runs"):
        simulate(tmp_path / "mixed", world_meds, tmp_path, [request(world_meds)])


def test_nobody_lives_on_after_death(world_meds, model, tmp_path):
    lab = Request("lab", request(world_meds).times, ("COHORT//ENTRY",), (), None)
    simulate(model, world_meds, tmp_path, [request(world_meds), lab], SimulateSettings(rollouts=2, limit=64))
    events = imagined(tmp_path).filter(pl.col("code") != FOLLOW_UP_END)
    key = ["subject_id", "prediction_time", "rollout"]
    last = events.group_by(key, maintain_order=True).agg(
        pl.col("code").last(), died=(pl.col("code") == DEATH).any()
    )
    assert last["died"].any()
    assert (last.filter("died")["code"] == DEATH).all()


# What follows needs no model that has learned much


@pytest.fixture
def parts_of_five(monkeypatch):
    monkeypatch.setattr(module, "PATIENTS", (5, 5))


PATIENTS = 23  # in five parts


def few(meds, name="death", outcome=(DEATH,), ends=(), minutes=WEEK, counted="first", patients=PATIENTS):
    return replace(
        request(meds, outcome, ends),
        name=name,
        times=request(meds).times.head(patients),
        horizon_minutes=minutes,
        counted=counted,
    )


SMALL = SimulateSettings(rollouts=3, limit=20)


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


class Cut(Exception):
    pass


@pytest.fixture
def whole(rough, world_meds, tmp_path, parts_of_five):
    """A simulation by one process: what every other one must come to, and its requests."""
    asked = [few(world_meds), few(world_meds, "lab", ("LAB//*",), (DEATH,), None, "all")]
    simulate(rough, world_meds, tmp_path / "whole", asked, SMALL)
    return tmp_path / "whole", asked


def test_a_simulation_that_was_cut_short_goes_on(rough, world_meds, tmp_path, monkeypatch, whole):
    """Parts are kept; those that were lost or half-written are made again; every file is the same."""
    folder, asked = whole
    out, make = tmp_path / "out", module.make_part

    def until(part, *, last, **options):
        if part.number > last:
            raise Cut
        make(part, **options)

    for last in (2, 3):
        monkeypatch.setattr(module, "make_part", partial(until, last=last))
        with pytest.raises(Cut):
            simulate(rough, world_meds, out, asked, SMALL)
        assert not (out / "simulate.json").exists()
    assert [part_folder(out, n, 5).exists() for n in range(5)] == [True, True, True, True, False]
    shutil.rmtree(part_folder(out, 1, 5))
    (out / PARTS / ".000002-1" / "data").mkdir(parents=True)
    monkeypatch.setattr(module, "make_part", make)
    made, ask = [], forecasting.prompts_of
    monkeypatch.setattr(
        forecasting, "prompts_of", lambda *arguments: (made.append(len(arguments[3])), ask(*arguments))[1]
    )
    simulate(rough, world_meds, out, asked, SMALL)
    assert made == [5, 4]  # patients of the parts that were not there
    assert files(out) == files(folder) and "rollouts.parquet" in files(out)
    simulate(rough, world_meds, tmp_path / "other", asked, replace(SMALL, seed=1))  # negative control
    assert files(tmp_path / "other") != files(folder)


class Ranks:
    """One of several processes, here threads."""

    def __init__(self, rank, size, barrier):
        self.rank, self.size, self.barrier = rank, size, barrier

    def sum(self, *numbers):
        self.barrier.wait(timeout=60)
        return list(numbers)


def test_ranks_make_the_same_files(rough, world_meds, tmp_path, whole, monkeypatch):
    folder, asked = whole
    out, answers, made = tmp_path / "out", {}, []
    make = module.make_part

    def noted(part, **options):
        made.append((threading.current_thread().name, part.number))
        make(part, **options)

    monkeypatch.setattr(module, "make_part", noted)
    barrier = threading.Barrier(2)

    def work(rank):
        execution = Execution(ranks=Ranks(rank, 2, barrier))
        answers[rank] = simulate(rough, world_meds, out, asked, SMALL, execution=execution)

    threads = [threading.Thread(target=work, args=(rank,), name=str(rank), daemon=True) for rank in range(2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(timeout=120)
    assert sorted(made) == [("0", 0), ("0", 2), ("0", 4), ("1", 1), ("1", 3)]
    assert answers[1] == {} and answers[0]["histories"] == PATIENTS
    assert files(out) == files(folder)


@pytest.mark.parametrize("estimator", ["scope", "reach"])
def test_parts_of_any_size_make_the_same_files(rough, world_meds, tmp_path, monkeypatch, estimator):
    """On Ray a cohort is cut into other parts than on one machine."""
    monkeypatch.setattr(folders, "ROWS", 50)  # so that there are several row groups
    asked, settings = [few(world_meds), few(world_meds, "lab", ("LAB//*",))], replace(SMALL, estimator=estimator)
    for size in (3, 11, 100):
        monkeypatch.setattr(module, "PATIENTS", (size, size))
        simulate(rough, world_meds, tmp_path / str(size), asked, settings)
    assert files(tmp_path / "3") == files(tmp_path / "11") == files(tmp_path / "100")
    table = pq.ParquetFile(tmp_path / "3/rollouts.parquet").metadata
    assert table.num_row_groups > 1 and table.row_group(0).num_rows == 50


@pytest.mark.parametrize("estimator", ["scope", "reach"])
def test_processes_make_the_same_files(rough, world_meds, tmp_path, parts_of_five, estimator):
    """Of as many parts, and with progress as from one process."""
    asked, settings = [few(world_meds)], replace(SMALL, estimator=estimator)
    told = {}
    for count in (1, 2):
        told[count] = []
        execution = Execution(
            Workers(processes=count),
            progress=lambda done, total, count=count, **_: told[count].append((done, total)),
        )
        simulate(rough, world_meds, tmp_path / str(count), asked, settings, execution=execution)
    assert files(tmp_path / "2") == files(tmp_path / "1")
    assert told[2] == sorted(told[2]) and told[2][-1] == told[1][-1] == (PATIENTS, PATIENTS)


@pytest.mark.parametrize(("rollouts", "threads", "expected"), [(400, 2, 2), (400, 1, 0), (3, 2, 0)])
def test_a_process_must_be_worth_its_start(
    rough, world_meds, tmp_path, monkeypatch, rollouts, threads, expected
):
    class Stop(Exception):
        pass

    def started(make, count):
        started.count = count
        raise Stop

    started.count = 0
    monkeypatch.setattr(module, "EngineProcesses", started)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    settings, asked = replace(SMALL, rollouts=rollouts, limit=1), [few(world_meds, patients=2)]
    with pytest.raises(Stop) if expected else nullcontext():
        simulate(rough, world_meds, tmp_path / "out", asked, settings)
    assert started.count == expected


@pytest.mark.slow
def test_a_cluster_makes_the_same_files(rough, world_meds, tmp_path, whole):
    pytest.importorskip("ray", reason="ray is not installed: pip install 'sequela[ray]'")
    folder, asked = whole
    simulate(
        rough, world_meds, tmp_path / "out", asked, SMALL, execution=Execution(Workers("ray", processes=2))
    )
    assert files(tmp_path / "out") == files(folder)


def test_progress_goes_from_nothing_to_everything(rough, world_meds, tmp_path, parts_of_five):
    told = []
    simulate(
        rough, world_meds, tmp_path / "out", [few(world_meds)], SMALL,
        execution=Execution(progress=lambda done, total, **_: told.append((done, total))),
    )  # fmt: skip
    assert told == sorted(told) and told[-1] == (PATIENTS, PATIENTS) and {total for _, total in told} == {23}


def test_progress_never_goes_back(rough, world_meds, tmp_path, parts_of_five):
    """Over parts, and the pools of each; tokens are those of all."""
    told = []
    asked = [few(world_meds), few(world_meds, "lab", ("LAB//*",), (), 10**6)]
    about = simulate(
        rough, world_meds, tmp_path / "out", asked, replace(SMALL, estimator="reach"),
        execution=Execution(progress=lambda done, total, tokens: told.append((done / total, tokens))),
    )  # fmt: skip
    shares, tokens = zip(*told, strict=True)
    assert list(shares) == sorted(shares) and shares[-1] == pytest.approx(1)
    assert list(tokens) == sorted(tokens) and tokens[-1] == about["tokens"] > 0


def test_reach_makes_a_pool_for_each_question_that_avoids_it(rough, world_meds, tmp_path):
    asked = [
        few(world_meds),
        few(world_meds, "lab", ("LAB//*",), (), 10**6),
        few(world_meds, "labs", ("LAB//*",), (), 10**6, "all"),
    ]
    settings = replace(SMALL, estimator="reach", limit=40)
    about = simulate(rough, world_meds, tmp_path / "out", asked, settings)
    table = pl.read_parquet(tmp_path / "out" / "rollouts.parquet")
    assert table["avoids"].value_counts().sort("avoids").rows() == [(None, 69), ("death", 69), ("lab", 69)]
    for name in ("death", "lab"):
        own = table.filter(pl.col("avoids") == name)[f"reach//{name}"]
        assert own.drop_nulls().is_between(0, 1).all() and own.max() > 0
        assert table.filter(pl.col("avoids").ne_missing(name))[f"reach//{name}"].is_null().all()
    assert "scope//labs" in table.columns and "scope//death" not in table.columns
    events = {
        name: pl.read_parquet(tmp_path / "out" / where / "*.parquet")
        for name, where in (("", "data"), ("death", "avoiding/death"), ("lab", "avoiding/lab"))
    }
    within = pl.col("time") <= pl.col("prediction_time") + pl.duration(minutes=WEEK)
    codes = {name: set(frame.filter(within)["code"]) for name, frame in events.items()}
    assert DEATH not in codes["death"] and "LAB//CREATININE" in codes["death"]
    assert "LAB//CREATININE" not in codes["lab"] and DEATH in codes["lab"]
    assert {DEATH, "LAB//CREATININE"} <= codes[""]  # negative control
    assert set(about["avoiding"]) == {"death", "lab"} and about["rollouts"] == 3 * 69


def as_planned(plan, table, score):
    """Whether the scores on disk lead the plan to the very rollouts that are there."""
    for _, own in table.sort("rollout").group_by("subject_id"):
        numbers, scores = own["rollout"].to_numpy(), own[score].fill_null(np.nan).to_numpy()
        first = numbers < 2 * plan.pilot
        more = plan.more(0, numbers[first], scores[first, None].astype(np.float64))
        if sorted(more) != numbers[~first].tolist():
            return False
    return True


def test_auto_spends_rollouts_where_they_matter(rough, world_meds, tmp_path):
    settings = SimulateSettings(estimator="auto", rollouts=24, limit=12, target_error=0.05)
    about = simulate(rough, world_meds, tmp_path / "one", [few(world_meds)], settings)
    plan = AdaptiveBudget(**json.loads((tmp_path / "one" / "simulate.json").read_text())["plan"])
    assert plan == AdaptiveBudget("reach", 0.05, None, pilot=8, cap=24) and about["rollouts"] < 24 * PATIENTS
    table = pl.read_parquet(tmp_path / "one" / "rollouts.parquet")
    spent = table.group_by("subject_id").len()["len"]
    assert spent.min() >= 16 and spent.max() <= 24 and spent.n_unique() > 1
    assert (table["avoids"] == "death").all() and about["rollouts"] == spent.sum()
    assert as_planned(plan, table, "reach//death")
    two = [few(world_meds), few(world_meds, "lab", ("LAB//*",), (), 10**6)]
    about = simulate(rough, world_meds, tmp_path / "two", two, replace(settings, threshold=0.5))
    assert about["plan"]["estimator"] == "scope" and about["plan"]["threshold"] == 0.5
    assert pl.read_parquet(tmp_path / "two" / "rollouts.parquet")["avoids"].is_null().all()
    counted = [few(world_meds, counted="all")]
    about = simulate(rough, world_meds, tmp_path / "three", counted, replace(settings, rollouts=4))
    assert about["plan"] is None and about["rollouts"] == 4 * PATIENTS
    assert simulate(rough, world_meds, tmp_path / "four", two, SMALL)["plan"] is None


def test_auto_decides_on_what_is_settled_by_the_first_event_alone(rough, world_meds, tmp_path):
    """Wherever it stands among what is only counted."""
    settings = SimulateSettings(estimator="auto", rollouts=24, limit=12, target_error=0.05)
    death, labs = few(world_meds), few(world_meds, "labs", ("LAB//*",), (), 10**6, "all")
    spent, plan = [], AdaptiveBudget("scope", 0.05, None, pilot=8, cap=24)
    for number, asked in enumerate([[death, labs], [labs, death], [death, replace(labs, counted="first")]]):
        simulate(rough, world_meds, tmp_path / str(number), asked, settings)
        table = pl.read_parquet(tmp_path / str(number) / "rollouts.parquet")
        spent.append(table.group_by("subject_id").len().sort("subject_id")["len"].to_list())
        assert as_planned(plan, table, "scope//death") == (number < 2)  # the last one: a negative control
    assert spent[0] == spent[1] and len(set(spent[0])) > 1


def test_a_question_is_answered_alike_whatever_is_asked_beside_it(rough, world_meds, tmp_path):
    """Also where the other one watches nothing, because a rule over several events decides it."""
    death = few(world_meds, minutes=10**6)
    beside = [
        few(world_meds, "other", ("LAB//*",), (), 10**6, counted) for counted in ("none", "all", "first")
    ]
    scores = []
    settings = replace(SMALL, limit=40)
    for number, asked in enumerate([[death], *([one, death] for one in beside), [death, beside[0]]]):
        simulate(rough, world_meds, tmp_path / str(number), asked, settings)
        table = pl.read_parquet(tmp_path / str(number) / "rollouts.parquet").sort("subject_id", "rollout")
        scores.append(table["scope//death"])
    # Alone a future ends when it is settled, which changes nothing of the score
    decided = pl.DataFrame({str(n): one for n, one in enumerate(scores)}).drop_nulls()
    assert len(decided) > 40 and decided["0"].n_unique() > 10
    for name in decided.columns[1:]:
        np.testing.assert_allclose(decided[name], decided["0"], rtol=1e-5, err_msg=name)


def test_the_grammar_keeps_futures_well_formed(rough_two_tokens, world_meds, tmp_path):
    """Codes and values apart, so that there are events of several tokens."""
    told, asked = {}, [few(world_meds, minutes=None)]
    for on in (True, False):
        settings = replace(SMALL, well_formed=on, limit=60)
        told[on] = simulate(rough_two_tokens, world_meds, tmp_path / str(on), asked, settings)
        table = pl.read_parquet(tmp_path / str(on) / "rollouts.parquet")
        removed = table["removed"].cast(pl.Float64).sum() / table["tokens"].sum()
        assert told[on]["probability_removed"] == pytest.approx(removed, rel=1e-4)
        assert told[on]["tokens"] == table["tokens"].sum()
    assert told[True]["tokens_that_break_the_grammar"] == told[True]["invalid_events_of_several_tokens"] == 0
    assert told[True]["events_of_several_tokens"] > 10 and 0.1 < told[True]["probability_removed"] < 1
    assert told[False]["tokens_that_break_the_grammar"] > 20 and told[False]["probability_removed"] == 0
    assert told[False]["invalid_events_of_several_tokens"] > 20


def test_futures_longer_than_the_context(rough, world_meds, tmp_path):
    """The window slides twice and more; what is written is whole."""
    forever = few(world_meds, "birth", ("COHORT//ENTRY",), (), None, "all", patients=6)
    about = simulate(rough, world_meds, tmp_path / "out", [forever], replace(SMALL, limit=150, rollouts=12))
    table = pl.read_parquet(tmp_path / "out" / "rollouts.parquet")
    assert table["windows"].max() >= 2 and about["windows"] == table["windows"].sum()
    assert table["tokens"].max() > 2 * 64 and about["tokens_that_break_the_grammar"] == 0
    once = simulate(rough, world_meds, tmp_path / "once", [forever], replace(SMALL, limit=20, rollouts=12))
    assert once["windows"] == 0
    events = pl.read_parquet(tmp_path / "out" / "data" / "0000.parquet")
    assert events.select("subject_id", "time").equals(
        events.select("subject_id", "time").sort(pl.all(), maintain_order=True)
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_both_precisions_run(rough, world_meds, tmp_path, precision):
    if precision == "bf16" and not has_bf16("cpu"):
        with pytest.raises(InputError, match="no bf16"):
            simulate(rough, world_meds, tmp_path, [few(world_meds)], replace(SMALL, precision=precision))
        return
    about = simulate(rough, world_meds, tmp_path, [few(world_meds)], replace(SMALL, precision=precision))
    assert about["rollouts"] == 3 * PATIENTS and about["settings"]["precision"] == precision


def test_a_cohort_without_histories_is_refused(rough, world_meds, tmp_path):
    early = few(world_meds)
    early = replace(
        early, times=early.times.with_columns(prediction_time=pl.datetime(1900, 1, 1, time_unit="us"))
    )
    with pytest.raises(InputError, match="No history has an event before"):
        simulate(rough, world_meds, tmp_path, [early], SMALL)


def test_parts_are_whole_patients_in_order(rough, world_meds, tmp_path, parts_of_five):
    asked = few(world_meds)
    twice = replace(
        asked,
        times=pl.concat(
            [asked.times, asked.times.with_columns(pl.col("prediction_time").dt.offset_by("1d"))]
        ),
    )
    parts = module._parts(rough, world_meds, tmp_path, [twice, few(world_meds, "lab", patients=3)], SMALL, 0)
    assert [(part.number, part.count) for part in parts] == [
        (number, len(parts)) for number in range(len(parts))
    ]
    patients = [part.questions["subject_id"].unique().sort().to_list() for part in parts]
    assert [one for some in patients for one in some] == sorted(asked.times["subject_id"])
    assert max(map(len, patients)) == 5
    assert all(len(part.questions) == 2 * len(own) for part, own in zip(parts, patients, strict=True))
    assert sum(len(part.requests[1].times) for part in parts) == 3


@pytest.mark.parametrize(("rollouts", "expected"), [(0, 5), (15, 5), (30, 10), (1000, 20)])
def test_parts_have_rollouts_enough(rough, world_meds, tmp_path, monkeypatch, rollouts, expected):
    """Those of a cohort cut in another way lie elsewhere: none of them is taken for one of these."""
    monkeypatch.setattr(module, "PATIENTS", (5, 20))
    parts = module._parts(rough, world_meds, tmp_path, [few(world_meds)], SMALL, rollouts)
    assert expected / 2 < max(len(part.questions) for part in parts) <= expected
    others = module._parts(rough, world_meds, tmp_path, [few(world_meds)], SMALL, 45)
    assert len(parts) == len(others) or not {part.folder for part in parts} & {part.folder for part in others}


def test_edits_that_concern_nobody_leave_every_byte_and_others_are_counted(world_meds, model, tmp_path):
    asked, few = request(world_meds), SimulateSettings(rollouts=2)
    found = {}
    for name, words in {
        "plain": {},
        "nobody": {"remove": ["RACE//WHITE"]},
        "high": {"set": ["LAB//CREATININE = 1.9"]},
    }.items():
        (tmp_path / name).mkdir()
        edits = Edits.parse(**words)
        found[name] = simulate(model, world_meds, tmp_path / name, [asked], few, edits=edits)
    plain, nobody, high = (tmp_path / name for name in found)
    for file in (plain / "data").iterdir():
        assert file.read_bytes() == (nobody / "data" / file.name).read_bytes()
    tables = [pl.read_parquet(folder / "rollouts.parquet") for folder in (plain, nobody, high)]
    assert tables[1].drop("changed").equals(tables[0]) and not tables[1]["changed"].any()
    assert (tables[2]["scope//death"] != tables[0]["scope//death"]).any()
    assert "edits" not in found["plain"] and found["nobody"]["edits"] == {"remove RACE//WHITE": 0}
    same = tables[2].filter(~pl.col("changed")).drop("changed")
    assert 0 < len(same) < len(tables[2]) and same.equals(
        tables[0].join(same, on=same.columns[:3], how="semi")
    )
    assert found["high"]["changed"] == tables[2].filter("changed")["subject_id"].n_unique()
    assert found["high"]["edits"] == {"set LAB//CREATININE = 1.9": found["high"]["histories"]}


def test_an_edit_that_cannot_be_made_is_refused_before_anything_is_simulated(world_meds, model, tmp_path):
    for words, complaint in (
        ({"add": ["LAB//KREATININ = 1 @ 1 hour"]}, "near it: LAB//CREATININE"),
        ({"add": ["COHORT//ENTRY @ 1 year"]}, "start later"),
    ):
        with pytest.raises(InputError, match=complaint):
            simulate(model, world_meds, tmp_path, [request(world_meds)], edits=Edits.parse(**words))
    assert list(tmp_path.iterdir()) == []
