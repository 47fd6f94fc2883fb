"""A job system as small as can be, watched at its URL: what runs do is pushed to a list of Redis.

`events` holds `job:id:status`; `work` is a queue, `workers` the set of its workers.
"""

import time
from collections.abc import Callable, Iterable
from threading import Event as Flag
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from taskscope.contracts import Bridge, Emit
from taskscope.errors import BadArgument
from taskscope.events import Fact, QueueState, Reading, SchedulerState, WorkerState


class RedisListOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What can be said of it."""

    key: Annotated[str, Meta(description="The list of events.")] = "events"


class RedisListBridge(Bridge):
    """Pops events, and counts what waits."""

    system = "redislist"
    schemes = ("redis",)
    Options = RedisListOptions
    options: RedisListOptions

    def __init__(self, target: Any, name: str) -> None:
        if not target.rpartition("/")[2].isdecimal():
            raise BadArgument(f"schedulers.{name}.target ends in no number of a database")
        self._url, self._name = target, name
        self._emit: Emit = lambda told: None

    def attach(self, emit: Emit) -> None:
        self._emit = emit

    def listen(self, stop: Flag, heard: Callable[[], None]) -> None:
        with self._client() as redis:
            redis.ping()
            heard()
            while not stop.is_set():
                if popped := redis.blmpop(0.2, 1, self.options.key, direction="LEFT", count=500):
                    for text in popped[1]:
                        self._tell(*text.decode().split(":"))
                heard()

    def poll(self) -> Iterable[Reading]:
        now = time.time()
        with self._client() as redis:
            workers, ready = sorted(redis.smembers("workers")), redis.llen("work")
            key_there = redis.exists("work")
        yield SchedulerState(scheduler=self._name, system=self.system, at=now, up=True, running=True)
        if key_there:
            yield QueueState(scheduler=self._name, queue="work", at=now, ready=ready)
        for worker in workers:
            yield WorkerState(scheduler=self._name, worker=worker.decode(), at=now)

    def detach(self) -> None:
        self._emit = lambda told: None

    def _client(self) -> Any:
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        return Redis.from_url(
            self._url, socket_timeout=2, socket_connect_timeout=2, retry=Retry(NoBackoff(), 0)
        )

    def _tell(self, job: str, native: str, status: Any) -> None:
        self._emit(
            Fact(scheduler=self._name, native=f"{job}-{native}", status=status, at=time.time(), job=job)
        )
