"""Tells Alertmanager of findings: again and again while they are open, and once more when they have recovered."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from http.client import HTTPException
from typing import Any, Protocol
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import msgspec

from taskscope.errors import Unavailable
from taskscope.identity import text
from taskscope.inspection.scene import belonging
from taskscope.live import Live
from taskscope.rules import rule_for
from taskscope.settings import Settings
from taskscope.sinks.history.finding_records import Finding
from taskscope.sinks.history.queries import Queries

_HOLDS = (
    300.0  # seconds for which what was told holds: Alertmanager takes what is not told again for resolved
)
_RESOLVED_FOR = 3_600_000  # ms for which it is told that something has recovered
_LATE = 86_400_000  # ms for which what nobody was told of is told after it recovered


class Tells(Protocol):
    """Has written that these findings (ids) were told at this time (ms)."""

    def __call__(self, ids: Sequence[bytes], at: int, /) -> Future[None]:
        """Begin to."""


class Teller:
    """Sends what the settings want to be told. Alertmanager may be away for as long as it likes."""

    def __init__(
        self,
        settings: Settings,
        queries: Queries,
        told: Tells,
        live: Live,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings, self._queries, self._told = settings, queries, told
        self._live, self._clock = live, clock

    def adopt(self, settings: Settings) -> None:
        """Tell by these settings; from any thread."""
        self._settings = settings

    def tell(self) -> int:
        """Tell what is to be told now; how many findings that were. Raises `Unavailable`."""
        now = round(self._clock() * 1000)
        with self._queries.alone("tell") as mine:
            wanted = list(self._wanted(now)) if mine else []
            if wanted:
                labels = belonging(self._settings, self._queries, self._live)
                self._post([self._alert(one, labels(one.scheduler), now) for one in wanted])
                new = [one.id for one in wanted if not one.told]
                if new:
                    self._told(new, now).result(_PATIENCE)
        return len(wanted)

    def _wanted(self, now: int) -> Iterator[Finding]:
        """What is open, what recovered lately, and what recovered before anybody could be told of it.

        Of a subject that comes and goes, what its silence lets through.
        """
        quiet_until: dict[bytes, int] = {}
        for one in self._queries.current_findings(now - self._remembered()):
            rules = self._settings.inspections.get(one.inspection)
            if rules is None or one.level not in rules.notify.levels:
                continue
            if not one.told and (one.started if one.recovered else now) < quiet_until.get(one.subject, 0):
                continue
            if one.told:
                quiet_until[one.subject] = (one.recovered or now) + round(rules.notify.silence * 1000)
            if now - one.recovered < (_RESOLVED_FOR if one.told else _LATE) or not one.recovered:
                yield one

    def _remembered(self) -> int:
        """For how long (ms) it matters what has recovered."""
        silences = (rules.notify.silence for rules in self._settings.inspections.values())
        return max(_LATE, round(max(silences, default=0.0) * 1000))

    def _alert(self, one: Finding, belongs: Mapping[str, str], now: int) -> dict[str, Any]:
        """The finding in the words of Alertmanager's API v2."""
        receivers = self._settings.inspections[one.inspection].notify.receivers
        labels = {
            **belongs,
            "alertname": alert_of(one.kind),
            "severity": one.level,
            "scheduler": one.scheduler,
            "job_name": one.job,
            "inspection": one.inspection,
            "finding": one.subject.hex(),
            "receiver": ",".join(receivers),
            "team": rule.team if (rule := rule_for(self._settings, (one.scheduler, one.job))) else "",
        }
        ends = one.recovered if one.recovered and one.told else now + round(_HOLDS * 1000)
        return {
            "labels": {name: value for name, value in labels.items() if value},
            "annotations": {name: value for name, value in self._annotations(one).items() if value},
            "startsAt": _written(one.started),
            "endsAt": _written(ends),
            "generatorURL": f"{self._link('taskscope')}/api/finding/{text(one.id)}",
        }

    def _annotations(self, one: Finding) -> dict[str, str]:
        ours, error, run = self._link("taskscope"), one.details.get("error"), one.details.get("run")
        return {
            "summary": one.title,
            "description": one.overview,
            "stack": str(one.details.get("stack", ""))[-_STACK:],
            "error_url": self._page("groups", "fingerprint", error) if error else "",
            "run_url": self._page("run", "run_id", f"/api/task/{run}") if run else "",
            "dashboard_url": f"{self._link('grafana')}/d/taskscope-findings?var-finding={text(one.id)}",
            "runbook_url": f"{ours}/runbook#{alert_of(one.kind).lower()}",
            "config_url": self._settings.links.get("config", ""),
        }

    def _page(self, page: str, variable: str, path: str) -> str:
        """Where people read of an error or a run: the page in Grafana where it is known, else the API's answer."""
        if "grafana" in self._settings.links:
            return f"{self._link('grafana')}/d/taskscope-{page}?var-{variable}={path.rpartition('/')[2]}"
        return f"{self._link('taskscope')}{path}"

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
        except (OSError, HTTPException, ValueError) as error:
            raise Unavailable(f"Alertmanager does not answer ({getattr(error, 'reason', error)})") from error


def alert_of(kind: str) -> str:
    """The name of the alert about findings of this kind."""
    return "TaskscopeFound" + kind.title().replace("_", "")


def _written(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


_PATIENCE = 10.0  # seconds
_STACK = 1_000  # characters
_HERE = {"taskscope": "http://localhost:9750", "grafana": "http://localhost:3000"}
"""Where people reach what findings link to, unless `links` says otherwise."""
