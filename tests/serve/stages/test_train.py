"""What `sequela train` leaves can be loaded and asked."""

from pathlib import Path

import sequela


def test_a_checkpoint_can_be_loaded_and_asked(small_demo: Path) -> None:
    import torch

    model = sequela.load(str(small_demo / "model"))
    logits = model.logits(torch.tensor([[1, 2, 3]]))
    assert logits.shape[:2] == (1, 3)
    assert logits.dtype == torch.float32
