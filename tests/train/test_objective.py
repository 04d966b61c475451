import numpy as np
import torch
import torch.nn.functional as F

from sequela.model.config import ModelConfig
from sequela.model.decoder import Decoder
from sequela.tokens.pack import Windows, collate
from sequela.tokens.ragged import Ragged
from sequela.train.objective import next_token


def rows(*patients):
    return Windows.of(Ragged.of(patients), np.array([1]), (), 9)


PATIENTS = rows([1, 5, 9, 4, 7], [1, 6, 6], [1, 3, 8, 2])


def model():
    return Decoder(
        ModelConfig(12, hidden_size=32, heads=2, kv_heads=2, head_dim=16, intermediate_size=64)
    ).initialise(0)


def alone(decoder, ids):
    return F.cross_entropy(
        decoder.logits(torch.tensor([ids[:-1]]))[0], torch.tensor(ids[1:]), reduction="sum"
    )


def test_the_loss_of_a_packed_batch_is_that_of_its_patients_alone():
    decoder = model()
    loss, count = next_token(decoder, collate(PATIENTS, [0, 1, 2]))
    expected = sum(alone(decoder, PATIENTS[i].tolist()) for i in range(3))
    assert count == 4 + 2 + 3
    assert torch.allclose(loss, expected, atol=1e-4)


def test_no_patient_changes_the_loss_of_another():
    decoder = model()
    other = rows(PATIENTS[0], [1, 11, 10], PATIENTS[2])
    change = (
        next_token(decoder, collate(other, [0, 1]))[0] - next_token(decoder, collate(PATIENTS, [0, 1]))[0]
    )
    expected = alone(decoder, [1, 11, 10]) - alone(decoder, PATIENTS[1].tolist())
    assert torch.allclose(change, expected, atol=1e-4)
    assert np.abs(expected.item()) > 1e-3
