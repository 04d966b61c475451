"""The benchmarks of rollouts: what they count as the least work, and that a tiny run tells what it should."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sequela.model import flops
from sequela.model.config import ModelConfig
from sequela.model.decoder import Decoder

BENCH = Path(__file__).resolve().parents[2] / "bench"
SHAPES = {
    "qwen2": {"heads": 2, "kv_heads": 2, "head_dim": 4},
    "llama, two heads share one": {"family": "llama", "heads": 4, "kv_heads": 2, "head_dim": 6},
    "qwen3, untied": {
        "family": "qwen3",
        "heads": 2,
        "kv_heads": 2,
        "head_dim": 6,
        "tied_embeddings": False,
    },
}
HISTORY, ROLLOUTS, TOKENS = 5, 3, 4


@pytest.fixture
def decoding(monkeypatch):
    """The module that runs and counts."""
    monkeypatch.syspath_prepend(BENCH)
    from measure import decoding

    return decoding


def config_of(shape: dict) -> ModelConfig:
    return ModelConfig(11, hidden_size=8, layers=2, intermediate_size=12, **shape)


class Growing:
    """Attention as plain products over all keys so far."""

    def __init__(self):
        self.seen = {}

    def __call__(self, layer, q, k, v):
        if layer in self.seen:
            k, v = (torch.cat([old, new], 2) for old, new in zip(self.seen[layer], (k, v), strict=True))
        self.seen[layer] = k, v
        shared = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
        return (q @ k.transpose(-1, -2)).softmax(-1) @ v

    def fork(self, rows):
        self.seen = {
            layer: tuple(one.expand(rows, -1, -1, -1) for one in both) for layer, both in self.seen.items()
        }


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_pytorch_counts_the_same_of_our_decoder(decoding, shape):
    """Pass by pass: the history token by token, so that nothing is computed that is masked out afterwards."""
    config = config_of(shape)
    model, attention = Decoder(config).initialize(0), Growing()
    counted = []
    with torch.inference_mode():
        with FlopCounterMode(display=False) as counter:
            for place in range(HISTORY):
                hidden = model.hidden(torch.tensor([[place]]), torch.tensor([[place]]), attention)
            model.head(hidden)
        counted.append(counter.get_total_flops())
        attention.fork(ROLLOUTS)
        for step in range(1, TOKENS):
            with FlopCounterMode(display=False) as counter:
                ids, places = torch.ones(2, ROLLOUTS, 1, dtype=torch.int64) * (HISTORY + step - 1)
                model.head(model.hidden(ids, places, attention))
            counted.append(counter.get_total_flops())
    work, _ = decoding.passes(config, HISTORY, ROLLOUTS, TOKENS, "fp32")
    assert work.tolist() == counted
    assert work.sum() == flops.generate(config, HISTORY, TOKENS, ROLLOUTS)


def test_flops_and_bytes_by_hand(decoding):
    """Width 8, two layers of two heads of 4, feed-forward 12, vocabulary 11, biases on queries, keys and values."""
    work, moved = decoding.passes(config_of(SHAPES["qwen2"]), HISTORY, ROLLOUTS, TOKENS, "fp32")
    block = 4 * 8 * 8 + 3 * 8 * 12
    matrices = 2 * block + 11 * 8
    # attention: 4 * layers * heads * head_dim for each pair of tokens
    pair = 4 * 2 * 2 * 4
    assert work[0] == 2 * (2 * block * 5 + 88) + pair * 15
    assert work[1:].tolist() == [2 * matrices * 3 + pair * 3 * seen for seen in (6, 7, 8)]
    weights = matrices + 2 * (3 * 8 + 2 * 8) + 8
    token = 2 * 2 * 2 * 4  # keys and values, layers, heads, head_dim
    own = [0, 3, 6, 9]
    assert moved.tolist() == [4 * (weights + token * (5 + more)) for more in own]
    assert decoding.passes(config_of(SHAPES["qwen2"]), HISTORY, ROLLOUTS, TOKENS, "bf16")[1].tolist() == (
        (moved / 2).tolist()
    )


def test_of_untied_embeddings_only_the_head_is_read(decoding):
    """A row of the embedding for each token is too little to count."""
    tied, untied = (
        decoding.passes(config_of(SHAPES["qwen2"] | {"tied_embeddings": kind}), 5, 3, 4, "fp32")
        for kind in (True, False)
    )
    assert (tied == untied).all()


def test_heads_that_share_keys_move_fewer_bytes(decoding):
    shared, alone = (
        decoding.passes(
            config_of({"family": "llama", "heads": 4, "kv_heads": groups, "head_dim": 2}),
            100,
            3,
            4,
            "fp32",
        )
        for groups in (1, 4)
    )
    assert (shared[1] < alone[1] / 2).all() and (shared[0] < alone[0]).all()


def test_the_roofline_is_the_longer_of_two_in_each_pass(decoding):
    costs = np.array([[100.0, 10.0], [30.0, 90.0]])
    assert decoding.roofline(costs, peak=10, bandwidth=10) == 10 + 9
    assert decoding.roofline(costs, peak=1e9, bandwidth=10) == 12


def test_the_bandwidth_is_that_of_the_best_time(decoding):
    ticks = iter(np.cumsum([0, 4, 0, 2, 0, 8, 0, 1.0]))
    found = decoding.measured_bandwidth(megabytes=1, times=2, clock=lambda: float(next(ticks)))
    assert found == 2e6


@pytest.mark.slow
def test_a_quick_run_without_peers(tmp_path):
    done = subprocess.run(
        [sys.executable, BENCH / "rollouts.py", "--quick", "--layers", "1", "--width", "32", "--heads", "2",
         "--head-dim", "16", "--intermediate", "64", "--vocabulary", "50", "--precision", "fp32",
         "--peers", str(tmp_path)],
        capture_output=True, text=True, check=True, timeout=200,
    )  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    assert "is missing, so the peer is left out" in done.stdout
    assert (found["name"], found["failed"], found["generate_ratio"]) == ("rollouts", {}, {})
    assert found["tokens_per_second"].keys() == {"sequela, fp32", "sequela, a process a thread, fp32"}
    assert all(one > 0 for one in found["tokens_per_second"].values())
    assert 0 <= found["roofline_share"]["fp32"] < 1
