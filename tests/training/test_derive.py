import itertools
import json
import math
import re
from dataclasses import replace

import pytest

from sequela.errors import InputError
from sequela.model import flops
from sequela.model.config import SHAPES, ModelConfig
from sequela.training.derive import context_of, evenly, resolve
from sequela.training.settings import TrainSettings

PLENTY = 10**13  # tokens of a corpus that never runs out


@pytest.mark.parametrize("name", SHAPES)
def test_a_preset_is_the_named_model_on_a_thousand_tokens_a_parameter(name):
    found = resolve(TrainSettings(preset=name), 7105, PLENTY)
    assert found.model == ModelConfig.named(name, 7105)
    assert found.settings.tokens == 1000 * found.model.parameters
    assert found.origins["width"] == found.origins["context"] == f"preset {name}"


def test_nothing_given_is_depth_two():
    found = resolve(TrainSettings(), 96, PLENTY)
    assert found.model == ModelConfig.of_depth(2, 96, 1024)
    assert found.origins["layers"] == "depth 2, the default"


def test_every_value_is_filled_and_written_with_its_origin():
    found = resolve(TrainSettings(preset="comet-s"), 7105, PLENTY)
    body = json.loads(json.dumps(found.as_dict()))
    assert all(entry["value"] > 0 and entry["from"] for entry in body.values())
    assert body["batch_tokens"]["value"] == found.settings.batch_tokens
    assert body["intermediate"] == {"value": 3072, "from": "four times the width"}
    assert len(found.lines()) == len(body)
    assert f"tokens          {found.settings.tokens:<16,}1,000 for each" in "\n".join(found.lines())


OVERRIDES = {
    "layers": 3,
    "width": 192,
    "heads": 4,
    "kv_heads": 2,
    "head_dim": 16,
    "intermediate": 100,
    "context": 512,
    "row_tokens": 16384,
    "batch_tokens": 24576,
    "tokens": 12345,
    "learning_rate": 1e-4,
    "matrix_rate": 2e-4,
}


@pytest.mark.parametrize("name", OVERRIDES)
def test_every_derived_value_can_be_overridden(name):
    plain = resolve(TrainSettings(preset="comet-s"), 7105, PLENTY)
    changed = resolve(TrainSettings(preset="comet-s", **{name: OVERRIDES[name]}), 7105, PLENTY)
    assert plain.values[name] != OVERRIDES[name]
    assert (changed.values[name], changed.origins[name]) == (OVERRIDES[name], "given")
    assert set(changed.values) == set(OVERRIDES)


def test_what_is_given_carries_over_to_what_follows_from_it():
    wider = resolve(TrainSettings(depth=2, width=512), 96, PLENTY).model
    assert (wider.layers, wider.head_dim, wider.heads, wider.intermediate_size) == (2, 64, 8, 2048)
    fewer = resolve(TrainSettings(depth=4, heads=2), 96, PLENTY).model
    assert (fewer.heads, fewer.head_dim, fewer.kv_heads) == (2, 128, 2)
    other = resolve(TrainSettings(family="llama", tied=False, rope_theta=5e5), 96, PLENTY).model
    assert (other.family, other.tied_embeddings, other.rope_theta) == ("llama", False, 5e5)


@pytest.mark.parametrize(
    ("sizes", "word"),
    [({"heads": 4, "kv_heads": 3}, "kv_heads"), ({"context": 512, "row_tokens": 256}, "row_tokens")],
)
def test_sizes_that_do_not_fit_are_refused(sizes, word):
    with pytest.raises(InputError, match=word):
        resolve(TrainSettings(**sizes), 96, PLENTY)


@pytest.mark.parametrize(
    ("asked", "tokens", "origin"),
    [
        ({"tokens": 5e6}, 5_000_000, "given"),
        ({"epochs": 2.5}, 2_500_000, "2.5 epochs, given"),
        ({"tokens_per_parameter": 20}, 20 * 526_592, "20 for each of 526,592 parameters, given"),
        ({}, 4_000_000, "4 epochs, as the corpus has no 1,000 for each of 526,592 parameters"),
    ],
)
def test_the_length_of_a_run(asked, tokens, origin):
    found = resolve(TrainSettings(**asked), 7, 1_000_000)
    assert (found.settings.tokens, found.origins["tokens"]) == (tokens, origin)
    assert found.settings.epochs is None and found.settings.tokens_per_parameter is None


def test_up_to_four_passes_make_up_for_a_small_corpus():
    asked, enough = TrainSettings(), 526_592_000
    assert resolve(asked, 7, enough // 4).settings.tokens == enough
    assert resolve(asked, 7, enough // 4 - 1).settings.tokens == enough - 4


def test_resolving_what_is_resolved_changes_nothing():
    found = resolve(TrainSettings(preset="demo", epochs=3.0), 96, 1_000_000)
    assert resolve(found.settings, 96, 1_000_000).settings == found.settings


def test_batch_and_rates_follow_the_published_fits():
    found = resolve(TrainSettings(preset="comet-m", tokens=2e9), 7105, PLENTY)
    compute = 3 * flops.products(found.model, 2_000_000_000, 0, 2_000_000_000)
    assert found.settings.batch_tokens == pytest.approx(0.292 * compute**0.3271, rel=0.42)
    four_times = resolve(
        replace(found.settings, batch_tokens=4 * found.settings.batch_tokens, learning_rate=None), 7105, 1
    )
    assert four_times.settings.learning_rate == pytest.approx(2 * found.settings.learning_rate)
    best = 0.292 * compute**0.3271
    near_the_fit = resolve(
        TrainSettings(preset="comet-m", tokens=2e9, batch_tokens=round(best)), 7105, PLENTY
    )
    another_batch = math.sqrt(near_the_fit.settings.batch_tokens / best)
    assert near_the_fit.settings.matrix_rate == pytest.approx(0.3118 * compute**-0.125 * another_batch)
    assert another_batch == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("batch", "row", "runs"), [(6000, 4096, 4096), (7000, 4096, 8192), (999, None, 1024), (6000, None, 6000)]
)
def test_the_batch_is_what_runs_and_its_rate_too(batch, row, runs):
    found = resolve(TrainSettings(batch_tokens=batch, row_tokens=row), 96, PLENTY)
    whole = resolve(TrainSettings(batch_tokens=runs, row_tokens=row), 96, PLENTY)
    assert found.settings == whole.settings and found.settings.batch_tokens == runs
    assert whole.origins["batch_tokens"] == "given"
    assert found.origins["batch_tokens"] == ("given" if batch == runs else f"{batch:,} given, in whole rows")


@pytest.mark.parametrize(
    "asked", [{"preset": "comet-l"}, {"depth": 1, "context": 1000}, {"batch_tokens": 999}]
)
@pytest.mark.parametrize("corpus", [10_000, 10**7, 10**12])
def test_a_batch_is_rows_of_at_least_a_context(asked, corpus):
    settings = resolve(TrainSettings(**asked), 96, corpus).settings
    assert settings.row_tokens >= settings.context
    assert settings.batch_tokens % settings.row_tokens == 0 < settings.batch_tokens


def test_a_longer_run_takes_larger_batches_and_lower_rates():
    runs = [
        resolve(TrainSettings(depth=8, tokens=tokens), 96, PLENTY).settings for tokens in (1e7, 1e9, 1e11)
    ]
    assert runs[0].batch_tokens < runs[1].batch_tokens < runs[2].batch_tokens
    assert runs[0].learning_rate > runs[1].learning_rate > runs[2].learning_rate


def test_the_context_is_known_without_a_corpus():
    for settings in (TrainSettings(), TrainSettings(preset="comet-s"), TrainSettings(context=64)):
        assert context_of(settings) == resolve(settings, 96, PLENTY).settings.context


def numbers_in(words):
    """The settings that a sentence names, each way out with its numbers."""
    ways = [re.findall(r"`(\w+)` to (\d+)", way) for way in words.split(", or ")]
    return [{name: int(number) for name, number in way} for way in ways]


def rows_of(settings):
    chosen = resolve(settings, 96, PLENTY).settings
    return max(1, round(chosen.batch_tokens / chosen.row_tokens))


@pytest.mark.parametrize("processes", [2, 3, 4, 8])
@pytest.mark.parametrize("context", [64, 1000, 1024, 8192])
def test_the_numbers_advised_for_several_processes_are_followed_with_success(processes, context):
    for batch, row in itertools.product((None, 100, 4096, 5000, 20_000), (None, 1024, 1500, 8192)):
        if row is not None and row < context:
            continue
        settings = TrainSettings(depth=1, tokens=1e6, context=context, batch_tokens=batch, row_tokens=row)
        ways = numbers_in(evenly(resolve(settings, 96, PLENTY), processes))
        assert "batch_tokens" in ways[0]
        for way in [*ways, {"batch_tokens": 3 * ways[0]["batch_tokens"]}]:
            assert rows_of(replace(settings, **way)) % processes == 0


def test_the_numbers_advised_for_a_row_too_short_are_followed_with_success():
    settings = TrainSettings(depth=1, tokens=1e6, context=100, row_tokens=64)
    with pytest.raises(InputError) as told:
        resolve(settings, 96, PLENTY)
    assert "set it to 100 or more, or `context` to 64 or less" in str(told.value)
    assert rows_of(replace(settings, row_tokens=100)) > 0 and rows_of(replace(settings, context=64)) > 0
