import pytest

from sequela.model.config import ModelConfig
from sequela.model.decoder import Decoder
from sequela.training.optimizer import decoder_groups, optimizers, schedule
from sequela.training.settings import TrainSettings


@pytest.mark.parametrize("final", [0.0, 0.1])
def test_the_rate_rises_then_falls_to_its_end(final):
    settings = TrainSettings(warmup=0.1, final_rate=final)
    shares = [schedule(done / 200, settings) for done in range(201)]
    assert shares[:21] == sorted(shares[:21]) and shares[20:] == sorted(shares[20:], reverse=True)
    assert shares[20] == 1.0 and shares[-1] == pytest.approx(final)


def test_a_run_without_warm_up_starts_at_the_peak():
    assert schedule(0.0, TrainSettings(warmup=0.0)) == 1.0


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_every_weight_has_one_optimizer_and_only_matrices_inside_the_blocks_decay(name):
    model = Decoder(ModelConfig(30))
    settings = TrainSettings(optimizer=name, learning_rate=1e-3, matrix_rate=1e-3)
    matrices, rest = (o.param_groups[0] for o in optimizers(decoder_groups(model), settings))
    assert matrices["weight_decay"] > 0 == rest["weight_decay"]
    assert all(w.dim() == 2 for w in matrices["params"])
    assert any(w is model.embedding.weight for w in rest["params"])
    both = [id(w) for group in (matrices, rest) for w in group["params"]]
    assert sorted(both) == sorted(id(w) for w in model.parameters())
