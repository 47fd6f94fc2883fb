"""Jobs that write the ledger. In a module, so that the children of process pools and job stores find them."""

import asyncio
import os
import threading
import time
from pathlib import Path

from ledger import note


def work(path: str, job: str, seconds: float = 0.0) -> str:
    """Takes this long and returns its name."""
    note(path, job, "begin")
    time.sleep(seconds)
    note(path, job, "end")
    return job


def fail(path: str, job: str) -> None:
    """Fails with a cause, and with data."""
    note(path, job, "begin")
    try:
        {}["missing"]
    except KeyError as cause:
        error = ValueError("cannot go on")
        error.order, error.lines = 17, ["a"] * 1000
        raise error from cause
    finally:
        note(path, job, "end")


def time_out(path: str, job: str) -> None:
    """Fails by a timeout."""
    note(path, job, "begin")
    raise TimeoutError("no answer")


def work_until(path: str, job: str, gate: str) -> None:
    """Goes on until the file `gate` is there."""
    note(path, job, "begin")
    wait_for(gate)
    note(path, job, "end")


def die_at(path: str, job: str, gate: str) -> None:
    """Its process dies without a word when the file `gate` is there."""
    note(path, job, "begin")
    wait_for(gate)
    os._exit(9)


def wait_for(gate: str) -> None:
    """Wait for a file, 20 seconds at most."""
    deadline = time.monotonic() + 20
    while not Path(gate).exists() and time.monotonic() < deadline:
        time.sleep(0.005)


class Unpicklable(Exception):
    """Survives the way out of a process, but not the way into another."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


def fail_unpicklably(path: str, job: str) -> None:
    """Fails with an exception that breaks the process pool."""
    note(path, job, "begin")
    raise Unpicklable("one", "two")


def fail_with_lock(path: str, job: str) -> None:
    """Fails with an exception that cannot be sent at all."""
    note(path, job, "begin")
    raise ValueError(threading.Lock())


def return_lock(path: str, job: str) -> object:
    """Succeeds, but its result cannot be sent."""
    note(path, job, "begin")
    note(path, job, "end")
    return threading.Lock()


async def awaits(path: str, job: str, seconds: float = 0.0) -> str:
    """The same as `work`, as a coroutine."""
    note(path, job, "begin")
    await asyncio.sleep(seconds)
    note(path, job, "end")
    return job


async def awaits_and_fails(path: str, job: str) -> None:
    """Fails after a moment."""
    note(path, job, "begin")
    await asyncio.sleep(0)
    note(path, job, "end")
    raise ValueError("awaited in vain")


def die_the_third_time(path: str, job: str) -> None:
    """Its process dies in the third run that the ledger holds."""
    note(path, job, "begin")
    if Path(path).read_text().count('"begin"') == 3:
        os._exit(9)
    note(path, job, "end")
