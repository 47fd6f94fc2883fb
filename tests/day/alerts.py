"""The alerts of the day: as Prometheus records them, and as Alertmanager tells of them."""

import json
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, NamedTuple

from day.script import HOUR, MINUTE


class Firing(NamedTuple):
    """One alert; `since` and `until` are seconds before the day's end."""

    name: str
    severity: str
    scheduler: str
    job: str
    since: float
    until: float | None = None
    """None while it fires."""

    @property
    def labels(self) -> dict[str, str]:
        """What identifies it."""
        return {
            "alertname": self.name,
            "severity": self.severity,
            "scheduler": self.scheduler,
            "job_name": self.job,
        }

    def fires(self, before_end: float) -> bool:
        """Does it fire so many seconds before the day's end?"""
        return (self.until or -1.0) < before_end <= self.since

    def sample(self) -> bytes:
        """What Prometheus records of it while it fires."""
        labels = ",".join(f'{name}="{value}"' for name, value in self.labels.items())
        return f'ALERTS{{{labels},alertstate="firing"}} 1'.encode()

    def told(self, end: float, *, firing: bool) -> dict[str, Any]:
        """What Alertmanager says of it when it begins, and when it is over."""
        ended = _written(end - (self.until or 0.0))
        return {
            "status": "firing" if firing else "resolved",
            "labels": self.labels,
            "annotations": {"summary": f"{self.job} is not well.", "description": "It was told to be so."},
            "startsAt": _written(end - self.since),
            "endsAt": "0001-01-01T00:00:00Z" if firing else ended,
            "generatorURL": "http://localhost:9090/graph",
            "fingerprint": sha256(json.dumps(self.labels).encode()).hexdigest()[:16],
        }


FIRINGS = (
    Firing("TaskscopeJobConsecutiveFailures", "critical", "shop", "charge_cards", since=24 * HOUR),
    Firing("TaskscopeJobLastRunFailed", "critical", "reports", "nightly_invoice", since=20 * MINUTE),
    Firing("TaskscopeJobOverdue", "critical", "mailbox", "poll_mailbox", since=30 * MINUTE),
    Firing("TaskscopeJobMisfired", "warning", "shop", "refresh_cache", since=5 * HOUR, until=4 * HOUR),
)


def notification(end: float) -> bytes:
    """Everything that Alertmanager told in the course of the day."""
    begun = [each.told(end, firing=True) for each in FIRINGS]
    over = [each.told(end, firing=False) for each in FIRINGS if each.until is not None]
    return json.dumps({"version": "4", "status": "firing", "alerts": [*begun, *over]}).encode()


def _written(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
