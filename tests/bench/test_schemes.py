"""The study of tokenizations: its parts are exact, and a tiny run ends in the JSON object and is not run twice."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sequela.tokens.corpus import Corpus
from sequela.tokens.ehr.settings import ETHOS_EDGES, TokenSettings
from sequela.tokens.ehr.tokenize import tokenize
from sequela.tokens.ragged import Ragged

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def measured(monkeypatch):
    monkeypatch.syspath_prepend(BENCH)
    from measure import bits

    return bits


@pytest.fixture(scope="module")
def corpora(world_meds, tmp_path_factory) -> dict[str, Corpus]:
    folder, found = tmp_path_factory.mktemp("corpora"), {}
    schemes = {
        "CoMET": TokenSettings(fused=False),
        "fused": TokenSettings(fused=True),
        "rotary": TokenSettings(fused=False, time="rotary"),
        "ethos": TokenSettings(fused=False, interval_edges=ETHOS_EDGES),
    }
    for name, settings in schemes.items():
        (folder / name).mkdir()
        tokenize(world_meds, folder / name, settings)
        found[name] = Corpus.load(folder / name, "tuning")
    return found


def test_every_scheme_tells_the_same_events(measured, corpora):
    events = {name: measured.events_of(corpus).tolist() for name, corpus in corpora.items()}
    assert events["CoMET"] == events["fused"] == events["rotary"] == events["ethos"]
    assert sum(events["CoMET"]) == corpora["CoMET"].events


def test_gaps_are_those_that_the_time_tokens_tell(measured, corpora):
    gaps = measured.gaps_of(corpora["rotary"])
    edges = np.array(corpora["CoMET"].tokenizer.settings.interval_edges)
    told = corpora["CoMET"].tokenizer.vocabulary.matching("TIME//")
    for row in range(20):
        ids = np.asarray(corpora["CoMET"].tokens[row], np.int64)
        last = np.flatnonzero(np.isin(corpora["CoMET"].tokenizer.place[ids], (0, 1)))[-1]
        own = ids[:last][np.isin(ids[:last], told[:-1])] - told[0]  # without the longest, and the tail
        rest = gaps[row] % edges[-1]
        assert own.tolist() == (np.searchsorted(edges, rest[rest > 0], side="right") - 1).tolist()
    with pytest.raises(ValueError, match="rotary"):
        measured.gaps_of(corpora["CoMET"])


def test_what_an_interval_leaves_open_is_found_by_hand(measured):
    """Edges 2 and 10 minutes. Training gaps: 0 0 0 1 (no token) and 4 4 (2 to 10)."""
    training, gaps = Ragged.of([[0, 0, 0, 1], [4, 4]]), Ragged.of([[0, 4], [], [1, 10, 7]])
    zero, one = (3 + 2 / 2) / (4 + 2), (1 + 2 / 2) / (4 + 2)
    four, seven = (2 + 1 / 8) / (2 + 1), (1 / 8) / (2 + 1)
    expected = [
        -np.log2(zero * four),
        0,
        -np.log2(one * zero * seven),
    ]  # 10 is the longest, and nothing beyond it
    np.testing.assert_allclose(measured.left_open((2, 10), training, gaps), expected)
    unseen = measured.left_open((2, 10), Ragged.of([[0]]), Ragged.of([[5]]))
    np.testing.assert_allclose(unseen, [3])  # one of eight minutes


def test_finer_intervals_leave_less_open(measured, corpora):
    gaps = measured.gaps_of(corpora["rotary"])
    default = tuple(corpora["CoMET"].tokenizer.settings.interval_edges)
    finer = tuple(sorted({*default, *ETHOS_EDGES}))
    assert measured.left_open(finer, gaps, gaps).sum() < measured.left_open(default, gaps, gaps).sum()


def test_kinds_of_fused_tokens(measured, corpora):
    kinds = measured.types_of(corpora["fused"].tokenizer)
    tokens = corpora["fused"].tokenizer.vocabulary.tokens
    fused = [row for row, token in enumerate(tokens) if "=Q" in token]
    bare = [token.partition("=")[0] for token in tokens]
    assert fused and all(kinds.token[row] == measured.CODE for row in fused)
    assert all(
        (kinds.group[row] == kinds.group[other]) == (bare[row] == bare[other])
        for row in fused
        for other in fused
    )
    plain = measured.types_of(corpora["CoMET"].tokenizer)
    types_of = dict(zip(corpora["CoMET"].tokenizer.vocabulary.tokens, plain.token, strict=True))
    assert types_of["Q//1"] == measured.VALUE and types_of["BOS"] == measured.CODE and plain.group is None


def test_the_interval_of_a_ratio_covers_it(measured):
    random = np.random.default_rng(0)
    below = random.integers(5, 50, 400).astype(float)
    above = below * random.normal(0.3, 1, 400)
    value, low, high = measured.interval_of_ratio(above, below)
    assert low < value < high and low < 0.3 < high and high - low < 0.5
    assert measured.interval_of_ratio(below, below) == pytest.approx((1, 1, 1))


@pytest.mark.slow
def test_a_tiny_run_is_kept_and_not_run_again(tmp_path):
    def run(*more: str) -> tuple[dict, str]:
        command = [sys.executable, BENCH / "schemes.py", "--quick", "--work", tmp_path, "--patients", "40"]
        chosen = ["--schemes", "fused", "rotary", "--without-same-flops", "--thin", "0"]
        done = subprocess.run([*command, *chosen, *more], capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1]), done.stderr

    found, told = run()
    assert told.count("same events") == 3
    assert (found["name"], found["target"], found["best"]) == ("schemes", 1, "fused")
    table = found["bits"]["same events"]
    assert set(table) == {"CoMET", "fused", "rotary"} and "total" not in table["rotary"]
    assert found["ratio"] == pytest.approx(table["fused"]["total"] / table["CoMET"]["total"])
    again, told = run()
    assert again == found and told == ""
    kept = tmp_path / "run fused 0 same events.json"
    kept.unlink()
    assert "fused" not in run("--report")[0]["bits"]["same events"]
