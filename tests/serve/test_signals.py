"""Signals stop a command once, and kill it when they come again."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from sequela.serve.signals import SIGNALS, heeding

# A library that swallows the first interrupt, as if the main thread never came back from it
DEAF = """
import time
from sequela.serve import signals
signals.SAME = float({same})
with signals.heeding():
    try:
        print("ready", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        print("once", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_interrupts_once_and_its_handler_comes_back(number):
    before = signal.getsignal(number)
    with heeding() as stop:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        signal.raise_signal(
            signal.SIGTERM
        )  # at once again, as from `timeout`: it does not interrupt the cleaning up
    assert stop.number == number
    assert signal.getsignal(number) is before


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with heeding() as stop:
            signal.raise_signal(signal.SIGHUP)
        assert not stop.number
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_changes_nothing():
    def work():
        with heeding():
            handlers.append(signal.getsignal(signal.SIGTERM))

    handlers = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGTERM)]


@pytest.mark.parametrize("same, code", [("0.0", 143), ("100.0", None)])
def test_a_second_signal_kills_unless_it_is_the_same_wish(same, code):
    command = [sys.executable, "-c", DEAF.format(same=same)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "once\n"
    process.send_signal(signal.SIGTERM)
    try:
        assert process.wait(0.5 if code is None else 10) == code
    except subprocess.TimeoutExpired:
        assert code is None
    finally:
        process.kill()
        process.communicate()


# As with `python -m sequela`: where the interrupt passes through text that is run, as in the making of a dataclass
RUN_AS_MODULE = """
import signal, sys
from sequela.serve.signals import heeding
with heeding() as stop:
    try:
        exec("signal.raise_signal(signal.SIGTERM)")
    except KeyboardInterrupt:
        pass
sys.exit(128 + stop.number)
"""


def test_the_exit_code_is_ours_wherever_the_signal_interrupts(tmp_path):
    (tmp_path / "interrupted.py").write_text(RUN_AS_MODULE)
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    command = [sys.executable, "-m", "interrupted"]
    assert subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, timeout=60).returncode == 143
