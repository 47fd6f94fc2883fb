"""Errors in memory, for `history=None`: which groups there are, so that new ones are counted."""

from collections.abc import Iterable, Mapping

from taskscope.events import JobKey
from taskscope.facts import Change, Row, fresh
from taskscope.groups import Grouping
from taskscope.settings import Settings
from taskscope.sinks.history import sights
from taskscope.sinks.history.error_records import Sight

_KEPT = 10_000
"""Exceptions that were reported, remembered so that what is told of them twice counts once."""


class ErrorLog:
    """The groups that were ever seen, as many as the settings allow, and the latest exceptions that were reported."""

    def __init__(self, settings: Settings) -> None:
        self._grouping, self._most = Grouping(settings), settings.retention.max_errors
        self._groups: set[bytes] = set()
        self._captured: dict[bytes, None] = {}

    def record(self, changes: Iterable[Change], rows: Iterable[Row]) -> Mapping[JobKey, Mapping[str, int]]:
        """By job, the groups that are new and the exceptions that were reported."""
        counts: dict[JobKey, dict[str, int]] = {}
        failed = [change.row for change in changes if fresh(change.row.facts, change.added) & sights.BAD]
        for sight in (*sights.failures(failed, self._grouping), *sights.captures(rows, self._grouping)):
            for what in self._news(sight):
                of_job = counts.setdefault(sight.key, {})
                of_job[what] = of_job.get(what, 0) + 1
        return counts

    def _news(self, sight: Sight) -> Iterable[str]:
        fingerprint = sight.group.fingerprint
        if fingerprint not in self._groups and len(self._groups) < self._most:
            self._groups.add(fingerprint)
            yield "new"
        if not sight.fatal and sight.id not in self._captured:
            self._captured[sight.id] = None
            if len(self._captured) > _KEPT:
                del self._captured[next(iter(self._captured))]
            yield "captured"
