"""Celery's events as its workers and publishers send them, without Celery; and what becomes of the facts about them."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec

from taskscope.bridges._celery_events import CeleryEvent
from taskscope.bridges._celery_join import Join
from taskscope.events import Fact
from taskscope.facts import Row, merge, row_of

NOW = 1_700_000_000.0
SOME_TRACEBACK = """\
Traceback (most recent call last):
  File "shop.py", line 3, in work
    raise ValueError("boom")
ValueError: boom
"""


def event(
    kind: str, at: float = 0.0, uuid: str = "u", hostname: str = "w1@shop", **fields: Any
) -> CeleryEvent:
    """`task-…` or `worker-…`, `at` seconds after NOW, decoded from its JSON."""
    told = {
        "type": kind,
        "timestamp": NOW + at,
        "hostname": hostname,
        "utcoffset": 0,
        "clock": 7,
        "pid": 1,
        **fields,
    }
    if kind.startswith("task-"):
        told["uuid"] = uuid
    return msgspec.json.decode(msgspec.json.encode(told), type=CeleryEvent)


def sent(at: float, retries: int = 0, **fields: Any) -> CeleryEvent:
    """A publisher sent the task."""
    named = {"name": "shop.work", "queue": "mail", "retries": retries, "hostname": "gen7@web"}
    return event("task-sent", at, **{**named, **fields})


def received(at: float, retries: int = 0, **fields: Any) -> CeleryEvent:
    """A worker took it."""
    return event("task-received", at, **{"name": "shop.work", "retries": retries, **fields})


def joined(*batches: Iterable[CeleryEvent], waits: float = 10.0) -> list[Fact]:
    """What is told of events that come in these batches, and of their end `waits` seconds later."""
    join = Join("s", 1_000, lambda worker: "")
    facts = []
    for batch in batches:
        for one in batch:
            join.take(one, NOW)
        facts += join.told(NOW)
    return facts + join.told(NOW + waits)


def rows(facts: Iterable[Fact]) -> dict[tuple[str, int], Row]:
    """Every run as the store merges it, by native id and attempt."""
    merged: dict[tuple[str, int], Row] = {}
    for fact in facts:
        key, row = (fact.native, fact.attempt), row_of(fact, bytes(16))
        merged[key] = merge(merged[key], row) if key in merged else row
    return merged


def statuses(facts: Iterable[Fact]) -> Counter[str]:
    """How many runs ended how."""
    return Counter(row.status for row in rows(facts).values())
