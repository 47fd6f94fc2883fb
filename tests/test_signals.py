"""Ending cleanly: who is heard, and that it is as before afterwards."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from taskscope.signals import next_of, received, stopped_by_signals

NUMBERS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in NUMBERS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number.name)
def test_whoever_asks_it_to_end_is_heard_and_nothing_else_happens(number: signal.Signals) -> None:
    stop = threading.Event()
    before: Callable[..., Any] | int | None = signal.getsignal(number)

    with stopped_by_signals(stop):
        os.kill(os.getpid(), number)
        assert stop.wait(10)

    assert signal.getsignal(number) == before


IN_USE = """
import os, signal, sys, threading
from taskscope.signals import stopped_by_signals

sys.setswitchinterval(1e-5)
stop = threading.Event()
with stopped_by_signals(stop):
    other = threading.Thread(target=lambda: [os.kill(os.getpid(), signal.SIGTERM) for _ in range(10000)])
    other.start()
    while other.is_alive():
        stop.wait(0)
        stop.set()
        stop.clear()
"""


def test_a_signal_does_not_wait_for_the_event_that_it_finds_in_use() -> None:
    subprocess.run([sys.executable, "-c", IN_USE], check=True, timeout=60)


def test_under_nohup_the_end_of_the_terminal_is_not_heard() -> None:
    stop = threading.Event()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with stopped_by_signals(stop):
        os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN

    assert not stop.is_set()


def test_signals_come_out_in_order_and_nothing_else_happens() -> None:
    before = signal.getsignal(signal.SIGHUP)

    with received(signal.SIGHUP, signal.SIGTERM) as signals:
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), number)
        heard = [next_of(signals) for _ in range(3)]

    assert heard == [signal.SIGHUP, signal.SIGTERM, signal.SIGHUP]
    assert signal.getsignal(signal.SIGHUP) == before


ASLEEP = """
import signal, threading, time
from taskscope.signals import next_of, received

def signal_this_thread():
    time.sleep(0.2)  # until the main thread sleeps; were it late, this would pass without a proof
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

with received(signal.SIGTERM) as signals:
    threading.Thread(target=signal_this_thread).start()
    assert next_of(signals) == signal.SIGTERM
"""


def test_a_signal_is_heard_that_does_not_wake_the_main_thread() -> None:
    subprocess.run([sys.executable, "-c", ASLEEP], check=True, timeout=20)
