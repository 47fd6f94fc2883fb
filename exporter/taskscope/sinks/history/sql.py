"""The history in SQLite or PostgreSQL: merges, counts and remembers in one transaction."""

import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgspec
import sqlalchemy as sa

from taskscope.counts import Counts, JobState, fold
from taskscope.errors import NotOwner
from taskscope.events import JobKey
from taskscope.facts import Change, Row
from taskscope.settings import Settings
from taskscope.sinks.history import (
    absences,
    error_queries,
    in_progress,
    job_states,
    lost,
    merge,
    names,
    replica,
    rollups,
    schedulers,
    schema,
)
from taskscope.sinks.history import alerts as alert_table
from taskscope.sinks.history import findings as finding_table
from taskscope.sinks.history.database import Database
from taskscope.sinks.history.error_records import Action, ErrorGroup, State
from taskscope.sinks.history.errors import Errors
from taskscope.sinks.history.finding_records import Finding, Inspected
from taskscope.sinks.history.ledger import Ledger
from taskscope.sinks.history.mark import Mark
from taskscope.sinks.history.migrate import migrate
from taskscope.sinks.history.open_runs import OpenRuns
from taskscope.sinks.history.owner import Owner
from taskscope.sinks.history.records import Alert
from taskscope.sinks.history.removed import Removed
from taskscope.sinks.history.store import Applied, Store

_decode_counts = msgspec.msgpack.Decoder(Counts).decode
_COUNTS_REMEMBERED = 2_000
_ROLLUPS_REMEMBERED = 4_000


class SqlStore(Store):
    """Runs and counts in a database at `url`: `sqlite:///file` or `postgresql://…`.

    A failure drops the connection and all that is remembered; the next call connects and reads anew, so that
    a commit of which nobody knows whether it happened neither counts twice nor lets a total fall.
    """

    def __init__(self, url: str, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self.settings = settings
        self.removed = Removed()
        self._clock = clock
        self._jobs, self.names = names.jobs(), names.names()
        self._merger = merge.Merger(self._jobs, self.names)
        self._open_runs = OpenRuns()
        self.errors = Errors(settings, self._merger, self._jobs)
        self._counters: Ledger[Counts] = Ledger(schema.counter, _decode_counts, _COUNTS_REMEMBERED)
        self._states: Ledger[JobState] = Ledger(schema.job_state, job_states.decode, 0)
        self._rollups: Ledger[rollups.Rollup] = Ledger(schema.rollup, rollups.decode, _ROLLUPS_REMEMBERED)
        self._replica = self._pid = 0
        self._uncertain = False
        self._database = Database(url, session=self._begin, forget=self._forget)
        path = self._database.path
        self._owner = Owner(path) if path else None
        self._mark = Mark(path) if path else None

    def open(self) -> None:
        """Own the file, connect and migrate."""
        if self._pid not in (0, os.getpid()):
            raise NotOwner(
                f"the history {self._database.place} is open in the parent process; make a store anew"
            )
        if self._owner:
            self._owner.acquire()
        self._pid = os.getpid()
        try:
            with self.transaction() as connection:
                absences.note(connection, self.settings, self._clock())
                self._uncertain = False
        except BaseException:
            self.close()
            raise

    def apply(
        self,
        rows: Sequence[Row],
        states: Mapping[JobKey, JobState] | None = None,
        label: Callable[[JobKey], JobKey] = lambda key: key,
    ) -> Applied:
        """Merge, count and save in one transaction; details in `Store.apply`."""
        with self.transaction() as connection:
            runs = self._identified(connection, rows)
            kept = self._unexpired(connection, runs)
            changes = self._merger.merge(connection, kept, self._clock())
            news = self.errors.record(connection, kept, changes)
            delta = fold(changes, self.settings.buckets, label, news.counts)
            totals = self._count(connection, delta.counts)
            self._roll_up(connection, changes)
            self._save(connection, states or {})
            if self._uncertain:
                totals = self._all_totals(connection)
        self._uncertain = False
        if self._mark is not None:
            self._mark.add(delta.counts.values())
        return Applied(
            changes=changes,
            totals=totals,
            exemplars=delta.exemplars,
            expired=len(runs) - len(kept),
            limited=news.limited,
        )

    def totals(self) -> dict[JobKey, Counts]:
        """The committed counts of all jobs this replica ever counted."""
        with self.transaction() as connection:
            return self._all_totals(connection)

    def states(self) -> dict[JobKey, JobState]:
        """The saved memories of all jobs."""
        with self.transaction() as connection:
            return job_states.states(connection)

    def error_groups(self) -> dict[tuple[str, State], int]:
        """How many error groups each scheduler has in each state."""
        with self.transaction() as connection:
            return error_queries.census(connection)

    def rows(self) -> int:
        """How many runs are kept."""
        with self.transaction() as connection:
            return int(connection.execute(sa.select(sa.func.count()).select_from(schema.run)).scalar_one())

    def beat(self, instances: Collection[str], now: float) -> None:
        """Say that these processes live."""
        with self.transaction() as connection:
            self.names.learn(connection, instances)
            lost.beat(connection, {self.names.ids[text]: text for text in instances}, now)

    def lost(self, now: float, after: float) -> Iterable[Row]:
        """Runs in progress whose process is gone or silent, oldest first."""
        with self.transaction() as connection:
            return lost.lost(connection, now, after)

    def in_progress(self) -> Collection[Row]:
        """Runs in progress whose process is named, the oldest ones."""
        with self.transaction() as connection:
            return in_progress.oldest(connection)

    def ended(self, runs: Collection[bytes]) -> Collection[bytes]:
        """Those of these runs that have ended, or were removed."""
        with self.transaction() as connection:
            return in_progress.ended(connection, runs)

    def record(self, alerts: Sequence[Alert]) -> None:
        """Keep what was told of alerts."""
        with self.transaction() as connection:
            alert_table.record(connection, alerts)

    def record_findings(self, findings: Iterable[Finding], inspected: Inspected | None = None) -> None:
        """Keep findings as they are now, and how the inspection went."""
        with self.transaction() as connection:
            finding_table.record(connection, findings, inspected)

    def tell_findings(self, ids: Iterable[bytes], at: int) -> None:
        """Note when (ms) these findings were told."""
        with self.transaction() as connection:
            finding_table.tell(connection, ids, at)

    def keep_labels(self, labels: Mapping[str, Mapping[str, str]]) -> None:
        """Keep what these schedulers belong to."""
        with self.transaction() as connection:
            schedulers.keep(connection, labels)

    def act(
        self, fingerprint: bytes, action: Action, at: int, actor: str = "", note: str = ""
    ) -> ErrorGroup | None:
        """Do this with an error group; the group as it is then, None where there is none."""
        with self.transaction() as connection:
            return self.errors.act(connection, fingerprint, action, at, actor, note)

    def close(self) -> None:
        """Let go of the connection and the file."""
        if self._pid == os.getpid():  # a forked child must not touch its parent's connection
            self._database.close()
            self._pid = 0
        if self._owner:
            self._owner.close()

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """The store's own transaction, for what must not happen beside a merge. Raises `Unavailable`."""
        if self._pid != os.getpid() or (self._owner and not self._owner.held):
            raise NotOwner(f"this process does not own the history {self._database.place}; open it first")
        with self._database.transaction() as connection:
            yield connection

    def _begin(self, connection: sa.Connection) -> None:
        """Set up a new connection."""
        migrate(connection)
        merge.prepare(connection)
        self._replica = replica.take(connection, self.settings.service, self._mark)
        self.removed.load(connection)

    def _forget(self) -> None:
        self._uncertain = True
        for remembered in (self._jobs, self.names, self._open_runs, self._counters, self._rollups):
            remembered.forget()

    def _identified(self, connection: sa.Connection, rows: Sequence[Row]) -> Sequence[Row]:
        """The rows under the ids of their runs, which nobody removes before this transaction has ended."""
        if connection.dialect.name == "postgresql":  # another replica may have removed some
            self.removed.load(connection)
        return self._open_runs.settle(connection, rows)

    def _unexpired(self, connection: sa.Connection, rows: Sequence[Row]) -> Sequence[Row]:
        """The rows but those whose run retention has removed."""
        if not rows or rows[0].id > self.removed.highest:
            return rows
        old = [row.id for row in rows if self.removed.covers(row)]
        expired = set(old) - merge.present(connection, old)
        return [row for row in rows if row.id not in expired]

    def _count(self, connection: sa.Connection, deltas: Mapping[JobKey, Counts]) -> dict[JobKey, Counts]:
        self._jobs.learn(connection, deltas)
        keys = {job: (self._replica, self._jobs.ids[job]) for job in deltas}
        saved = self._counters.get(connection, keys.values())
        limit = self.settings.names_per_job
        totals = {job: saved.get(keys[job], Counts()).plus(delta, limit) for job, delta in deltas.items()}
        self._counters.put(connection, {keys[job]: total for job, total in totals.items()})
        return totals

    def _roll_up(self, connection: sa.Connection, changes: Iterable[Change]) -> None:
        deltas = rollups.fold_rollups(changes)
        self._jobs.learn(connection, {job for _, _, job in deltas})
        keys = {place: (*place[:2], self._jobs.ids[place[2]], self._replica) for place in deltas}
        saved = self._rollups.get(connection, keys.values())
        for place, delta in deltas.items():
            if old := saved.get(keys[place]):
                delta.add(old)
        self._rollups.put(connection, {keys[place]: delta for place, delta in deltas.items()})

    def _save(self, connection: sa.Connection, states: Mapping[JobKey, JobState]) -> None:
        self._jobs.learn(connection, states)
        self._states.put(connection, {(self._jobs.ids[job],): state for job, state in states.items()})

    def _all_totals(self, connection: sa.Connection) -> dict[JobKey, Counts]:
        job, counter = schema.job.c, schema.counter.c
        query = (
            sa.select(job.scheduler, job.name, counter.counts)
            .join(schema.job, job.id == counter.job)
            .where(counter.replica == self._replica)
        )
        return {
            (scheduler, name): _decode_counts(packed) for scheduler, name, packed in connection.execute(query)
        }
