import pytest

from sequela.model.config import ModelConfig
from sequela.model.decoder import Decoder
from sequela.training.optimizer import decoder_groups, optimizers
from sequela.training.settings import TrainSettings


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
