"""Jobs of RQ that write the ledger; workers import this module by its name."""

import os
import signal
import time
from pathlib import Path

from ledger import note
from recorded import wait_for
from rq import Retry

import taskscope


def work(path: str, seconds: float = 0.0) -> str:
    """Takes this long."""
    note(path, "work", "begin")
    time.sleep(seconds)
    note(path, "work", "end")
    return "x" * 100


def fail(path: str) -> None:
    """Fails with a cause, and a message of several lines."""
    note(path, "fail", "begin")
    try:
        {}["missing"]
    except KeyError as cause:
        raise ValueError("cannot go on:\n  a second line") from cause
    finally:
        note(path, "fail", "end")


def fail_twice(path: str, seconds: float = 0.3) -> None:
    """Fails in the first two attempts that the ledger holds."""
    note(path, "fail_twice", "begin")
    time.sleep(seconds)
    note(path, "fail_twice", "end")
    if Path(path).read_text().count('"begin"') < 3:
        raise ValueError("not yet")


def asks_for_another(path: str) -> Retry | None:
    """Returns a `Retry` once."""
    note(path, "asks_for_another", "begin")
    note(path, "asks_for_another", "end")
    return Retry(max=3) if Path(path).read_text().count('"begin"') == 1 else None


def fail_late(gate: str) -> None:
    """Fails the first time, when the file `gate` is there."""
    if wants_another_later(gate):
        raise ValueError("not yet")


def wants_another_later(gate: str) -> Retry | None:
    """Returns a `Retry` the first time, when the file `gate` is there."""
    wait_for(gate)
    first = not Path(f"{gate}-passed").exists()
    Path(f"{gate}-passed").touch()
    return Retry(max=3, interval=3600) if first else None


def too_long(path: str) -> None:
    """Goes on until RQ interrupts it."""
    note(path, "too_long", "begin")
    while True:
        time.sleep(0.01)


def until_gate(path: str, gate: str) -> None:
    """Goes on until the file `gate` is there."""
    note(path, "until_gate", "begin")
    wait_for(gate)
    note(path, "until_gate", "end")


def exit_at_once(path: str) -> None:
    """Its process ends without a word."""
    note(path, "exit_at_once", "begin")
    os._exit(7)


def kill_itself(path: str) -> None:
    """Its process is killed."""
    note(path, "kill_itself", "begin")
    os.kill(os.getpid(), signal.SIGKILL)


def survive() -> None:
    """Reports an exception and goes on."""
    taskscope.capture_exception(ValueError("half of it"))


def ship() -> None:
    """Says what it is called and what came of it."""
    taskscope.describe_run(entity="shop-7", key="order-4711")
    taskscope.describe_run(result="package 88")
