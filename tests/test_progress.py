"""The default progress display."""

from sequela.progress import silent


def test_silence_takes_whatever_is_shown_elsewhere(capsys):
    assert silent(1, 2, stage="read", rate=3.5) is None
    assert capsys.readouterr() == ("", "")
