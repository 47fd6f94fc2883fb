"""Tells a taskscope of a run while the command runs, on a thread of its own; what it does not take waits on disk."""

from __future__ import annotations

import os
import threading
from functools import cached_property

from taskscope.exec.options import home
from taskscope.exec.say import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    from taskscope.sinks.forward.address import Address
    from taskscope.sinks.forward.spool import Spool

    Events: TypeAlias = list[dict[str, Any]]

PATIENCE = 2.0  # seconds that the end of a command waits for the taskscope
_SAVING = 1.0  # seconds that it waits for the disk after that
_LINGER = 0.1  # seconds; a command that ends sooner is told of in one piece
_PATH = "/api/ingest/events"
_TYPE = "application/x-ndjson"


class Report:
    """Never raises, and never keeps the command waiting but for its bounded end."""

    def __init__(self, url: str, heartbeat: Callable[[], dict[str, Any]], every: float) -> None:
        """`heartbeat` makes the event that says that the run goes on; it is sent `every` so many seconds."""
        self._url, self._heartbeat, self._every = ("" if url == "null" else url), heartbeat, every
        self._pending: Events = []
        self._ended, self._done, self._lock = threading.Event(), threading.Event(), threading.Lock()
        self._address: Address | None = None
        self._said: set[str] = set()

    def begin(self, events: Events) -> None:
        """Tell these soon, and that the run goes on until `end`."""
        self._pending += events
        if self._url:
            self._on_a_thread(self._run, self._done)

    def end(self, events: Events) -> None:
        """Tell these as well; when this returns they are taken, on disk, or given up after a moment."""
        if not self._url:
            return
        with self._lock:
            self._pending += events
        self._ended.set()
        if not self._done.wait(PATIENCE) or self._pending:
            saved = threading.Event()
            self._on_a_thread(self._save, saved)
            saved.wait(_SAVING)
        if self._pending and not self._said:
            self._say(f"{self._url} and the disk do not answer; nobody hears how this run ended")

    def _run(self) -> None:
        self._ended.wait(_LINGER)
        self._isolated(self._send)
        while not self._ended.wait(self._every):
            self._isolated(lambda: self._send(self._heartbeat()))
        self._isolated(self._send)

    def _send(self, *beat: dict[str, Any]) -> None:
        """Have what waits taken, here and on disk; where that cannot be, have the disk keep it."""
        from taskscope.errors import Misdirected, Refused, TaskscopeError, Unavailable

        events = list(self._pending)
        if not events and not beat:
            return
        try:
            self._post(_lines([*events, *beat]))
            self._forget(events)
            self._spool.drain(self._post, self._say)
        except Refused as error:
            self._forget(events)
            self._say(str(error))
        except TaskscopeError as error:
            if isinstance(error, Misdirected) or not isinstance(
                error, Unavailable
            ):  # somebody must correct it
                self._say(str(error))
            self._save()

    def _post(self, body: bytes) -> None:
        from taskscope.sinks.forward.address import Address

        if self._address is None:
            token = os.environ.get("TASKSCOPE_FORWARD_TOKEN", "")
            certificates = os.environ.get("TASKSCOPE_FORWARD_CERTIFICATES") or None
            self._address = Address(self._url, token, certificates, timeout=PATIENCE)
        answer = self._address.post(_PATH, body, _TYPE)
        for why in _refusals(answer):
            self._say(f"{self._url} refuses an event: {why}")

    def _save(self) -> None:
        """Have the disk keep what waits."""
        from taskscope.errors import Unavailable

        try:
            if events := list(self._pending):
                self._spool.put(_lines(events))
                self._forget(events)
        except Unavailable as error:
            self._say(str(error))

    @cached_property
    def _spool(self) -> Spool:
        from taskscope.sinks.forward.spool import spool_for

        return spool_for(os.environ.get("TASKSCOPE_SPOOL") or os.path.join(home(), "spool"), self._url)

    def _forget(self, events: Events) -> None:
        with self._lock:
            self._pending = [event for event in self._pending if not any(event is one for one in events)]

    def _on_a_thread(self, work: Callable[[], None], done: threading.Event) -> None:
        def run() -> None:
            self._isolated(work)
            done.set()

        try:
            threading.Thread(target=run, daemon=True).start()
        except RuntimeError as error:  # the system has no thread left
            self._say(f"{error}; nobody hears of this run")
            done.set()

    def _isolated(self, work: Callable[[], None]) -> None:
        """Have it done; whatever goes wrong with it is one sentence, and what comes after it is done."""
        try:
            work()
        except Exception as error:  # noqa: BLE001 - isolation: the command must not notice
            self._say(f"{type(error).__name__}: {error}; not all that happened here arrives")

    def _say(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            say(sentence)


def _refusals(answer: bytes) -> list[str]:
    import json

    try:
        return [str(refused["error"]) for refused in json.loads(answer)["errors"]]
    except (ValueError, LookupError, TypeError):
        return []


def _lines(events: Events) -> bytes:
    import json

    return "\n".join(map(json.dumps, events)).encode()
