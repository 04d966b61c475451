import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sequela.model.config import ModelConfig
from sequela.model.decoder import Decoder
from sequela.tokens.packing import Windows, collate
from sequela.tokens.ragged import Ragged
from sequela.training.data import inputs
from sequela.training.objectives.next_token import NextToken, cross_entropy
from sequela.training.objectives.objective import Setup
from sequela.training.score import predictions


def rows(*patients):
    return Windows.of(Ragged.of(patients), np.array([1]), (), 9)


PATIENTS = rows([1, 5, 9, 4, 7], [1, 6, 6], [1, 3, 8, 2])


def model(tied=True, family="qwen2"):
    sizes = {"hidden_size": 32, "heads": 2, "kv_heads": 2, "head_dim": 16, "intermediate_size": 64}
    return Decoder(ModelConfig(12, family=family, tied_embeddings=tied, **sizes)).initialize(0)


def alone(decoder, ids):
    return F.cross_entropy(
        decoder.logits(torch.tensor([ids[:-1]]))[0], torch.tensor(ids[1:]), reduction="sum"
    )


def loss(decoder, windows, row):
    objective = NextToken(decoder)
    return objective(objective.collate(windows, row)).total


def test_the_loss_of_a_packed_row_is_that_of_its_patients_alone():
    decoder = model()
    nats = loss(decoder, PATIENTS, [0, 2, 1])
    expected = sum(alone(decoder, PATIENTS[i].tolist()) for i in range(3))
    assert NextToken(decoder).collate(PATIENTS, [0, 2, 1]).weight == 4 + 2 + 3
    assert torch.allclose(nats, expected, atol=1e-4)


def test_no_patient_changes_the_loss_of_another():
    decoder = model()
    other = rows(PATIENTS[0], [1, 11, 10], PATIENTS[2])
    change = loss(decoder, other, [0, 1]) - loss(decoder, PATIENTS, [0, 1])
    expected = alone(decoder, [1, 11, 10]) - alone(decoder, PATIENTS[1].tolist())
    assert torch.allclose(change, expected, atol=1e-4)
    assert np.abs(expected.item()) > 1e-3


@pytest.mark.parametrize("tied", [True, False])
def test_every_weight_gets_the_gradient_of_the_plain_loss(tied):
    ours, plain = model(tied), model(tied)
    (loss(ours, PATIENTS, [0, 1, 2]) / 3).backward()
    (sum(alone(plain, PATIENTS[i].tolist()) for i in range(3)) / 3).backward()
    for (name, a), (_, b) in zip(ours.named_parameters(), plain.named_parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-4), name


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
def test_bf16_is_near_fp32_and_leaves_weights_and_gradients_in_fp32(family):
    gradients = []
    for precision in ("bf16", "fp32"):
        decoder = model(family=family)
        nats = NextToken(decoder, Setup(precision))(inputs(collate(PATIENTS, [0, 1, 2]))).total
        nats.backward()
        assert nats.dtype == torch.float32
        assert all(w.dtype == w.grad.dtype == torch.float32 for w in decoder.parameters())
        gradients.append(torch.cat([w.grad.flatten() for w in decoder.parameters()]))
    low, exact = gradients
    assert 0 < (low - exact).norm() < 0.02 * exact.norm()


@pytest.mark.parametrize("chunk", [1, 50, 64, 10**6])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_in_chunks_equals_the_one_of_whole_logits(chunk, weighted):
    random = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 8, generator=random, requires_grad=True) for n in (30, 50))
    targets = torch.randint(0, 50, (30,), generator=random)
    classes = torch.rand(50, generator=random) * 10 if weighted else torch.ones(50)
    each = F.cross_entropy(hidden @ weight.t() + classes.log(), targets, reduction="none")
    expected = (classes[targets] * each).sum()
    ours, plain = cross_entropy(hidden, weight, targets, classes.log() if weighted else None, chunk)
    assert torch.allclose(ours, expected, rtol=1e-5) and not plain.requires_grad
    assert torch.allclose(plain, F.cross_entropy(hidden @ weight.t(), targets, reduction="sum"), rtol=1e-5)
    for a, b in zip(
        torch.autograd.grad(3 * ours, (hidden, weight)),
        torch.autograd.grad(3 * expected, (hidden, weight)),
        strict=True,
    ):
        assert torch.allclose(a, b, atol=1e-4)


def test_cross_entropy_of_large_scores_is_finite():
    hidden, weight = torch.full((2, 4), 100.0, requires_grad=True), torch.eye(4)
    nats, _ = cross_entropy(hidden, weight * 10, torch.tensor([0, 1]))
    nats.backward()
    assert nats.item() == pytest.approx(2 * np.log(4), rel=1e-5) and hidden.grad.isfinite().all()


def test_scores_are_those_of_the_positions_that_have_a_target():
    decoder = model()
    found = predictions(decoder, collate(PATIENTS, [1, 0]))
    assert found.positions.tolist() == [0, 1, 3, 4, 5, 6]
    assert found.targets.tolist() == [6, 6, 5, 9, 4, 7]
    assert found.nats().sum().item() == pytest.approx(loss(decoder, PATIENTS, [1, 0]).item(), rel=1e-5)


COMPILED = """
import numpy as np, torch
from sequela.model.config import ModelConfig
from sequela.model.decoder import Decoder
from sequela.model.flex import Flex
from sequela.training.objectives.next_token import NextToken

random = np.random.default_rng(0)
torch._dynamo.config.recompile_limit = 1
torch._dynamo.config.fail_on_recompile_limit_hit = True
objective = NextToken(Decoder(ModelConfig(12)).initialize(0))
objective.decoder.compile_blocks(backend="eager")
plain = Decoder(objective.decoder.config).initialize(0)
with torch.no_grad():
    for _ in range(3):
        segments = np.sort(random.integers(0, 4, (1, 256)))
        asked = torch.from_numpy(random.integers(0, 12, (1, 256))), torch.arange(256)[None], Flex(segments, "cpu")
        assert torch.allclose(objective.decoder.hidden(*asked), plain.hidden(*asked), atol=1e-5)
"""


def test_blocks_compile_once_for_all_rows_of_one_length():
    # in a process without the shape checks of the tests, which Dynamo cannot trace
    subprocess.run([sys.executable, "-c", COMPILED], check=True)
