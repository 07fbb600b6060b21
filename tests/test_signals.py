"""Signals become flags that work looks at between steps."""

from __future__ import annotations

import signal

import pytest

from vqtool import signals
from vqtool.errors import InterruptedRun
from vqtool.signals import StopRequest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_is_raised_at_the_next_look_and_not_before(number: signal.Signals) -> None:
    with StopRequest():
        signals.check()
        signal.raise_signal(number)
        with pytest.raises(InterruptedRun) as caught:
            signals.check()
    assert caught.value.exit_code == 128 + number


def test_the_second_signal_ends_the_process_as_usual() -> None:
    with StopRequest():
        signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_sigusr1_asks_once_for_a_checkpoint_and_stops_nothing() -> None:
    with StopRequest():
        assert not signals.checkpoint_asked()
        signal.raise_signal(signal.SIGUSR1)
        signals.check()
        assert signals.checkpoint_asked()
        assert not signals.checkpoint_asked()


def test_a_signal_that_was_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as nohup and a shell's background jobs have it
    try:
        with StopRequest():
            signal.raise_signal(signal.SIGINT)
            signals.check()
    finally:
        signal.signal(signal.SIGINT, before)


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    with StopRequest():
        signal.raise_signal(signal.SIGTERM)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)] == before


def test_without_a_stop_request_a_look_does_nothing() -> None:
    signals.check()
    assert not signals.checkpoint_asked()
