import pytest
import torch

from sequela.errors import InputError
from sequela.model.config import ModelConfig
from sequela.model.decoder import Decoder
from sequela.model.layers import Halves
from sequela.model.precision import computed_in, has_bf16
from sequela.model.prepacked import PackedHalves, PackedLinear, packed


@pytest.fixture
def model():
    config = ModelConfig(40, hidden_size=64, heads=4, kv_heads=2, head_dim=16, intermediate_size=128)
    return Decoder(config).initialize(0).eval()


def test_the_copy_computes_the_same(model):
    ids = torch.randint(2, 40, (3, 9), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ready = packed(model)
        assert torch.allclose(ready.logits(ids), model.logits(ids), atol=1e-5)
        other = packed(Decoder(model.config).initialize(1))
        assert not torch.allclose(other.logits(ids), model.logits(ids), atol=1e-3)  # negative control


def test_in_bf16_the_copy_computes_nearly_the_same_and_the_original_is_untouched(model):
    if not has_bf16("cpu"):
        pytest.skip("this processor has no bf16 products")
    ids = torch.randint(2, 40, (3, 9), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole = model.hidden(ids)
        with computed_in("bf16", "cpu"):
            low = packed(model, "bf16").hidden(ids)
        assert torch.allclose(low.float(), whole, atol=0.05) and not torch.equal(low.float(), whole)
        assert torch.equal(model.hidden(ids), whole)
    assert all(weight.dtype == torch.float32 for weight in model.parameters())


def test_bf16_that_the_processor_lacks_is_refused_in_a_sentence(model, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    with pytest.raises(InputError, match="no bf16 matrix products: set `precision`"):
        packed(model, "bf16")
    assert packed(model, "fp32")


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("columns", "out"), [(32, 96), (64, 256), (384, 1536), (1536, 384)])
def test_a_row_does_not_depend_on_the_rows_beside_it(kind, columns, out):
    """What the engine's promise of identical rollouts rests on, bit for bit."""
    if kind == torch.bfloat16 and not has_bf16("cpu"):
        pytest.skip("this processor has no bf16 products")
    random = torch.Generator().manual_seed(0)
    weight, x = torch.randn(out, columns, generator=random), torch.randn(64, columns, generator=random)
    layer = PackedLinear(weight.to(kind), None)
    with torch.inference_mode():
        whole = layer(x.to(kind))
        for rows in range(4, 64, 4):
            for start in (0, 64 - rows):
                assert torch.equal(layer(x.to(kind)[start : start + rows]), whole[start : start + rows])
        assert not torch.equal(layer(x.to(kind)[:4]), whole[4:8])  # negative control


def test_halves_are_two_products(model):
    torch.manual_seed(0)
    halves = Halves(8, 12, bias=False)
    x = torch.randn(5, 8)
    with torch.inference_mode():
        first, second = PackedHalves(halves.weight)(x)
        whole = (x.double() @ halves.weight.double().T).chunk(2, 1)
        for found in (halves(x), (first, second)):  # each sums in an order of its own
            for one, exact in zip(found, whole, strict=True):
                assert torch.allclose(one.double(), exact, atol=1e-5)
                assert not torch.allclose(one.double(), exact.flip(0), atol=1e-3)  # negative control
