"""Inspects: looks at a window of the history, and says what has become of what was found in it."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Protocol

from msgspec.structs import replace

from taskscope.errors import TaskscopeError
from taskscope.events import JobKey
from taskscope.inspection import looks
from taskscope.inspection.ledger import settled
from taskscope.inspection.scene import DAY, HOUR, Found, Scene, belonging, graces
from taskscope.inspection.timetable import latest_due
from taskscope.live import Live
from taskscope.settings import Inspection, Settings
from taskscope.sinks.history.finding_records import Finding, Inspected
from taskscope.sinks.history.queries import Queries

logger = logging.getLogger("taskscope")

_LONGEST = 24  # windows that one inspection looks at, after a long absence
_PATIENCE = 30.0  # seconds for what was found to be durable


class Keep(Protocol):
    """Has findings, and how an inspection went, written: durable once the future is done."""

    def __call__(self, findings: Sequence[Finding], inspected: Inspected | None, /) -> Future[None]:
        """Begin to."""


class Inspector:
    """All inspections that the settings name."""

    def __init__(
        self,
        settings: Settings,
        queries: Queries,
        keep: Keep | None = None,
        clock: Callable[[], float] = time.time,
        stopped: Callable[[], bool] = lambda: False,
        live: Live | None = None,
    ) -> None:
        """Without `keep` it can only `look`; inspections end when `stopped`. `live` is what is true right now."""
        self._live = Live() if live is None else live
        self._settings, self._queries, self._keep_both = settings, queries, keep
        self._clock, self._stopped = clock, stopped
        self._is_tidy = False

    def catch_up(self) -> list[Inspected]:
        """Do the inspections that are due; of those that were missed one for all. Says how they went."""
        self._tidy()
        done, made = self._queries.inspections(), []
        for name, rules in self._settings.inspections.items():
            if rules.enabled and self._is_due(name, done) and not self._stopped():
                with self._queries.alone("inspect") as mine:
                    done = self._queries.inspections()
                    if mine and self._is_due(name, done):  # nobody else has done it meanwhile
                        made.append(self._inspect(name, done.get(name) or Inspected(name=name)))
        return made

    def look(self, name: str, end: int, begin: int | None = None) -> list[Finding]:
        """What an inspection of the window that ends at `end` (ms) finds, or finds no more. Writes nothing.

        A window that begins earlier than usual is looked at as a whole. Raises `TimeoutError`.
        """
        rules = self._settings.inspections[name]
        end = end // HOUR * HOUR
        begin = min(end - window_of(rules), end if begin is None else begin // HOUR * HOUR)
        known = self._queries.current_findings(begin - 7 * DAY, name)
        scene = self._scene(rules, known, begin, end)
        deadline = time.monotonic() + rules.timeout
        found = [
            finding
            for each in rules.looks
            for finding in settled(name, each, known, self._in_time(each, scene, deadline), begin, end)
        ]
        left = [one for one in known if not one.recovered and one.look not in rules.looks]
        return [*found, *(replace(one, recovered=end) for one in left)]

    def _scene(self, rules: Inspection, known: Sequence[Finding], begin: int, end: int) -> Scene:
        queues: Mapping[JobKey, frozenset[str]] = {}
        if rules.queues:
            queues = self._queries.job_queues(begin - DAY)
        return Scene(
            rules=rules,
            queries=self._queries,
            jobs=self._queries.job_states(),
            queues=queues,
            begin=begin,
            end=end,
            absences=self._queries.absences(),
            labels=belonging(self._settings, self._queries, self._live),
            grace=graces(self._settings),
            resumed=self._live.resumed(),
            known=tuple(known),
        )

    def _in_time(self, look: str, scene: Scene, deadline: float) -> Iterator[Found]:
        for found in looks()[look](scene):
            if self._stopped():
                raise TimeoutError("taskscope ends")
            if time.monotonic() > deadline:
                break
            yield found
        if time.monotonic() > deadline:
            raise TimeoutError(f"it took longer than {scene.rules.timeout:g} s (its `timeout`), at {look}")

    def _is_due(self, name: str, done: Mapping[str, Inspected]) -> bool:
        """One that gave up is tried again when the next is due, which then looks at both windows."""
        last = done.get(name)
        due = latest_due(self._settings.inspections[name], self._clock()) * 1000
        if last is None:
            return True
        return due // HOUR * HOUR > last.through and not (last.failure and last.at >= due)

    def _inspect(self, name: str, last: Inspected) -> Inspected:
        rules, begun, now = self._settings.inspections[name], time.monotonic(), self._clock()
        due = round(latest_due(rules, now) * 1000) // HOUR * HOUR
        found, through, failure = list[Finding](), due, ""
        try:
            earliest = due - _LONGEST * window_of(rules)
            found = self.look(name, due, max(last.through, earliest) if last.through else None)
        except (TaskscopeError, TimeoutError) as error:
            failure = str(error)
        except Exception as error:  # noqa: BLE001 - isolation: a fault of ours must not stop the other inspections
            failure = f"{type(error).__name__}: {error}"
        if failure:
            through = last.through or due - window_of(rules)
            logger.warning("taskscope: inspection %s gave up: %s", name, failure)
        inspected = Inspected(
            name=name,
            through=through,
            at=round(now * 1000),
            took=round((time.monotonic() - begun) * 1000),
            found=sum(not one.recovered for one in found),
            failure=failure,
        )
        self._keep(found, inspected)
        return inspected

    def _keep(self, found: Sequence[Finding], inspected: Inspected | None = None) -> None:
        assert self._keep_both is not None
        self._keep_both(found, inspected).result(_PATIENCE)

    def _tidy(self) -> None:
        """What an inspection found that the settings do not name any more, nobody will find recovered."""
        if self._is_tidy:
            return
        now = round(self._clock() * 1000)
        known = self._queries.current_findings(now)
        left = [
            one for one in known if not one.recovered and one.inspection not in self._settings.inspections
        ]
        if left:
            self._keep([replace(one, recovered=now) for one in left])
        self._is_tidy = True


def window_of(rules: Inspection) -> int:
    """How long its window is, in ms: whole hours."""
    return round(rules.window * 1000) // HOUR * HOUR
