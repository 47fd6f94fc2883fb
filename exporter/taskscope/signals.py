"""Ending cleanly when a person or a supervisor says so."""

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from queue import Empty, SimpleQueue
from types import FrameType


@contextmanager
def received(*numbers: int) -> Iterator["SimpleQueue[int]"]:
    """Inside, these signals do nothing but come out of the queue, in order."""
    queue: SimpleQueue[int] = SimpleQueue()  # the only one that may be put into while it is being put into
    with _handled(numbers, lambda number, _: queue.put(number)):
        yield queue


def next_of(signals: "SimpleQueue[int]") -> int:
    """Wait in the main thread for the next signal.

    It looks up every second: Python handles signals in the main thread, and one that comes in the moment before that
    thread falls asleep does not wake it.
    """
    while True:
        with suppress(Empty):
            return signals.get(timeout=1)


@contextmanager
def stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """Inside, Ctrl-C, SIGTERM and the end of the terminal (unless `nohup`) set `stop` and do nothing else.

    A thread sets it: a handler that did, while what it interrupts holds the event's lock, would wait for ever. Who
    waits for `stop` in the main thread looks up now and then, as `next_of` does.
    """
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    with received(*numbers) as queue:
        herald = threading.Thread(
            target=_set_when_heard, args=[queue, stop], name="taskscope-signals", daemon=True
        )
        with _blocked(numbers):  # what the thread got would not wake who waits in the main one
            herald.start()
        try:
            yield
        finally:
            queue.put(0)
            herald.join()


def _set_when_heard(queue: "SimpleQueue[int]", stop: threading.Event) -> None:
    if queue.get():
        stop.set()


@contextmanager
def _handled(numbers: Iterable[int], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Inside, Ctrl-C waits; threads and processes that begin here never get it."""
    resource_tracker.ensure_running()  # its start, later, would let the signal through again
    with _blocked([signal.SIGINT]):
        yield


@contextmanager
def _blocked(numbers: Iterable[int]) -> Iterator[None]:
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
