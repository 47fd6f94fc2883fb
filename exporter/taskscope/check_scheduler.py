"""`taskscope check celery=redis://…`: connects as `serve` would, takes one reading, and says what is wrong."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from taskscope import bridges, collector
from taskscope.check import Finding
from taskscope.errors import BadArgument
from taskscope.events import QueueState, Reading, WorkerState
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
            if self.of(WorkerState) or time.monotonic() > until:
                return []
            time.sleep(0.2)

    def of(self, kind: type[Reading]) -> list[Reading]:
        """The readings of this kind."""
        return [reading for reading in self.readings if isinstance(reading, kind)]

    def _judged(self, failures: list[str]) -> Iterator[Finding]:
        where = masked(self._bridge.url)
        if failures:
            yield Finding(self._name, False, f"{failures[0].rstrip('.')}.")
            return
        yield Finding(self._name, True, f"{where} answers.")
        workers, queues = self.of(WorkerState), self.of(QueueState)
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
