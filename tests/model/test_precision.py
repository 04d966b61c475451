import pytest
import torch

from sequela.errors import InputError
from sequela.model import precision


@pytest.fixture
def processor(monkeypatch):
    def with_bf16(able):
        for name in precision.ISA_LIMITS:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": able})

    return with_bf16


def test_auto_takes_bf16_where_the_processor_has_it_and_the_model_is_wide(processor):
    processor(True)
    assert precision.has_bf16("cpu")
    assert precision.choose("auto", "cpu", 768) == "bf16"
    assert precision.choose("auto", "cpu", 64) == "fp32"
    assert precision.choose("bf16", "cpu", 64) == "bf16"
    assert precision.choose("fp32", "cpu", 768) == "fp32"


def test_without_bf16_products_auto_takes_fp32_and_bf16_is_refused(processor):
    processor(False)
    assert precision.choose("auto", "cpu", 768) == "fp32"
    with pytest.raises(InputError, match="no bf16 matrix products"):
        precision.choose("bf16", "cpu", 768)


@pytest.mark.parametrize(
    ("limit", "able"),
    [("", True), ("ALL", True), ("avx512_core_amx", True), ("AVX512_CORE_BF16", True), ("AVX2", False),
     ("AVX512_CORE", False), ("SSE41", False), ("AVX2_VNNI_2", False)],
)  # fmt: skip
def test_what_the_products_may_not_use_is_not_there(processor, monkeypatch, limit, able):
    processor(True)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert precision.has_bf16("cpu") == able
    assert precision.choose("auto", "cpu", 768) == ("bf16" if able else "fp32")


def test_products_are_in_the_precision_that_was_asked_for():
    x = torch.ones(2, 2)
    for name, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        with precision.computed_in(name, "cpu"):
            assert (x @ x).dtype == kind
