"""Vectors of many times in one pass, against a pass for each history."""

from datetime import datetime

import numpy as np
import polars as pl
import pytest
import torch

import sequela
from sequela.errors import InputError
from sequela.model import checkpoint
from sequela.model.states import StateTokens
from sequela.record.dataset import read_events, write_dataset
from sequela.record.questions import write_questions
from sequela.rollout.embeddings.embedder import Embedder
from sequela.rollout.embeddings.folder import read_embeddings
from sequela.rollout.embeddings.settings import POOLINGS, EmbedSettings
from sequela.rollout.prompts import known_before
from sequela.tokens.text.serialize import serialize
from sequela.tokens.text.settings import TextSettings
from tests.tokens.text.language_model import as_published, language_model


@pytest.fixture(scope="module")
def model(rough, tmp_path_factory):
    """A model with random weights and state tokens."""
    folder = tmp_path_factory.mktemp("states") / "model"
    folder.mkdir()
    for path in rough.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    tokens = StateTokens(32).initialize(torch.Generator().manual_seed(0))
    tokens.table.data *= 30
    tokens.save(folder)
    return folder


@pytest.fixture(scope="module")
def cohort(world_meds):
    """Events of some patients, and five questions about each."""
    events = read_events(world_meds, "held_out")
    events = events.filter(pl.col("subject_id").is_in(events["subject_id"].unique().sort().head(12).implode()))
    dated = events.drop_nulls("time").select("subject_id", prediction_time="time").unique(maintain_order=True)
    number = pl.int_range(pl.len()).over("subject_id")
    some = dated.filter(number % 4 == 3).group_by("subject_id", maintain_order=True).head(5)
    later = some.with_columns(pl.col("prediction_time") + pl.duration(minutes=pl.int_range(pl.len()) * 7))
    return events, later.sort("subject_id", "prediction_time")


@pytest.mark.parametrize("pooling", ["state", "last", "mean"])
def test_one_pass_gives_what_single_passes_give(model, cohort, pooling):
    events, questions = cohort
    embedder = Embedder.load(model, EmbedSettings(pooling))
    known, vectors = embedder.vectors(events, questions)
    assert 25 < len(known) == len(vectors) <= len(questions) and vectors.std(0).min() > 0.01
    for number in range(0, len(known), 3):
        alone, vector = embedder.vectors(events, known[number : number + 1])
        assert len(alone) == 1
        np.testing.assert_allclose(vectors[number], vector[0], atol=1e-4)
    other = embedder.vectors(events, known[:1])[1]
    assert np.abs(vectors[1:] - other).max() > 0.1  # negative control: they differ


def test_nothing_at_or_after_the_time_moves_a_vector(model, cohort):
    events, questions = cohort
    embedder = Embedder.load(model)
    known, vectors = embedder.vectors(events, questions)
    first = known.group_by("subject_id", maintain_order=True).first()
    past = events.join(first, on="subject_id").filter(
        pl.col("time").is_null() | (pl.col("time") < pl.col("prediction_time"))
    )
    again, same = embedder.vectors(past.drop("prediction_time"), first)
    assert again.equals(first)
    rows = known.with_row_index().join(first, on=["subject_id", "prediction_time"])["index"].to_numpy()
    np.testing.assert_allclose(vectors[rows], same, atol=1e-4)
    last = pl.col("time").rank("dense", descending=True).over("subject_id") == 1  # negative control
    fewer, others = embedder.vectors(past.filter(~last.fill_null(False)).drop("prediction_time"), first)
    both = again.with_row_index().join(fewer, on=["subject_id", "prediction_time"])["index"].to_numpy()
    assert np.abs(others - same[both]).max() > 0.1


def test_poolings_are_what_they_say(model, cohort):
    events, questions = cohort
    found = {name: Embedder.load(model, EmbedSettings(name)).vectors(events, questions)[1] for name in POOLINGS}
    np.testing.assert_allclose(found["moment"], found["last"], atol=1e-5)  # moments of this world hold one event
    assert all(np.abs(found[name] - found["last"]).max() > 0.05 for name in ("state", "mean"))
    assert Embedder.load(model).pooling == "state"


def test_silence_moves_the_state_and_not_the_last_token(model, cohort):
    events, questions = cohort
    last = questions.group_by("subject_id", maintain_order=True).last()
    ends = events.group_by("subject_id").agg(pl.col("time").max())
    late = last.join(ends, on="subject_id").select("subject_id", prediction_time=pl.col("time") + pl.duration(days=3))
    later = late.with_columns(pl.col("prediction_time") + pl.duration(days=900))
    for pooling, moves in (("state", True), ("last", False)):
        embedder = Embedder.load(model, EmbedSettings(pooling))
        one, other = (embedder.vectors(events, asked.sort("subject_id"))[1] for asked in (late, later))
        assert (np.abs(one - other).max() > 0.01) == moves


def test_a_checkpoint_without_state_tokens_is_told(rough):
    assert Embedder.load(rough).pooling == "last"
    with pytest.raises(InputError, match="has no state tokens: train it with"):
        Embedder.load(rough, EmbedSettings("state"))
    with pytest.raises(ValueError, match="pooling must be auto, state"):
        EmbedSettings("best")


def test_damaged_state_tokens_are_told(model, tmp_path):
    (tmp_path / "states.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="is damaged"):
        StateTokens.load(tmp_path)
    assert StateTokens.load(model).table.shape == (16, 32)
    assert checkpoint.load(model).config.hidden_size == 32


# Language models, against transformers on the text of each history
FP32 = {"precision": "fp32"}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    home = tmp_path_factory.mktemp("text")
    made = {family: language_model(home / family, family, context=1024) for family in ("qwen3", "llama")}
    return made | {"published": as_published(home / "published", made["qwen3"])}


@pytest.fixture(scope="module")
def inpatients():
    """Three patients with labs in the morning, a visit in the afternoon, and a death; and questions within days."""
    types = {"subject_id": pl.Int64, "time": pl.Datetime("us"), "code": pl.String, "numeric_value": pl.Float32}
    rows = []
    for patient in (1, 2, 3):
        rows += [(patient, None, "GENDER//F", None), (patient, datetime(1950 + patient, 3, 1), "MEDS_BIRTH", None)]
        for day in range(1, 6 + patient):
            rows.append((patient, datetime(2024, 1, day, 8), "LAB//TROPONIN", 0.004 * day))
            rows.append((patient, datetime(2024, 1, day, 15), "ICD10CM//I21", None))
    rows.append((3, datetime(2024, 1, 20, 12), "MEDS_DEATH", None))
    events = pl.DataFrame(rows, schema=types, orient="row").sort("subject_id", "time", nulls_last=False)
    times = [datetime(2024, 1, day, hour) for day, hour in ((3, 12), (3, 20), (5, 0))]
    asked = [(patient, time) for patient in (1, 2, 3) for time in times]
    questions = [*asked, (3, datetime(2024, 1, 20, 12)), (3, datetime(2024, 1, 20, 13))]
    return events, pl.DataFrame(
        questions, schema={"subject_id": pl.Int64, "prediction_time": pl.Datetime("us")}, orient="row"
    )


def texts(events, questions, settings=TextSettings()):
    return [record.text for record in serialize(known_before(events, questions), settings)]


def theirs(folder, texts, pooling):
    """What transformers makes of each text alone."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    words = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        hidden = [
            model.model(**words(text, return_tensors="pt", return_token_type_ids=False)).last_hidden_state[0]
            for text in texts
        ]
    return np.stack([(rows[-1] if pooling == "last" else rows.mean(0)).numpy() for rows in hidden])


@pytest.mark.parametrize("family", ["qwen3", "llama"])
@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_vectors_are_those_of_transformers(models, inpatients, family, pooling):
    events, questions = inpatients
    embedder = Embedder.load(models[family], EmbedSettings(pooling, **FP32))
    known, vectors = embedder.vectors(events, questions)
    assert known.equals(questions)
    expected = theirs(models[family], texts(events, questions), pooling)
    np.testing.assert_allclose(vectors, expected, atol=2e-4)
    assert np.abs(vectors[1:] - vectors[:-1]).max(1).min() > 0.01  # the control: histories differ


def test_a_published_checkpoint_gives_what_the_model_in_it_gives(models, inpatients):
    events, questions = inpatients
    asked = EmbedSettings(text_numbers="two_decimals", **FP32)
    plain, wrapped = (Embedder.load(models[name], asked) for name in ("qwen3", "published"))
    assert (plain.context, wrapped.context) == (1024, 1024) and wrapped.pooling == "last"
    vectors = wrapped.vectors(events, questions)[1]
    np.testing.assert_array_equal(vectors, plain.vectors(events, questions)[1])
    expected = theirs(models["qwen3"], texts(events, questions, TextSettings(text_numbers="two_decimals")), "last")
    np.testing.assert_allclose(vectors, expected, atol=2e-4)
    exact = Embedder.load(models["published"], EmbedSettings(**FP32)).vectors(events, questions)[1]
    assert np.abs(vectors - exact).max() > 0.01  # the control: 0.00 is not 0.012


def test_what_happens_at_the_time_is_not_known_and_what_came_earlier_that_day_is(inpatients):
    events, questions = inpatients
    found = dict(zip(questions.rows(), texts(events, questions), strict=True))
    noon, evening = (found[1, datetime(2024, 1, 3, hour)] for hour in (12, 20))
    assert noon.endswith("[2024-01-03]\nLAB//TROPONIN: 0.012")
    assert evening.endswith("[2024-01-03]\nICD10CM//I21\nLAB//TROPONIN: 0.012")
    assert found[1, datetime(2024, 1, 5, 0)].endswith("LAB//TROPONIN: 0.016")  # nothing of the day that begins
    assert "DEATH" not in found[3, datetime(2024, 1, 20, 12)]
    assert found[3, datetime(2024, 1, 20, 13)].endswith("[2024-01-20]\nMEDS_DEATH")  # the control


def test_times_of_a_patient_share_a_pass_where_the_text_goes_on(models, inpatients):
    events, _ = inpatients
    days = pl.DataFrame(
        [(1, datetime(2024, 1, day)) for day in range(2, 7)],
        schema={"subject_id": pl.Int64, "prediction_time": pl.Datetime("us")}, orient="row",
    )  # fmt: skip
    embedder, widths = Embedder.load(models["qwen3"], EmbedSettings(**FP32)), []
    forward = embedder.decoder.hidden
    embedder.decoder.hidden = lambda ids, *rest: (widths.append(ids.shape[1]), forward(ids, *rest))[1]
    _, vectors = embedder.vectors(events, days)
    alone = [embedder.vectors(events, days[number : number + 1])[1][0] for number in range(5)]
    assert len(widths) == 6 and widths[0] == widths[-1]  # all five take what the longest takes
    np.testing.assert_allclose(vectors, alone, atol=2e-4)


def test_a_history_that_is_too_long_loses_its_oldest_days(inpatients, tmp_path):
    events, questions = inpatients
    folder = language_model(tmp_path / "short", longest=128)
    embedder = Embedder.load(folder, EmbedSettings(**FP32))
    assert embedder.context == 128
    last = questions.filter(subject_id=3)[-1:]
    (text,) = texts(events, last)
    head, *days = text.replace("\n\n\n[", "\n\n[").split("\n\n")
    shorter = [f"{head}\n\n\n" + "\n\n".join(days[-count:]) for count in range(1, len(days))]
    fitting = [each for each in shorter if len(embedder.tokenizer._words.encode(each)) <= 128][-1]
    assert 1 < fitting.count("[2024") < text.count("[2024")
    np.testing.assert_allclose(embedder.vectors(events, last)[1], theirs(folder, [fitting], "last"), atol=2e-4)


def test_moments_are_refused_and_nobody_without_a_history_has_a_vector(models, inpatients):
    with pytest.raises(InputError, match="tell no time"):
        Embedder.load(models["qwen3"], EmbedSettings("moment"))
    events, questions = inpatients
    early = questions[:1].with_columns(prediction_time=pl.lit(datetime(2023, 1, 1)))
    known, vectors = Embedder.load(models["qwen3"]).vectors(events, early)
    assert known.height == 0 and vectors.shape == (0, 32)


def test_sequela_embed_takes_a_language_model(models, inpatients, tmp_path):
    events, questions = inpatients
    write_dataset(events, tmp_path / "meds", name="text")
    write_questions(questions, tmp_path / "asked.parquet")
    out = tmp_path / "out"
    manifest = sequela.embed(
        models["published"], tmp_path / "meds", out, task=("death_5y",), labels=tmp_path / "asked.parquet",
        text_numbers="two_decimals",
    )  # fmt: skip
    assert manifest["settings"]["text_numbers"] == "two_decimals" and set(manifest["inputs"]) >= {"model", "meds"}
    found = read_embeddings(out)
    questions = questions.filter(pl.col("prediction_time") < datetime(2024, 1, 20))  # nobody is asked after death
    assert found.height == questions.height == 9
    read = read_events(tmp_path / "meds")
    vectors = Embedder.load(models["published"], EmbedSettings(text_numbers="two_decimals")).vectors(read, questions)[1]
    np.testing.assert_allclose(np.stack(found["vector"].to_numpy()), vectors, atol=1e-3)
