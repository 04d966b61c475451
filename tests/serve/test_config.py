"""Nothing in the file after --config is ignored."""

from pathlib import Path

import pytest

from sequela.errors import InputError
from sequela.serve.cli import run
from sequela.serve.config import read_toml, sections_in


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "my.toml"


def test_a_file_with_a_byte_order_mark_is_read(path):
    path.write_bytes(b"\xef\xbb\xbf[train]\r\ndepth = 2\r\n")
    assert read_toml(path) == {"train": {"depth": 2}}


@pytest.mark.parametrize(
    "content, complaint",
    [
        (b"", r"my.toml holds no settings: write them under the name of a command, such as \[train\]"),
        (b"# only a remark\n", "holds no settings"),
        (b"[train\ndepth = 2", r"is not TOML \(.* line 1, column 7"),
        (b"[train]\ndepth = 2\ndepth = 3", r"is not TOML \(.*line 3"),
        (b"\xff\xfe[", "is not TOML"),
    ],
)
def test_a_file_without_settings_is_refused(content, complaint, path):
    path.write_bytes(content)
    with pytest.raises(InputError, match=complaint):
        read_toml(path)


@pytest.mark.parametrize(
    "content, complaint",
    [
        (
            "[trian]\ndepth = 2",
            r"there is no section \[trian\] \(did you mean 'train'\?\); there are \[train\], \[scale\]",
        ),
        ("[Train]\ndepth = 2", r"there is no section \[Train\] \(did you mean 'train'\?\)"),
        (
            "depth = 2\n[train]",
            r"'depth' is not a section in single brackets: write it below one, such as \[train\]",
        ),
        ("[[train]]\ndepth = 2", "'train' is not a section in single brackets: write it once"),
        ("train = 2", "'train' is not a section"),
    ],
)
def test_what_is_in_no_section_is_refused(content, complaint, path):
    path.write_text(content)
    with pytest.raises(InputError, match=complaint):
        sections_in(path, ("train", "scale"))


@pytest.mark.parametrize(
    "section, complaint",
    [
        (
            "quantyles = 4",
            "[tokenize]: there is no setting 'quantyles' (did you mean 'quantiles'?); there are seed, quiet",
        ),
        ("depth = 4", "[tokenize]: there is no setting 'depth' (it belongs in [train]); there are"),
        ("out = 'x'", "[tokenize]: there is no setting 'out'; there are"),
        ("config = 'x'", "[tokenize]: there is no setting 'config'; there are"),
        ("quantiles = 4.5", "[tokenize]: 'quantiles' is 4.5: give a whole number."),
        ("quantiles = true", "'quantiles' is True: give a whole number."),
        ("quantiles = 99999999999999999999", "give a whole number of at most 18 digits."),
        ("fused = 'yes'", "'fused' is 'yes': give true or false."),
        ("time = 2020-01-01", "'time' is datetime.date(2020, 1, 1): give a text."),
        ("map = [1]", "'map' is 1: give a text."),
        ("min-patients = 4\nmin_patients = 5", "'min_patients' is there twice"),
        ("[tokenize.settings]\nquantiles = 4", "there is no setting 'settings'"),
    ],
)
def test_a_setting_that_a_stage_does_not_take_is_refused(section, complaint, path, capsys):
    path.write_text(f"[train]\ndepth = 1\n[tokenize]\n{section}\n")
    assert run(["tokenize", "nowhere", "out", "--config", str(path)]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert "my.toml" in said and complaint in said


def test_other_commands_may_have_sections_too(path, capsys):
    path.write_text("[train]\ndepth = 1\n[simulate]\nrollouts = 3\n")
    assert run(["tokenize", "nowhere", "out", "--config", str(path), "--quiet"]) == 2
    assert "nowhere does not exist" in capsys.readouterr().err
