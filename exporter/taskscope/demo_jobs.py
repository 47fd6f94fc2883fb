"""The jobs of the demo: small, real, and each with a character of its own.

They are plain functions in a module, so that the children of a process pool find them too.
"""

import asyncio
import random
import time
from datetime import datetime, timedelta
from hashlib import sha256
from threading import Event
from typing import Any

import msgspec


class Plan(msgspec.Struct, frozen=True):
    """A job of the demo: what the table says about it, and what the scheduler is told."""

    about: str
    job: dict[str, Any]
    """Arguments of `add_job`; its id is the job's name."""


def steady() -> None:
    """Takes 50 ms, every time."""
    time.sleep(0.05)


def slow(stop: Event) -> None:
    """Takes between 1.5 and 4 seconds."""
    stop.wait(random.uniform(1.5, 4))


def flaky() -> str:
    """Fails one time in three, with a chain of causes."""
    if random.random() > 1 / 3:
        return "sent"
    try:
        raise TimeoutError("no answer from mail.example within 2 s")
    except TimeoutError as error:
        raise ConnectionError("the newsletter could not be sent") from error


def broken() -> None:
    """Never works."""
    amounts = {"EUR": 12}
    raise KeyError(f"no exchange rate for 'USD', only for {sorted(amounts)}")


def overlapping(stop: Event) -> None:
    """Takes longer than its interval, so that due runs find it still running."""
    stop.wait(2.5)


def long(stop: Event) -> None:
    """Takes 8 seconds and all of a pool with one thread."""
    stop.wait(8)


def waiting() -> None:
    """Would be quick, but waits behind `long` until it is too late."""


def nightly() -> None:
    """Runs never here: it is paused."""


def once() -> str:
    """Runs one time."""
    return "welcome"


def crunch(rounds: int) -> str:
    """Keeps a processor busy, in a process of its own."""
    digest = b"taskscope"
    for _ in range(rounds):
        digest = sha256(digest).digest()
    return digest.hex()


async def fetch() -> None:
    """Awaits something for 200 to 500 ms."""
    await asyncio.sleep(random.uniform(0.2, 0.5))


async def poll_feed() -> None:
    """Gives up one time in five."""
    await asyncio.sleep(0.1)
    if random.random() < 0.2:
        raise TimeoutError("the feed did not answer within 100 ms")


def background_plans(stop: Event, now: datetime) -> list[Plan]:
    """Jobs for a scheduler with pools of threads, of one thread (`narrow`) and of processes (`process`)."""
    return [
        Plan("50 ms, every second", _every(1, steady, now)),
        Plan("1.5 to 4 s, every 8 s", _every(8, slow, now, args=[stop])),
        Plan("fails 1 time in 3", _every(2, flaky, now)),
        Plan("always fails", _every(5, broken, now)),
        Plan("2.5 s, due every second", _every(1, overlapping, now, args=[stop])),
        Plan("8 s, pool of one thread", _every(15, long, now, args=[stop], executor="narrow")),
        Plan(
            "too late behind long",
            _every(3, waiting, now, id="misfiring", executor="narrow", misfire_grace_time=1, max_instances=5),
        ),
        Plan("CPU work in a process", _every(3, crunch, now, args=[200_000], executor="process")),
        Plan(
            "one time only",
            {"func": once, "id": "one_shot", "trigger": "date", "run_date": now + timedelta(seconds=4)},
        ),
        Plan(
            "every night, paused",
            {"func": nightly, "id": "paused", "trigger": "cron", "hour": 3, "next_run_time": None},
        ),
    ]


def asyncio_plans(now: datetime) -> list[Plan]:
    """Jobs for a scheduler on an event loop."""
    return [
        Plan("awaits 200 to 500 ms", _every(2, fetch, now)),
        Plan(
            "cron; fails 1 time in 5",
            {"func": poll_feed, "id": "poll_feed", "trigger": "cron", "second": "*/5"},
        ),
    ]


def _every(seconds: float, func: Any, now: datetime, **more: Any) -> dict[str, Any]:
    """First in a moment, then at this interval."""
    start = now + timedelta(seconds=0.5)
    return {
        "func": func,
        "id": func.__name__,
        "trigger": "interval",
        "seconds": seconds,
        "start_date": start,
        **more,
    }
