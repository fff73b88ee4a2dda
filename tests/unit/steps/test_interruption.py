"""Ctrl-C is a wish the first time."""

import os
import signal

import pytest

from fff.steps.interruption import Interruption


def test_the_first_signal_is_a_wish_and_the_second_ends_at_once():
    said, ended = [], []
    before = signal.getsignal(signal.SIGINT)
    with Interruption(said.append) as interruption:
        interruption.wait_for = ": calculations that run may end"
        interruption.at_once = lambda: ended.append(1)
        assert not interruption.is_asked()
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.is_asked()
        assert (said, ended) == (["Stopping: calculations that run may end; Ctrl-C again stops at once."], [])
        os.kill(os.getpid(), signal.SIGTERM)
        assert ended == [1]
    assert signal.getsignal(signal.SIGINT) is before


def test_the_second_signal_interrupts_where_nothing_else_was_said():
    with Interruption(lambda _: None):
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
