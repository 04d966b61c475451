"""Rollouts as MEDS on disk."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
from meds import DataSchema

from sequela.errors import InputError
from sequela.record.schema import FOLLOW_UP_END
from sequela.rollout.budget import AdaptiveBudget, FixedBudget
from sequela.rollout.clock.minutes import TokenClock
from sequela.rollout.engine.rollouts import REASONS, Prompts, Rollouts
from sequela.rollout.folder import (
    COUNTS,
    DATA,
    KEY,
    PARTS,
    SUMMARY,
    TABLE,
    SimulatedFolder,
    events_of,
    join_parts,
    part_folder,
    table_of,
    write_part,
    write_questions,
)  # fmt: skip
from sequela.rollout.request import Request
from sequela.tokens.ragged import Ragged
from tests.tokens.ehr.grammar.test_grammar import told

TOKENIZER, GRAMMAR = told([["ICD10CM//E1165", "LAB//A", "MEDS_DEATH"]])
INDEX = TOKENIZER.vocabulary.index
WEEK, HOURS = "TIME//1w-2w", "TIME//2h-6h"
AT = datetime(2001, 1, 1)


def minutes(*names):
    return int(sum(TOKENIZER.minutes_V[INDEX[name]] for name in names))


def times_of(*patients):
    frame = pl.DataFrame({"subject_id": list(patients), "prediction_time": [AT] * len(patients)})
    return frame.cast({"subject_id": pl.Int64, "prediction_time": pl.Datetime("us")})


def prompts_of(clock):
    count = len(clock)
    return Prompts(Ragged.of([[1]] * count), np.arange(count), clock=np.array(clock))


def told_events(times, prompts, rollouts):
    moves = TokenClock.constant(TOKENIZER.minutes_V).moves_of(prompts, rollouts)
    return events_of(TOKENIZER, times, prompts, rollouts, moves)


def rollouts_of(rows, outcomes=1, **fields):
    """Rollouts of (prompt, number, clock at the end, names of tokens)."""
    prompt, number, clock, names = zip(*rows, strict=True)
    count = len(rows)
    columns = {
        "reason": np.zeros(count, np.int8),
        "windows": np.zeros(count, np.int64),
        "clock": np.array(clock),
        "hazard": np.full((count, outcomes), 0.25, np.float32),
        "reached": np.full((count, outcomes), 0.125, np.float32),
        "happened": np.zeros((count, outcomes), np.int32),
        "watched": np.ones((count, outcomes), bool),
        "removed": np.zeros(count, np.float32),
    } | {name: np.array(value) for name, value in fields.items()}
    tokens = Ragged.of([[INDEX[name] for name in some] for some in names])
    reason, windows = columns.pop("reason"), columns.pop("windows")
    return Rollouts(np.array(prompt), np.array(number), tokens, reason, windows, columns)


def test_events_lie_on_the_engines_clock_and_end():
    names = [HOURS, "LAB//A", "Q//1", WEEK, "ICD10CM//1//E11", "ICD10CM//2//65"]
    rows = [(0, 0, minutes(HOURS, WEEK), names), (1, 2, minutes(WEEK), [WEEK]), (1, 0, 0, ["MEDS_DEATH"])]
    events = told_events( times_of(5, 7), prompts_of([0, 0]), rollouts_of(rows))
    assert events.columns == [
        "subject_id",
        "time",
        "code",
        "numeric_value",
        "prediction_time",
        "rollout",
    ]
    hours, week = timedelta(minutes=minutes(HOURS)), timedelta(minutes=minutes(WEEK))
    assert events.select("subject_id", "time", "code", "rollout").rows() == [
        (5, AT + hours, "LAB//A", 0),
        (5, AT + hours + week, "ICD10CM//E1165", 0),
        (5, AT + hours + week, FOLLOW_UP_END, 0),
        (7, AT + week, FOLLOW_UP_END, 2),
        (7, AT, "MEDS_DEATH", 0),
        (7, AT, FOLLOW_UP_END, 0),
    ]
    assert events["numeric_value"].is_null().to_list() == [False, True, True, True, True, True]
    assert (events["prediction_time"] == AT).all()


def test_a_first_interval_that_ends_before_now_is_now():
    """The prompt ends a week before now; the first new token says "some hours", which is known to be too short."""
    rows = [
        (0, 0, 0, [HOURS, "LAB//A"]),
        (0, 1, minutes(HOURS), [HOURS, "LAB//A", HOURS, "LAB//A"]),
        (0, 2, minutes(WEEK) - 10_000, [WEEK, "LAB//A"]),
    ]
    events = told_events( times_of(1), prompts_of([-10_000]), rollouts_of(rows))
    later = [0, 0, 0, minutes(HOURS), minutes(HOURS), minutes(WEEK) - 10_000, minutes(WEEK) - 10_000]
    assert events["time"].to_list() == [AT + timedelta(minutes=one) for one in later]


def test_a_row_a_rollout():
    rows = [(0, 0, 60, [WEEK]), (0, 1, 90, [WEEK, WEEK]), (1, 0, 0, [])]
    rollouts = rollouts_of(
        rows,
        outcomes=2,
        reason=np.array([REASONS.index(one) for one in ("limit", "horizon", "limit")], np.int8),
        watched=np.array([[True, False], [True, True], [False, True]]),
        windows=np.array([0, 3, 1]),
        removed=np.array([0.0, 0.5, 0.25], np.float32),
    )
    table = table_of(times_of(5, 7), prompts_of([0, 0]), rollouts, {"one": 0, "two": 1}, None)
    assert table.select("subject_id", "rollout", "tokens", "windows", "reason", "removed").rows() == [
        (5, 0, 1, 0, "limit", 0.0),
        (5, 1, 2, 3, "horizon", 0.5),
        (7, 0, 0, 1, "limit", 0.25),
    ]
    assert table["end"].to_list() == [AT + timedelta(minutes=one) for one in (60, 90, 0)]
    # Null where the limit came before the question was settled, and there alone
    assert table["scope//one"].to_list() == [None, 0.25, 0.25]
    assert table["scope//two"].to_list() == [0.25, 0.25, None]
    assert table["avoids"].to_list() == [None] * 3 and "reach//one" not in table.columns
    avoiding = table_of(times_of(5, 7), prompts_of([0, 0]), rollouts, {"one": 0}, "one")
    assert avoiding["reach//one"].to_list() == [None, 0.125, 0.125]
    assert avoiding["avoids"].to_list() == ["one"] * 3 and "scope//one" not in avoiding.columns
    # A pool that serves some requests only names the columns of those
    second = table_of(times_of(5, 7), prompts_of([0, 0]), rollouts, {"two": 1}, None)
    assert second["scope//two"].equals(table["scope//two"]) and "scope//one" not in second.columns
    # What nobody asked has no score
    asked = replace(prompts_of([0, 0]), watched=np.array([[True, True], [False, True]]))
    table = table_of(times_of(5, 7), asked, rollouts, {"one": 0, "two": 1}, None)
    assert table["scope//one"].to_list() == [None, 0.25, None]


def part(patients, numbers, avoids=None, name="death"):
    """One pool of a part: (avoids, events, table), `numbers` futures of each patient."""
    rows = [
        (place, number, minutes(HOURS), [HOURS, "LAB//A", "Q//1"])
        for place, _ in enumerate(patients)
        for number in range(numbers)
    ]
    rollouts = rollouts_of(rows)
    times = times_of(*patients)
    return (
        avoids,
        told_events( times, prompts_of([0] * len(patients)), rollouts),
        table_of(times, prompts_of([0] * len(patients)), rollouts, {name: 0}, avoids),
    )


def test_a_part_that_is_half_written_never_counts(tmp_path, monkeypatch):
    def fails(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("sequela.rollout.folder.json.dumps", fails)
    with pytest.raises(KeyboardInterrupt):
        write_part(part_folder(tmp_path, 3, 4), [part([1, 2], 2)], {})
    assert not part_folder(tmp_path, 3, 4).exists()
    monkeypatch.undo()
    write_part(part_folder(tmp_path, 3, 4), [part([1, 2], 2)], {"a": 1})  # over what was left of it
    assert [one.name for one in (tmp_path / PARTS).iterdir()] == ["000003-of-000004"]
    assert sorted(one.name for one in part_folder(tmp_path, 3, 4).iterdir()) == [DATA, COUNTS, TABLE]


def test_a_part_that_two_wrote_is_kept_once(tmp_path, monkeypatch):
    write_part(part_folder(tmp_path, 0, 1), [part([1, 2], 2)], {"who": "first"})
    before = {path: path.read_bytes() for path in part_folder(tmp_path, 0, 1).rglob("*.*") if path.is_file()}
    monkeypatch.setattr(os, "getpid", lambda: 4711)  # another process
    write_part(part_folder(tmp_path, 0, 1), [part([1, 2], 2)], {"who": "second"})
    assert [one.name for one in (tmp_path / PARTS).iterdir()] == ["000000-of-000001"]
    assert all(path.read_bytes() == held for path, held in before.items())
    assert join_parts(tmp_path, 1, []) == [{"who": "first"}]


def joined(folder):
    write_part(part_folder(folder, 0, 3), [part([1, 2], 3)], {"n": 2})
    write_part(part_folder(folder, 1, 3), [part([5], 3), part([5], 1, "death")], {"n": 1})
    write_part(part_folder(folder, 2, 3), [part([8, 9], 2), part([8, 9], 2, "death")], {"n": 2})
    return join_parts(folder, 3, ["death"])


def test_a_file_holds_one_future_of_every_question(tmp_path):
    assert joined(tmp_path) == [{"n": 2}, {"n": 1}, {"n": 2}]
    assert not (tmp_path / PARTS).exists()
    found = {str(path.relative_to(tmp_path)): pl.read_parquet(path) for path in tmp_path.rglob("*.parquet")}
    assert sorted(found) == [
        "avoiding/death/0000.parquet", "avoiding/death/0001.parquet", "data/0000.parquet",
        "data/0001.parquet", "data/0002.parquet", TABLE,
    ]  # fmt: skip
    of = {name: frame["subject_id"].unique().sort().to_list() for name, frame in found.items()}
    assert of["data/0000.parquet"] == of["data/0001.parquet"] == [1, 2, 5, 8, 9]
    assert of["data/0002.parquet"] == [1, 2, 5]  # as many as were asked for
    assert of["avoiding/death/0000.parquet"] == [5, 8, 9] and of["avoiding/death/0001.parquet"] == [8, 9]
    table = found.pop(TABLE)
    assert table.select(KEY).equals(table.select(KEY).unique(maintain_order=True)) is False  # two pools
    assert not table.select(*KEY, "avoids").is_duplicated().any() and len(table) == 3 * 3 + 2 * 2 + 1 + 4
    for name, frame in found.items():
        number = int(name[-12:-8])
        assert (frame["rollout"] == number).all()
        futures = frame.group_by(KEY, maintain_order=True).agg(pl.col("code").last(), pl.col("time"))
        assert (futures["code"] == FOLLOW_UP_END).all()  # each ends, so that it is known until then
        assert frame.filter(pl.col("code") == FOLLOW_UP_END).height == len(futures)
        assert frame.select("subject_id", "time").equals(
            frame.select("subject_id", "time").sort(pl.all(), maintain_order=True)
        )


def test_files_are_meds_and_fit_the_evaluation_of_trajectories(tmp_path):
    """MEDS-trajectory-evaluation reads one trajectory of each (subject_id, prediction_time) from a file."""
    joined(tmp_path)
    for path in (tmp_path / DATA).glob("*.parquet"):
        frame = pl.read_parquet(path)
        assert frame.schema["prediction_time"] == pl.Datetime("us")
        assert {"subject_id", "time", "code", "numeric_value", "prediction_time"} <= set(frame.columns)
        table = frame.drop("prediction_time", "rollout").to_arrow()
        DataSchema.validate(DataSchema.align(table))
        assert frame["time"].null_count() == 0 and (frame["time"] >= frame["prediction_time"]).all()
        assert (
            frame.group_by("subject_id", "prediction_time")
            .agg(pl.col("rollout").n_unique())["rollout"]
            .to_list()
            == [1] * frame.select("subject_id", "prediction_time").n_unique()
        )


def test_parts_without_futures_are_joined_too(tmp_path):
    """A plan may want none of a part's rollouts; the folder of data is there all the same."""
    empty = rollouts_of([(0, 0, 0, [WEEK])])
    nothing = Rollouts(
        empty.prompt[:0], empty.number[:0], Ragged.of([]), empty.reason[:0], empty.windows[:0],
        {name: x[:0] for name, x in empty.account.items()},
    )  # fmt: skip
    events = told_events( times_of(1), prompts_of([0]), nothing)
    table = table_of(times_of(1), prompts_of([0]), nothing, {"death": 0}, None)
    write_part(part_folder(tmp_path, 0, 1), [(None, events, table)], {"n": 0})
    assert join_parts(tmp_path, 1, []) == [{"n": 0}]
    assert (tmp_path / DATA).is_dir() and pl.read_parquet(tmp_path / TABLE).is_empty()


def test_facts_are_json(tmp_path):
    write_part(part_folder(tmp_path, 0, 1), [part([1], 1)], {"reasons": {"end": 1}})
    assert json.loads((part_folder(tmp_path, 0, 1) / COUNTS).read_text()) == {"reasons": {"end": 1}}


def requests_of(**patients):
    return [
        Request(name, times_of(*several), ("MEDS_DEATH",), (), None) for name, several in patients.items()
    ]


def test_a_folder_is_read_as_it_was_written(tmp_path):
    joined(tmp_path)
    write_questions(tmp_path, requests_of(death=(1, 2), stroke=(2, 5, 8)))
    folder = SimulatedFolder(tmp_path)
    assert folder.exists and folder.has_events and str(folder) == str(tmp_path)
    assert folder.rollouts().equals(pl.read_parquet(tmp_path / TABLE))
    assert folder.events(["subject_id", "rollout"], pl.col("rollout") == 2).equals(
        pl.read_parquet(tmp_path / DATA / "0002.parquet", columns=["subject_id", "rollout"])
    )
    assert folder.questions("stroke").equals(times_of(2, 5, 8)) and folder.questions("other") is None
    (tmp_path / SUMMARY).write_text(
        json.dumps(
            {
                "edits": {"add X": 3},
                "settings": {"estimator": "auto"},
                "plan": {"estimator": "mc", "target": 0.1},
            }
        )
    )
    assert folder.edits() == {"add X": 3} and folder.estimator() == "auto" and folder.maps() == ()
    assert folder.budget() == AdaptiveBudget("mc", target=0.1)


def test_folders_of_the_first_version_are_read_too(tmp_path):
    """They list no questions, and the oldest tell no cost and avoid nothing."""
    joined(tmp_path)
    old = pl.read_parquet(tmp_path / TABLE).drop("avoids", "tokens")
    old.write_parquet(tmp_path / TABLE)
    folder = SimulatedFolder(tmp_path)
    assert folder.rollouts()["avoids"].null_count() == len(old) == folder.rollouts()["tokens"].null_count()
    assert folder.questions("death") is None and folder.budget() == FixedBudget(1)
    assert (folder.edits(), folder.estimator(), folder.maps()) == ({}, None, ())


def test_broken_folders_are_refused(tmp_path):
    folder = SimulatedFolder(tmp_path)
    assert not folder.exists and not folder.has_events
    with pytest.raises(InputError, match=r"rollouts\.parquet is not there"):
        folder.rollouts()
    with pytest.raises(InputError, match="data holds no simulated events"):
        folder.events()
    joined(tmp_path)
    with pytest.raises(InputError, match=r"0000\.parquet cannot be read"):
        folder.events(["no_such_column"])
    (tmp_path / DATA / "0001.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(InputError, match=r"0001\.parquet cannot be read"):
        folder.events()
    pl.read_parquet(tmp_path / TABLE).drop("reason").write_parquet(tmp_path / TABLE)
    with pytest.raises(InputError, match="no column 'reason'"):
        folder.rollouts()


def test_a_folder_is_read_without_torch():
    code = "import sys, sequela.rollout.folder; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_futures_that_may_not_be_read_are_not_called_missing(tmp_path, locked):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/._0000.parquet").write_bytes(b"left behind")
    assert not SimulatedFolder(tmp_path).has_events
    with locked(tmp_path / "data"), pytest.raises(InputError, match="data cannot be opened"):
        _ = SimulatedFolder(tmp_path).has_events
