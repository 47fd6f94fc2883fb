"""Alerts in memory, for `history=None`: what `alerts` does with a table."""

from collections.abc import Mapping, Sequence

from taskscope.sinks.history.records import Alert, AlertFilter, AlertPage

KEPT = 1_000
"""Alerts that are remembered: first those that fire, of these the newest."""


class AlertLog:
    """The most recent alerts. Written by one thread, read by any."""

    def __init__(self) -> None:
        self._alerts: dict[bytes, Alert] = {}

    def record(self, alerts: Sequence[Alert]) -> None:
        """Keep what was told of alerts."""
        known = dict(self._alerts)  # not changed in place: other threads read it
        for alert in alerts:
            known[alert.id] = known[alert.id].merge(alert) if alert.id in known else alert
        kept = sorted(known, key=lambda id: (known[id].fires, id), reverse=True)[:KEPT]
        self._alerts = {id: known[id] for id in kept}

    def alerts(
        self, filter: AlertFilter, *, limit: int, offset: int = 0, after: bytes | None = None
    ) -> AlertPage:
        """One page of alerts, as `Queries.alerts` gives it; from any thread."""
        known = self._alerts
        newest = {known[id].fingerprint: id for id in sorted(known)}
        each = [(known[id], _active(known[id], newest, filter)) for id in sorted(known, reverse=True)]
        found = [(alert, active) for alert, active in each if _wanted(alert, active, filter)]
        rest = [one for one in found if after is None or one[0].id < after][offset:]
        last = rest[limit - 1][0].id if len(rest) > limit else None
        return AlertPage(alerts=rest[:limit], total=len(found), after=last)


def _active(alert: Alert, newest: Mapping[str, bytes], filter: AlertFilter) -> bool:
    recent = alert.fired > filter.now - filter.silence
    return alert.fires and recent and newest[alert.fingerprint] == alert.id


def _wanted(alert: Alert, active: bool, filter: AlertFilter) -> bool:
    labels, since = alert.labels, filter.since
    named = (
        ("alertname", filter.name),
        ("severity", filter.severity),
        ("scheduler", filter.scheduler),
        ("job_name", filter.job),
    )
    return (
        (not filter.status or ("active" if active else "recovered") in filter.status)
        and all(not wanted or labels.get(label, "") in wanted for label, wanted in named)
        and (since is None or active or max(alert.ended, alert.fired) >= since)
        and (filter.until is None or alert.started < filter.until)
    )
