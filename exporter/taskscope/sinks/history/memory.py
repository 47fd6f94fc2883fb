"""Runs and alerts in memory, for `history=None`: the same merging and counting, nothing on disk."""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from msgspec.structs import replace

from taskscope.counts import Counts, JobState, fold
from taskscope.events import JobKey
from taskscope.facts import ENDED, Bit, Change, Row, lost_row, merge
from taskscope.identity import key
from taskscope.settings import Settings
from taskscope.sinks.history.alert_log import AlertLog
from taskscope.sinks.history.error_log import ErrorLog
from taskscope.sinks.history.error_records import Action, ErrorGroup
from taskscope.sinks.history.records import Alert
from taskscope.sinks.history.store import Applied, Store
from taskscope.sinks.history.unanchored import provisional, settled

KEPT = 10_000
"""Ended runs that are remembered, so that what is told of them twice counts once."""
OPEN = 100_000
"""Runs that may be open, and jobs that may be counted; beyond that the oldest are let go."""


class MemoryStore(Store):
    """Open runs and the most recent ended ones. Counts are ordinary process counters."""

    def __init__(self, settings: Settings, kept: int = KEPT) -> None:
        self.settings = settings
        self._kept = kept
        self._open: OrderedDict[bytes, Row] = OrderedDict()
        self._ended: OrderedDict[bytes, Row] = OrderedDict()
        self._ids: dict[bytes, bytes] = {}
        """Of the runs without an anchor among them."""
        self._beats: dict[str, float] = {}
        self._totals: OrderedDict[JobKey, Counts] = OrderedDict()
        self.alert_log = AlertLog()
        self._errors = ErrorLog(settings)

    def open(self) -> None:
        """Nothing to do."""

    def apply(
        self,
        rows: Sequence[Row],
        states: Mapping[JobKey, JobState] | None = None,
        label: Callable[[JobKey], JobKey] = lambda key: key,
    ) -> Applied:
        """Merge and count."""
        rows = self._identified(rows)
        changes = [change for row in rows if (change := self._merge(row)).added]
        self._trim(self._ended, self._kept)
        self._trim(self._open, OPEN)
        delta = fold(changes, self.settings.buckets, label, self._errors.record(changes, rows))
        limit = self.settings.names_per_job
        totals = {job: self._totals.get(job, Counts()).plus(new, limit) for job, new in delta.counts.items()}
        self._total(totals)
        return Applied(changes=changes, totals=totals, exemplars=delta.exemplars)

    def totals(self) -> dict[JobKey, Counts]:
        """What this process counted."""
        return dict(self._totals)

    def states(self) -> dict[JobKey, JobState]:
        """None: the memories of a process that ended are gone with it."""
        return {}

    def beat(self, instances: Collection[str], now: float) -> None:
        """Remember that these processes live."""
        self._beats.update(dict.fromkeys(instances, now))

    def lost(self, now: float, after: float) -> Iterable[Row]:
        """Runs in progress whose process is silent; those of this one are forgotten with it."""
        before = now - after
        self._beats = {text: at for text, at in self._beats.items() if at >= before}
        return [
            lost_row(row.id, row.scheduler, row.job, row.started, row.enqueued)
            for row in self._open.values()
            if row.instance not in self._beats
            and row.instance
            and max(row.started, row.enqueued) < before * 1000
        ]

    def in_progress(self) -> Collection[Row]:
        """None: nobody else was told of them."""
        return ()

    def ended(self, runs: Collection[bytes]) -> Collection[bytes]:
        """Those that are over, or forgotten."""
        return [run for run in runs if run not in self._open]

    def record(self, alerts: Sequence[Alert]) -> None:
        """Keep what was told of alerts."""
        self.alert_log.record(alerts)

    def act(
        self, fingerprint: bytes, action: Action, at: int, actor: str = "", note: str = ""
    ) -> ErrorGroup | None:
        """None: of groups only their number is known."""
        return None

    def close(self) -> None:
        """Nothing to do."""

    def _identified(self, rows: Sequence[Row]) -> Sequence[Row]:
        """The rows under the ids of their runs."""
        proposed = provisional(rows)
        if not proposed:
            return rows
        for run, id_ in proposed.items():
            self._ids.setdefault(run, id_)
        return settled(rows, self._ids)

    def _merge(self, row: Row) -> Change:
        old = self._open.pop(row.id, None) or self._ended.pop(row.id, None)
        new = merge(old, row) if old else row
        kept = self._ended if new.facts & ENDED else self._open
        # what a run without a name failed of belongs to no group yet
        kept[row.id] = replace(new, detail=None) if new.detail and new.facts & Bit.NAMED else new
        return Change(new, new.facts & ~(old.facts if old else 0))

    def _total(self, totals: Mapping[JobKey, Counts]) -> None:
        """Keep these; a program that names its jobs by the minute would fill the memory, so the oldest go."""
        for job, counts in totals.items():
            self._totals[job] = counts
            self._totals.move_to_end(job)
        while len(self._totals) > max(OPEN, self.settings.job_budget):
            self._totals.popitem(last=False)

    def _trim(self, rows: OrderedDict[bytes, Row], kept: int) -> None:
        while len(rows) > kept:
            run, _ = rows.popitem(last=False)
            self._ids.pop(key(run), None)
