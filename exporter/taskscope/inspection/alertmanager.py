"""Tells Alertmanager of findings: again and again while they are open, and once more when they have recovered."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import msgspec
from msgspec.structs import replace

from taskscope.errors import TaskscopeError, Unavailable
from taskscope.identity import text
from taskscope.inspection.inspector import Keep
from taskscope.settings import Settings
from taskscope.sinks.history.finding_records import Finding
from taskscope.sinks.history.queries import Queries

logger = logging.getLogger("taskscope")

_EVERY = (
    60.0  # seconds; Alertmanager takes an alert that is not sent again for resolved after `resolve_timeout`
)
_HOLDS = 300.0  # seconds for which what was told holds
_RESOLVED_FOR = 3_600_000  # ms for which it is told that something has recovered
_PATIENCE = 10.0  # seconds
_STACK = 1_000  # characters


class Teller:
    """Sends what the settings want to be told. Alertmanager may be away for as long as it likes."""

    def __init__(
        self,
        settings: Settings,
        queries: Queries,
        keep: Keep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings, self._queries, self._keep, self._clock = settings, queries, keep, clock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="taskscope-tell", daemon=True)
        self.failure = ""
        """Why Alertmanager did not take the latest; empty where it did."""

    def start(self) -> None:
        """Begin to tell, if there is anybody to be told."""
        if self._settings.alertmanager and self._settings.inspections:
            self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """Tell nothing more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def tell(self) -> int:
        """Tell what is to be told now; how many findings that were. Raises `Unavailable`."""
        now = round(self._clock() * 1000)
        with self._queries.alone("tell") as mine:
            wanted = list(self._wanted(now)) if mine else []
            if wanted:
                self._post([self._alert(one, now) for one in wanted])
        self._keep([replace(one, told=now) for one in wanted if not one.told], None)
        return len(wanted)

    def _run(self) -> None:
        while not self._stop.wait(_EVERY):
            try:
                self.tell()
            except TaskscopeError as error:
                self._report(str(error))
            except Exception:  # isolation: a fault of ours must not end it
                logger.exception("taskscope: telling Alertmanager failed in an unexpected way")
            else:
                self._report("")

    def _report(self, failure: str) -> None:
        """Log a failure once, and its end once."""
        if failure and not self.failure:
            logger.warning("taskscope cannot tell of findings: %s; it is tried again", failure)
        elif self.failure and not failure:
            logger.info("taskscope tells Alertmanager of findings again")
        self.failure = failure

    def _wanted(self, now: int) -> Iterator[Finding]:
        """What is open, and what recovered lately; of a subject that comes and goes what its silence lets through."""
        longest = max((rules.notify.silence for rules in self._settings.inspections.values()), default=0.0)
        told_until: dict[bytes, int] = {}
        for one in self._queries.current_findings(now - _RESOLVED_FOR - round(longest * 1000)):
            rules = self._settings.inspections.get(one.inspection)
            if rules is None or one.level not in rules.notify.levels:
                continue
            silent = one.started < told_until.get(one.subject, 0) and not one.told
            if one.told or not (silent or one.recovered):
                told_until[one.subject] = (one.recovered or now) + round(rules.notify.silence * 1000)
                if not one.recovered or one.recovered >= now - _RESOLVED_FOR:
                    yield one

    def _alert(self, one: Finding, now: int) -> dict[str, Any]:
        """The finding in the words of Alertmanager's API v2."""
        receivers = self._settings.inspections[one.inspection].notify.receivers
        labels = {
            "alertname": "Taskscope" + one.kind.title().replace("_", ""),
            "severity": one.level,
            "scheduler": one.scheduler,
            "job_name": one.job,
            "inspection": one.inspection,
            "finding": one.subject.hex(),
            "receiver": ",".join(receivers),
        }
        ends = one.recovered or now + round(_HOLDS * 1000)
        return {
            "labels": {name: value for name, value in labels.items() if value},
            "annotations": {name: value for name, value in self._annotations(one).items() if value},
            "startsAt": _written(one.started),
            "endsAt": _written(ends),
            "generatorURL": f"{self._link('taskscope')}/api/finding/{text(one.id)}",
        }

    def _annotations(self, one: Finding) -> dict[str, str]:
        ours, error = self._link("taskscope"), one.details.get("error")
        return {
            "summary": one.title,
            "description": one.overview,
            "stack": str(one.details.get("stack", ""))[-_STACK:],
            "error_url": f"{ours}{error}" if error else "",
            "dashboard_url": f"{self._link('grafana')}/d/taskscope-findings?var-finding={text(one.id)}",
            "runbook_url": f"{ours}/runbook#taskscope{one.kind.replace('_', '')}",
        }

    def _link(self, name: str) -> str:
        return self._settings.links.get(name, _HERE[name]).rstrip("/")

    def _post(self, alerts: Sequence[dict[str, Any]]) -> None:
        url = f"{str(self._settings.alertmanager).rstrip('/')}/api/v2/alerts"
        request = Request(url, msgspec.json.encode(alerts), {"Content-Type": "application/json"})
        try:
            urlopen(request, timeout=_PATIENCE).close()
        except HTTPError as error:
            raise Unavailable(
                f"Alertmanager answers {error.code}: {error.read(300).decode(errors='replace')}"
            ) from error
        except (OSError, ValueError) as error:
            raise Unavailable(f"Alertmanager does not answer ({getattr(error, 'reason', error)})") from error


def _written(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


_HERE = {"taskscope": "http://localhost:9750", "grafana": "http://localhost:3000"}
"""Where people reach what findings link to, unless `links` says otherwise."""
