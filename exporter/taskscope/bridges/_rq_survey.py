"""Reads what RQ keeps in Redis now: two round trips, and nothing that changes a key or its time to live."""

from collections.abc import Callable, Iterable
from typing import Any

from msgspec import Struct, field

from taskscope.bridges._rq_layout import CRON_FIELDS, MARK, WORKER_FIELDS, Keys, text, whole

_SCHEDULED = 200  # of the jobs that are due next, of each queue


class Batch:
    """Questions that go to Redis in one round trip, each with somebody who takes the answer."""

    def __init__(self, client: Any) -> None:
        self._pipe, self._takers = client.pipeline(transaction=False), []  # type: tuple[Any, list[Callable[[Any], object]]]

    def __len__(self) -> int:
        return len(self._takers)

    def ask(self, take: Callable[[Any], object], command: str, *arguments: Any, **options: Any) -> None:
        """Ask `command`, a method of redis-py, and give the answer to `take`."""
        getattr(self._pipe, command)(*arguments, **options)
        self._takers.append(take)

    def go(self) -> None:
        """Send all questions, hand out all answers."""
        if self._takers:
            takers, self._takers = self._takers, []
            for take, answer in zip(takers, self._pipe.execute(), strict=True):
                take(answer)


class QueueSurvey(Struct):
    """What stands in a queue and its registries."""

    name: str
    ready: int = 0
    head: str = ""
    """The job that is taken next, which usually is the oldest."""
    executing: dict[str, float] = field(default_factory=dict)
    """`job id:execution id` of attempts in progress, and when each is given up unless its worker is heard of."""
    scheduled: dict[str, float] = field(default_factory=dict)
    """Jobs that become ready later, and when: those that are due first."""
    scheduled_count: int = 0
    deferred: int = 0
    failed: int = 0


class WorkerSurvey(Struct):
    """What a worker says of itself."""

    name: str
    there: bool
    """Its hash is gone when it was not heard of for long."""
    state: str
    queues: tuple[str, ...]
    count: int
    """Attempts that it ended, ever."""
    watched: bool
    """It tells its runs itself."""


class Survey(Struct):
    """What Redis says now."""

    at: float = 0.0
    """By the clock of Redis, which is the only one here that everybody knows."""
    suspended: bool = False
    queues: dict[str, QueueSurvey] = field(default_factory=dict)
    workers: dict[str, WorkerSurvey] = field(default_factory=dict)
    crons: dict[str, tuple[str, str]] = field(default_factory=dict)
    """JSON of the jobs of each cron scheduler that lives, and since when it does."""


class Surveyor:
    """Reads surveys."""

    def __init__(self, client: Any, keys: Keys, queues: Iterable[str] = ()) -> None:
        """Of these queues alone, if any are named."""
        self._client, self._keys, self._queues = client, keys, frozenset(queues)

    def survey(self, more: Callable[[Batch, Survey], None]) -> Survey:
        """What is there now; `more` may ask for more in the second round trip."""
        batch, keys, read = Batch(self._client), self._keys, Survey()
        names: dict[str, list[str]] = {}
        batch.ask(lambda at: setattr(read, "at", at[0] + at[1] / 1e6), "time")
        batch.ask(lambda found: setattr(read, "suspended", bool(found)), "exists", keys.suspended)
        batch.ask(lambda found: names.update(queues=self._wanted(found)), "smembers", keys.queues)
        batch.ask(lambda found: names.update(workers=sorted(self._names(found))), "smembers", keys.workers)
        batch.ask(
            lambda found: names.update(crons=[text(name) for name in found]), "zrange", keys.crons, 0, -1
        )
        batch.go()
        for name in names["queues"]:
            self._ask_queue(batch, read.queues.setdefault(name, QueueSurvey(name)))
        for name in names["workers"]:
            self._ask_worker(batch, name, read.workers)
        for name in names["crons"]:
            self._ask_cron(batch, name, read.crons)
        more(batch, read)
        batch.go()
        return read

    def _wanted(self, found: Iterable[bytes]) -> list[str]:
        names = self._names(found)
        return sorted(names & self._queues if self._queues else names)

    def _names(self, found: Iterable[bytes]) -> set[str]:
        return {self._keys.last(text(key)) for key in found}

    def _ask_queue(self, batch: Batch, queue: QueueSurvey) -> None:
        def count(name: str) -> Callable[[int], None]:
            return lambda value: setattr(queue, name, value)

        def scored(into: dict[str, float]) -> Callable[[Any], None]:
            return lambda found: into.update((text(member), float(score)) for member, score in found)

        key, registry = self._keys.queue(queue.name), self._keys.registry
        batch.ask(count("ready"), "llen", key)
        batch.ask(lambda head: setattr(queue, "head", text(head)), "lindex", key, 0)
        batch.ask(scored(queue.executing), "zrange", registry("wip", queue.name), 0, -1, withscores=True)
        scheduled = registry("scheduled", queue.name)
        batch.ask(scored(queue.scheduled), "zrange", scheduled, 0, _SCHEDULED - 1, withscores=True)
        batch.ask(count("scheduled_count"), "zcard", scheduled)
        batch.ask(count("deferred"), "zcard", registry("deferred", queue.name))
        batch.ask(count("failed"), "zcard", registry("failed", queue.name))

    def _ask_worker(self, batch: Batch, name: str, into: dict[str, WorkerSurvey]) -> None:
        def take(values: list[bytes | None]) -> None:
            said = dict(zip(WORKER_FIELDS, values, strict=True))
            into[name] = WorkerSurvey(
                name,
                said["state"] is not None,
                text(said["state"]),
                tuple(filter(None, text(said["queues"]).split(","))),
                (whole(said["successful_job_count"]) or 0) + (whole(said["failed_job_count"]) or 0),
                said[MARK] is not None,
            )

        batch.ask(take, "hmget", self._keys.worker(name), WORKER_FIELDS)

    def _ask_cron(self, batch: Batch, name: str, into: dict[str, tuple[str, str]]) -> None:
        def take(values: list[bytes | None]) -> None:
            if values[0] is not None:
                into[name] = (text(values[0]), text(values[1]))

        batch.ask(take, "hmget", self._keys.cron(name), CRON_FIELDS)
