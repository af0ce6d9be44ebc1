"""SIGINT and SIGTERM as a request to stop."""

from __future__ import annotations

import signal
import threading

import pytest

from leaf_rt.system.signals import StopSignal, stop_on_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_to_stop_and_the_handlers_are_restored(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    stop = StopSignal(started=True)
    with stop_on_signals(stop):
        signal.raise_signal(number)
    assert (stop.is_set(), stop.at_once) == (True, False)
    assert signal.getsignal(number) is before


def test_a_second_sigint_stops_at_once_and_a_second_sigterm_does_not() -> None:
    stop = StopSignal(started=True)
    with stop_on_signals(stop):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert not stop.at_once
        signal.raise_signal(signal.SIGINT)
    assert stop.at_once


def test_a_second_sigint_can_raise_instead() -> None:
    stop = StopSignal(started=True)
    with stop_on_signals(stop, raise_on_second=True):
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert (stop.is_set(), stop.at_once) == (True, False)


def test_sigint_before_the_start_raises() -> None:
    stop = StopSignal()
    with pytest.raises(KeyboardInterrupt), stop_on_signals(stop):
        signal.raise_signal(signal.SIGINT)
    assert not stop.is_set()


def test_another_thread_changes_no_handler() -> None:
    before, seen = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with stop_on_signals(StopSignal()):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
