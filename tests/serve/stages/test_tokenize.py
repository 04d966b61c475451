"""Tokenizing as a stage: its settings as keywords, and the maps in its manifest."""

from pathlib import Path

import sequela
from sequela import TokenSettings


def test_a_setting_is_a_keyword_and_maps_are_part_of_the_result(world_meds: Path, tmp_path: Path) -> None:
    done = sequela.tokenize(world_meds, tmp_path / "corpus", map=(), quantiles=5)
    assert (done["settings"]["quantiles"], done["settings"]["maps"]) == (5, [])
    same = sequela.tokenize(world_meds, str(tmp_path / "corpus"), map=(), settings=TokenSettings(quantiles=5))
    assert same["skipped"]
    assert not sequela.tokenize(world_meds, tmp_path / "corpus", map="gem", quantiles=5)["skipped"]
