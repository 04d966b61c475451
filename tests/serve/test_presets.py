"""Demo settings exist for each source, name real tasks, and can be changed by a file."""

from pathlib import Path

import pytest

from sequela.errors import InputError
from sequela.model.config import ModelConfig
from sequela.serve.presets import PRESETS, preset, quick, with_file
from sequela.task.catalog import load_task
from sequela.training.derive import resolve


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
    changed = with_file(preset("nafld"), path)
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
            r"my\.toml: there is no section \[trian\] \(did you mean 'train'\?\); there are \[tok",
        ),
        ("depth = 2", "'depth' is not a section"),
        (
            "[train]\ndpeth = 2",
            r"\[train\]: there is no setting 'dpeth' \(did you mean 'depth'\?\); there are preset, depth,",
        ),
        ("[train]\ndepth = 'two'", r"\[train\]: `depth` is 'two': give a whole number"),
        ("[train]\ndepth = true", "`depth` is True"),
        ("[train]\nwidth = 'two'", "`width` is 'two': give a whole number"),
        ("[train]\nlearning_rate = []", r"`learning_rate` is \[\]: give a number"),
        ("[tokenize]\ninterval_edges = 3", "`interval_edges` is 3: give a list"),
        ("[tokenize]\nfused = 1", "`fused` is 1: give true or false"),
        ("[tokenize]\ntime = 1", "`time` is 1: give a text"),
        ("[train]\ntokens = 5\nepochs = 1", "`epochs` and `tokens` exclude each other"),
        ("[tokenize]\nquantiles = 1", r"\[tokenize\]: quantiles must be 2 or more"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "my.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=complaint):
        with_file(preset("nafld"), path)


def test_a_file_may_say_the_length_or_the_size_in_another_way(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text("[train]\ntokens = 1e6\npreset = 'nano'\n")
    changed = with_file(preset("nafld"), path).train
    assert (changed.tokens, changed.epochs, changed.preset, changed.depth) == (1e6, None, "nano", None)


@pytest.mark.parametrize("source", PRESETS)
def test_the_demos_train_as_they_were_tuned(source: str) -> None:
    found = resolve(preset(source).train, 70, 861_897)
    assert found.model == ModelConfig.of_depth(2, 70, 1024)
    wanted = {"batch_tokens": 4096, "row_tokens": 2048, "learning_rate": 6e-3, "matrix_rate": 6e-3}
    assert {name: found.values[name] for name in wanted} == wanted


def test_no_file_and_no_toml(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        with_file(preset("nafld"), tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("depth =")
    with pytest.raises(InputError, match=r"bad\.toml is not TOML"):
        with_file(preset("nafld"), tmp_path / "bad.toml")


@pytest.mark.parametrize("source", PRESETS)
def test_a_quick_look_costs_a_fraction(source: str) -> None:
    full, look = preset(source), quick(preset(source))
    assert look.train.epochs < full.train.epochs / 10 and look.simulate.rollouts < full.simulate.rollouts
    assert look.patients and look.tasks == full.tasks and look.tokenize == full.tokenize
