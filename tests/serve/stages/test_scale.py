"""What a scaling study cannot be is refused before a run is made; the study itself is in scaling/."""

from pathlib import Path

import pytest

import sequela
from sequela.errors import InputError


def test_what_cannot_be_a_study_is_refused(world_corpus: Path, tmp_path: Path, monkeypatch) -> None:
    flops = [1e9, 3e9]
    with pytest.raises(InputError, match="give both `task` and `meds`"):
        sequela.scale(world_corpus, tmp_path / "a", flops=flops, task="in_hospital_death")
    with pytest.raises(InputError, match="leave out epochs"):
        sequela.scale(world_corpus, tmp_path / "b", flops=flops, epochs=2)
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")
    with pytest.raises(InputError, match="not started by torchrun"):
        sequela.scale(world_corpus, tmp_path / "c", flops=flops)
    assert list(tmp_path.iterdir()) == []
