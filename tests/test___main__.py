"""A signal that comes while the command line is imported ends it with a sentence too."""

import signal
import sys

import pytest

from sequela.__main__ import main


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_being_stopped_while_starting_is_no_bug(number, code, monkeypatch, capsys):
    class Hit:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == "sequela.serve.cli":
                signal.raise_signal(number)

    monkeypatch.delitem(sys.modules, "sequela.serve.cli", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Hit, *sys.meta_path])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code
    assert capsys.readouterr().err == "sequela: stopped before anything was done.\n"


def test_an_error_while_starting_is_shown(monkeypatch):
    monkeypatch.setitem(sys.modules, "sequela.serve.cli", None)
    with pytest.raises(ImportError):
        main()
