"""Writes error groups: in the transaction that merges their runs, each occurrence counted once.

An occurrence is known by its id, so that what is told again counts nothing. Where a run turns out to have failed of
something else than was told first, its occurrence moves: what a group counts is what happened.
"""

from collections import defaultdict
from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from taskscope import groups
from taskscope.events import JobKey
from taskscope.facts import Change, Row
from taskscope.groups import Grouping
from taskscope.settings import Settings
from taskscope.sinks.history import sights
from taskscope.sinks.history.error_ledger import ErrorLedger, Tally, complete
from taskscope.sinks.history.error_records import Action, ErrorGroup, Sight
from taskscope.sinks.history.merge import Merger
from taskscope.sinks.history.names import Interned


class News(msgspec.Struct):
    """What a batch says of errors."""

    counts: dict[JobKey, dict[str, int]] = {}
    """By job: groups that are `new`, and exceptions that were `captured`."""
    limited: dict[str, int] = {}
    """By scheduler: occurrences for whose groups there was no room."""


class Errors:
    """The error groups of a history. Used by the one thread that writes it."""

    def __init__(self, settings: Settings, merger: Merger, jobs: Interned[JobKey]) -> None:
        self._grouping, self._most = Grouping(settings), settings.retention.max_errors
        self._merger, self._jobs = merger, jobs
        self.changes = 0
        """Rises with every change of a group."""

    def record(self, connection: sa.Connection, rows: Sequence[Row], changes: Sequence[Change]) -> News:
        """Take in what the merged runs of a batch failed of and reported. Nearly free where all went well."""
        suspects = sights.suspects(rows, changes)
        if not suspects:
            return News()
        runs, stored = complete(connection, self._merger, suspects, changes)
        told = [*sights.failures(runs, self._grouping), *sights.captures(runs, self._grouping)]
        if not told:
            return News()
        self.changes += 1
        self._jobs.learn(connection, {sight.key for sight in told})
        ledger = ErrorLedger(connection)
        told, limited = self._within(ledger, told)
        known = ledger.occurrences([sight.id for sight in told if sight.id in stored])
        tally = Tally(told)
        tally.count(ledger.add([sight for sight in told if sight.id not in known]))
        tally.move(ledger.moved([sight for sight in told if sight.id in known], known))
        new = ledger.write(tally, self._jobs.ids)
        return News(tally.of_jobs(new), limited)

    def act(
        self, connection: sa.Connection, fingerprint: bytes, action: Action, at: int, actor: str, note: str
    ) -> ErrorGroup | None:
        """Do this with a group; the group as it is then, None where there is none."""
        ledger = ErrorLedger(connection)
        group = ledger.groups([fingerprint]).get(fingerprint)
        if group is None:
            return None
        self.changes += 1
        acted = group.acted_on(action, at, actor, note)
        ledger.put([acted])
        return acted

    def _within(self, ledger: ErrorLedger, told: list[Sight]) -> tuple[list[Sight], dict[str, int]]:
        """The sights, those for whose groups there is no room in that of all others of their job."""
        new = {sight.group.fingerprint for sight in told} - ledger.groups(
            {sight.group.fingerprint for sight in told}
        ).keys()
        over = ledger.size() + len(new) - self._most if new else 0
        if over <= 0:
            return told, {}
        full, limited = set(sorted(new)[-over:]), defaultdict[str, int](int)
        for place, sight in enumerate(told):
            if sight.group.fingerprint in full:
                told[place] = msgspec.structs.replace(sight, group=groups.other(sight.key))
                limited[sight.key[0]] += 1
        ledger.groups({sight.group.fingerprint for sight in told})
        return told, dict(limited)
