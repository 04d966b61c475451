"""Demo settings exist for each source, name real tasks, and can be changed by a file."""

from pathlib import Path

import pytest

from sequela.record.errors import InputError
from sequela.serve.presets import PRESETS, preset, read_toml, with_file
from sequela.tasks.task import load_task


@pytest.mark.parametrize("source", PRESETS)
def test_tasks_of_a_preset_are_about_its_data(source: str) -> None:
    assert preset(source).limits
    assert {load_task(name).dataset for name in preset(source).tasks} == {source}


def test_unknown_source() -> None:
    with pytest.raises(InputError, match="no demo for 'nafdl': choose one of nafld, physionet2012"):
        preset("nafdl")


def test_a_file_changes_settings(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text("[train]\nepochs = 2\nlearning-rate = 1e-3\n[tokenize]\ninterval_edges = [1, 60]\n")
    changed = with_file(preset("nafld"), path, read_toml(path))
    assert changed.train.epochs == 2.0
    assert isinstance(changed.train.epochs, float)
    assert changed.train.learning_rate == 1e-3
    assert changed.tokenize.interval_edges == (1, 60)
    assert changed.simulate == preset("nafld").simulate


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            "[trian]\ndepth = 2",
            r"my\.toml: 'trian' is not one of the sections \[tokenize\], \[train\], \[simulate\]",
        ),
        ("depth = 2", "'depth' is not one of the sections"),
        ("[train]\ndpeth = 2", r"\[train\]: there is no setting 'dpeth'; there are depth,"),
        ("[train]\ndepth = 'two'", r"\[train\]: 'depth' is 'two': write a value like"),
        ("[train]\ndepth = true", "'depth' is True"),
        ("[tokenize]\nquantiles = 1", r"\[tokenize\]: quantiles must be 2 or more"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "my.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=complaint):
        with_file(preset("nafld"), path, read_toml(path))


def test_no_file_and_no_toml(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_toml(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("depth =")
    with pytest.raises(InputError, match=r"bad\.toml is not TOML"):
        read_toml(tmp_path / "bad.toml")
