"""The alerts of the day: as Prometheus records them, and as Alertmanager tells of them."""

import json
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, NamedTuple

from day.script import HOUR, MINUTE


def _job(scheduler: str, name: str) -> dict[str, str]:
    return {"scheduler": scheduler, "job_name": name}


class Firing(NamedTuple):
    """One alert; `since` and `until` are seconds before the day's end."""

    name: str
    severity: str
    summary: str
    about: dict[str, str]
    since: float
    until: float | None = None
    """None while it fires."""

    @property
    def labels(self) -> dict[str, str]:
        """What identifies it."""
        return {"alertname": self.name, "severity": self.severity, **self.about}

    def samples(self, before_end: float, end: float) -> list[bytes]:
        """What Prometheus records of it so many seconds before the day's end; nothing while it does not fire."""
        if not (self.until or -1.0) < before_end <= self.since:
            return []
        labels = ",".join(f'{name}="{value}"' for name, value in self.labels.items())
        at = end - before_end
        fires = f'ALERTS{{{labels},alertstate="firing"}} 1 {at:.3f}\n'
        since = f"ALERTS_FOR_STATE{{{labels}}} {end - self.since:.0f} {at:.3f}\n"
        return [fires.encode(), since.encode()]

    def told(self, end: float, *, firing: bool) -> dict[str, Any]:
        """What Alertmanager says of it when it begins, and when it is over."""
        ended = _written(end - (self.until or 0.0))
        return {
            "status": "firing" if firing else "resolved",
            "labels": self.labels,
            "annotations": {"summary": self.summary, "description": f"{self.summary[:-1]}: {self.about}."},
            "startsAt": _written(end - self.since),
            "endsAt": "0001-01-01T00:00:00Z" if firing else ended,
            "generatorURL": "http://localhost:9090/graph",
            "fingerprint": sha256(json.dumps(self.labels).encode()).hexdigest()[:16],
        }


FIRINGS = (
    Firing(
        "TaskscopeJobConsecutiveFailures",
        "critical",
        "A job fails again and again.",
        _job("shop", "charge_cards"),
        since=24 * HOUR,
    ),
    Firing(
        "TaskscopeJobLastRunFailed",
        "critical",
        "The last run of a job failed.",
        _job("reports", "nightly_invoice"),
        since=20 * MINUTE,
    ),
    Firing(
        "TaskscopeJobOverdue",
        "critical",
        "A job was due and did not start.",
        _job("mailbox", "poll_mailbox"),
        since=30 * MINUTE,
    ),
    Firing(
        "TaskscopeDown",
        "critical",
        "A taskscope cannot be scraped.",
        {"job": "taskscope", "instance": "web-2:9750"},
        since=15 * MINUTE,
    ),
    Firing(
        "TaskscopeJobMisfired",
        "warning",
        "A job was started too late and left out.",
        _job("shop", "refresh_cache"),
        since=5 * HOUR,
        until=4 * HOUR,
    ),
    Firing(
        "TaskscopePipelineLagging",
        "warning",
        "The history falls behind.",
        {"instance": "web-1:9750"},
        since=2 * HOUR,
        until=HOUR,
    ),
)


def notification(end: float) -> bytes:
    """Everything that Alertmanager told in the course of the day."""
    begun = [each.told(end, firing=True) for each in FIRINGS]
    over = [each.told(end, firing=False) for each in FIRINGS if each.until is not None]
    return json.dumps({"version": "4", "status": "firing", "alerts": [*begun, *over]}).encode()


def _written(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
