import os
import signal
import threading

import pytest

from sequela.train.interruption import Interrupted, stopping


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_ends_the_run_with_a_sentence():
    with pytest.raises(Interrupted, match="run the same command again"), stopping() as stop:
        terminate()
    assert stop.asked


def test_held_it_waits_for_a_good_moment():
    with stopping() as stop:
        with stop.held():
            terminate()
            assert stop.asked
        with pytest.raises(Interrupted):
            terminate()


def test_afterwards_the_signal_means_what_it_meant():
    before = signal.getsignal(signal.SIGTERM)
    with stopping():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_thread_that_gets_no_signals_can_train_too():
    seen = []

    def body() -> None:
        with stopping() as stop:
            seen.append(stop.asked)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [False]
