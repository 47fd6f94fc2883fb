"""`taskscope check celery=redis://…`: connects as `serve` would, takes one reading, and says what is wrong."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias, TypeVar

import msgspec
from rich.console import Console

from taskscope import bridges, collector, show
from taskscope.check import Finding
from taskscope.errors import BadArgument
from taskscope.events import Jobs, QueueState, Reading, SchedulerState, WorkerState
from taskscope.settings import Settings, Source
from taskscope.unreachable import sentence
from taskscope.values import masked

_PATIENCE = 5.0  # seconds for a connection to stand
_LOOK = 3.0  # seconds in which workers that are there have said so


def source_of(told: str, settings: Settings) -> tuple[str, Source]:
    """The name and source that `told` means: `SYSTEM=URL`, or a scheduler of the settings. Raises `BadArgument`."""
    system, is_url, url = told.partition("=")
    if is_url:
        return system, Source(system=system, target=url)
    if told not in settings.schedulers:
        known = ", ".join(settings.schedulers) or "none"
        raise BadArgument(
            f"{masked(told)!r} is no scheduler of the settings (there: {known}); give one, or SYSTEM=URL"
        )
    return told, settings.schedulers[told]


class Look:
    """One look at a scheduler that is watched by its URL."""

    def __init__(self, name: str, source: Source) -> None:
        """Raises `BadArgument`."""
        found = collector.target(name, source) if "://" in source.target else None
        if found is None:
            raise BadArgument(
                f"{name} is {masked(source.target)!r}, which only `taskscope serve` imports: that starts its jobs. "
                "`taskscope check` without a name looks whether it is there"
            )
        self._name, self._bridge = name, bridges.made(found, name)
        self.readings: list[Reading] = []

    def findings(self) -> Iterator[Finding]:
        """What is wrong, or that nothing is."""
        self._bridge.attach(lambda told: None)
        try:
            with self._listening() as failures:
                failures += self._read(until=time.monotonic() + _LOOK if self._bridge.listens else 0.0)
        finally:
            self._bridge.detach()
        yield from self._judged(failures[:1])

    @contextmanager
    def _listening(self) -> Iterator[list[str]]:
        """Inside, it listens, if it does; gives why that failed."""
        stop, heard = threading.Event(), threading.Event()
        failures: list[str] = []
        ear = threading.Thread(target=self._listen, args=(stop, heard, failures), daemon=True)
        if self._bridge.listens:
            ear.start()
            if not heard.wait(_PATIENCE):
                failures.append(f"it does not answer within {_PATIENCE:g} s")
        try:
            yield failures
        finally:
            stop.set()
            if ear.ident:
                ear.join(_PATIENCE)

    def _listen(self, stop: threading.Event, heard: threading.Event, failures: list[str]) -> None:
        try:
            self._bridge.listen(stop, heard.set)
        except Exception as error:  # noqa: BLE001 - whatever a library raises is what is asked for
            failures.append(sentence(error, self._bridge.url))
        heard.set()

    def _read(self, until: float) -> list[str]:
        """Read until a worker is seen, or it is time; gives why that failed."""
        while True:
            try:
                self.readings = list(self._bridge.poll())
            except Exception as error:  # noqa: BLE001 - as above
                return [sentence(error, self._bridge.url)]
            if _of(WorkerState, self.readings) or time.monotonic() > until:
                return []
            time.sleep(0.2)

    def _judged(self, failures: list[str]) -> Iterator[Finding]:
        where = masked(self._bridge.url)
        if failures:
            yield Finding(self._name, False, f"{failures[0].rstrip('.')}.")
            return
        yield Finding(self._name, True, f"{where} answers.")
        workers, queues = _of(WorkerState, self.readings), _of(QueueState, self.readings)
        if not workers and not queues:
            yield Finding(
                self._name,
                False,
                f"Nothing of {self._bridge.system} is there: no worker and no queue was found. Is it the right "
                "database or virtual host, and does a worker run?",
            )
        elif not workers:
            yield Finding(
                self._name, False, "No worker was found; start one, or what waits will go on waiting."
            )


def print_readings(console: Console, readings: Sequence[Reading], as_json: bool) -> None:
    """What was read, in tables for people; one JSON object a line for programs."""
    if as_json:
        for reading in readings:
            show.print_line(console, msgspec.json.encode(reading, enc_hook=repr).decode())
        return
    for state in _of(SchedulerState, readings):
        for line in state.summary:
            show.print_line(console, show.printable(line))
    for columns, rows in (_queues(readings), _workers(readings), _jobs(readings)):
        if rows:
            show.print_line(console, "")
            show.print_table(console, columns, rows)


Kind = TypeVar("Kind", bound=Reading)
Table: TypeAlias = tuple[Sequence[show.Column], list[list[str]]]


def _of(kind: type[Kind], readings: Sequence[Reading]) -> list[Kind]:
    return [reading for reading in readings if isinstance(reading, kind)]


def _queues(readings: Sequence[Reading]) -> Table:
    numbers = ("ready", "in flight", "scheduled", "consumers")
    columns = [show.Column("queue", cut=True), *(show.Column(name, right=True) for name in numbers)]
    return columns, [
        [queue.queue, *map(_number, (queue.ready, queue.in_flight, queue.scheduled, queue.consumers))]
        for queue in _of(QueueState, readings)
    ]


def _workers(readings: Sequence[Reading]) -> Table:
    columns = [show.Column("worker", cut=True), show.Column("is"), show.Column("active", right=True)]
    return columns, [
        [worker.worker, "up" if worker.up else "down", _number(worker.active)]
        for worker in _of(WorkerState, readings)
    ]


def _jobs(readings: Sequence[Reading]) -> Table:
    columns = [show.Column("job", cut=True), show.Column("next run")]
    return columns, [
        [
            job.name,
            "paused" if job.paused else show.moment(int(job.next_run * 1000) if job.next_run else None),
        ]
        for reading in _of(Jobs, readings)
        for job in reading.jobs
    ]


def _number(count: int | None) -> str:
    return "" if count is None else str(count)
