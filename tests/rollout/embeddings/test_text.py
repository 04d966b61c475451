"""Vectors of a language model, against transformers on the text of each history."""

from datetime import datetime

import numpy as np
import polars as pl
import pytest
import torch

import sequela
from sequela.errors import InputError
from sequela.record.dataset import read_events, write_dataset
from sequela.record.questions import write_questions
from sequela.rollout.embeddings.embedder import Embedder
from sequela.rollout.embeddings.folder import read_embeddings
from sequela.rollout.embeddings.settings import EmbedSettings
from sequela.rollout.prompts import known_before
from sequela.tokens.text.serialize import serialize
from sequela.tokens.text.settings import TextSettings
from tests.tokens.text.language_model import as_published, language_model

FP32 = {"precision": "fp32"}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    home = tmp_path_factory.mktemp("text")
    made = {family: language_model(home / family, family, context=1024) for family in ("qwen3", "llama")}
    return made | {"published": as_published(home / "published", made["qwen3"])}


@pytest.fixture(scope="module")
def cohort():
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
def test_vectors_are_those_of_transformers(models, cohort, family, pooling):
    events, questions = cohort
    embedder = Embedder.load(models[family], EmbedSettings(pooling, **FP32))
    known, vectors = embedder.vectors(events, questions)
    assert known.equals(questions)
    expected = theirs(models[family], texts(events, questions), pooling)
    np.testing.assert_allclose(vectors, expected, atol=2e-4)
    assert np.abs(vectors[1:] - vectors[:-1]).max(1).min() > 0.01  # the control: histories differ


def test_a_published_checkpoint_gives_what_the_model_in_it_gives(models, cohort):
    events, questions = cohort
    asked = EmbedSettings(text_numbers="two_decimals", **FP32)
    plain, wrapped = (Embedder.load(models[name], asked) for name in ("qwen3", "published"))
    assert (plain.context, wrapped.context) == (1024, 1024) and wrapped.pooling == "last"
    vectors = wrapped.vectors(events, questions)[1]
    np.testing.assert_array_equal(vectors, plain.vectors(events, questions)[1])
    expected = theirs(models["qwen3"], texts(events, questions, TextSettings(text_numbers="two_decimals")), "last")
    np.testing.assert_allclose(vectors, expected, atol=2e-4)
    exact = Embedder.load(models["published"], EmbedSettings(**FP32)).vectors(events, questions)[1]
    assert np.abs(vectors - exact).max() > 0.01  # the control: 0.00 is not 0.012


def test_what_happens_at_the_time_is_not_known_and_what_came_earlier_that_day_is(cohort):
    events, questions = cohort
    found = dict(zip(questions.rows(), texts(events, questions), strict=True))
    noon, evening = (found[1, datetime(2024, 1, 3, hour)] for hour in (12, 20))
    assert noon.endswith("[2024-01-03]\nLAB//TROPONIN: 0.012")
    assert evening.endswith("[2024-01-03]\nICD10CM//I21\nLAB//TROPONIN: 0.012")
    assert found[1, datetime(2024, 1, 5, 0)].endswith("LAB//TROPONIN: 0.016")  # nothing of the day that begins
    assert "DEATH" not in found[3, datetime(2024, 1, 20, 12)]
    assert found[3, datetime(2024, 1, 20, 13)].endswith("[2024-01-20]\nMEDS_DEATH")  # the control


def test_times_of_a_patient_share_a_pass_where_the_text_goes_on(models, cohort):
    events, _ = cohort
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


def test_a_history_that_is_too_long_loses_its_oldest_days(cohort, tmp_path):
    events, questions = cohort
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


def test_moments_are_refused_and_nobody_without_a_history_has_a_vector(models, cohort):
    with pytest.raises(InputError, match="tell no time"):
        Embedder.load(models["qwen3"], EmbedSettings("moment"))
    events, questions = cohort
    early = questions[:1].with_columns(prediction_time=pl.lit(datetime(2023, 1, 1)))
    known, vectors = Embedder.load(models["qwen3"]).vectors(events, early)
    assert known.height == 0 and vectors.shape == (0, 32)


def test_sequela_embed_takes_a_language_model(models, cohort, tmp_path):
    events, questions = cohort
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
