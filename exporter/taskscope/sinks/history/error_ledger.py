"""The tables of errors as one transaction sees them, and what a batch adds to them."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

import msgspec
import sqlalchemy as sa
from msgspec.structs import replace

from taskscope.events import JobKey
from taskscope.facts import Change, Detail, Row
from taskscope.identity import anchor_ms
from taskscope.sinks.history.error_records import STATES, ErrorGroup, Sight
from taskscope.sinks.history.merge import Merger, merge_details, slices
from taskscope.sinks.history.schema import clean, error_group

_HOUR = 3_600_000  # ms
_COLUMNS = tuple(column.name for column in error_group.c)
_NOTHING = Detail()
_seen = msgspec.json.Decoder(dict[str, int]).decode


def complete(
    connection: sa.Connection, merger: Merger, rows: Sequence[Row], changes: Iterable[Change]
) -> tuple[list[Row], set[bytes]]:
    """These runs with all that is known of them, and which of them were stored before.

    Most are new and came with everything; of the others it is read from the database.
    """
    added = {change.row.id: change.added for change in changes}
    known = [row for row in rows if added.get(row.id) != row.facts]
    if not known:
        return list(rows), set()
    untold = {row.id: row for row in known if row.id not in added}
    stored = merger.read(connection, list(untold), untold) if untold else {}
    texts = ErrorLedger(connection).texts([row.id for row in known])
    told = {row.id: _with_texts(stored.get(row.id, row), texts.get(row.id)) for row in known}
    return [told.get(row.id, row) for row in rows], set(told)


class Tally:
    """What a batch adds to each group."""

    def __init__(self, told: Iterable[Sight]) -> None:
        self.sights: dict[bytes, list[Sight]] = {}
        for sight in told:
            self.sights.setdefault(sight.group.fingerprint, []).append(sight)
        self.failures, self.captured = defaultdict[bytes, int](int), defaultdict[bytes, int](int)
        self.hours: dict[tuple[int, bytes], list[int]] = defaultdict(lambda: [0, 0])
        self.moved: set[bytes] = set()
        """Groups that lost an occurrence."""
        self._of_jobs: dict[JobKey, dict[str, int]] = {}

    def count(self, new: Iterable[Sight]) -> None:
        """These are told for the first time."""
        for sight in new:
            self._add(sight, sight.group.fingerprint, 1)
            if not sight.fatal:
                self._note(sight.key, "captured")

    def move(self, moved: Iterable[tuple[Sight, bytes]]) -> None:
        """These were counted in another group."""
        for sight, before in moved:
            self._add(sight, before, -1)
            self._add(sight, sight.group.fingerprint, 1)
            self.moved.add(before)

    def of_jobs(self, new: Iterable[bytes]) -> dict[JobKey, dict[str, int]]:
        """What is counted by job, with these groups that are new."""
        for fingerprint in new:
            self._note(min(self.sights[fingerprint], key=lambda sight: sight.at).key, "new")
        return self._of_jobs

    def _add(self, sight: Sight, fingerprint: bytes, by: int) -> None:
        (self.failures if sight.fatal else self.captured)[fingerprint] += by
        self.hours[anchor_ms(sight.run) // _HOUR, fingerprint][0 if sight.fatal else 1] += by

    def _note(self, key: JobKey, what: str) -> None:
        counts = self._of_jobs.setdefault(key, {})
        counts[what] = counts.get(what, 0) + 1


class ErrorLedger:
    """The tables of errors, in one transaction. What it has read of a group nobody else changes meanwhile."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self._sqlite = connection.dialect.name == "sqlite"
        self._mark = "?" if self._sqlite else "%s"
        self._known: dict[bytes, ErrorGroup] = {}

    def groups(self, fingerprints: Iterable[bytes]) -> dict[bytes, ErrorGroup]:
        """Those of these groups that exist, and all asked for before."""
        asked = sorted(set(fingerprints) - self._known.keys())
        lock = "" if self._sqlite else " ORDER BY fingerprint FOR UPDATE OF error_group"
        for row in self._read(f"{_GROUPS} WHERE fingerprint IN {{}}{lock}", asked):
            group = group_of(row)
            self._known[group.fingerprint] = group
        return self._known

    def size(self) -> int:
        """How many groups there are."""
        count: int = self._connection.exec_driver_sql("SELECT count(*) FROM error_group").scalar_one()
        return count

    def occurrences(self, ids: list[bytes]) -> dict[bytes, bytes]:
        """To which group these occurrences belong, as far as they are stored."""
        found = self._read("SELECT id, error FROM occurrence WHERE id IN {}", ids)
        return {bytes(row.id): bytes(row.error) for row in found}

    def texts(self, runs: list[bytes]) -> dict[bytes, Detail]:
        """The heavy texts of these runs, as far as they have any."""
        found = self._read("SELECT id, message, stack, data FROM detail WHERE id IN {}", runs)
        return {bytes(row.id): Detail(row.message, row.stack, row.data) for row in found}

    def add(self, told: Iterable[Sight]) -> list[Sight]:
        """Store these occurrences; those of them that were not stored already."""
        by_id = {sight.id: sight for sight in told}
        added: list[Sight] = []
        for some in slices(sorted(by_id)):
            values = [(id, by_id[id].run, by_id[id].group.fingerprint, by_id[id].at) for id in some]
            marks = ", ".join([f"({', '.join([self._mark] * 4)})"] * len(some))
            found = self._connection.exec_driver_sql(
                f"INSERT INTO occurrence (id, run, error, at) VALUES {marks}"
                " ON CONFLICT (id) DO NOTHING RETURNING id",
                tuple(chain.from_iterable(values)),
            )
            added += [by_id[bytes(row[0])] for row in found]
        heavy = (s for s in added if not s.fatal)
        merge_details(self._connection, ((s.id, Detail(s.message, s.stack, s.data)) for s in heavy))
        return added

    def moved(self, told: Iterable[Sight], known: dict[bytes, bytes]) -> list[tuple[Sight, bytes]]:
        """Of these occurrences those that belong to another group now, and to which they belonged."""
        moved = [(s, known[s.id]) for s in told if known[s.id] != s.group.fingerprint]
        if moved:
            self._connection.exec_driver_sql(
                f"UPDATE occurrence SET error = {self._mark} WHERE id = {self._mark}",
                [(sight.group.fingerprint, sight.id) for sight, _ in moved],
            )
        return moved

    def write(self, tally: Tally, jobs: dict[JobKey, int]) -> list[bytes]:
        """Bring the groups up to what was told; which of them are new."""
        touched = sorted(tally.sights.keys() | tally.moved)
        self.groups(touched)
        new = [_born(tally.sights[f][0]) for f in touched if f in tally.sights and f not in self._known]
        inserted = self._insert(new, jobs) if new else []
        self._known |= {group.fingerprint: group for group in new if group.fingerprint in inserted}
        self.groups(touched)  # those that another replica has made meanwhile
        self.put(
            self._known[f].with_sights(tally.sights.get(f, ()), tally.failures[f], tally.captured[f])
            for f in touched
            if f in self._known
        )
        self._roll_up(tally)
        if tally.moved:
            self._remove_empty(tally.moved)
        return inserted

    def put(self, groups: Iterable[ErrorGroup]) -> None:
        """Write these groups, which exist, where they differ from what was read."""
        changed = [group for group in groups if group != self._known[group.fingerprint]]
        if not changed:
            return
        sets = ", ".join(f"{column} = {self._mark}" for column in _COLUMNS[2:])
        self._connection.exec_driver_sql(
            f"UPDATE error_group SET {sets} WHERE fingerprint = {self._mark}",
            [(*_values(group), group.fingerprint) for group in changed],
        )
        if heavy := [(g.fingerprint, clean(g.stack), clean(g.data)) for g in changed if g.stack or g.data]:
            self._upsert("error_text", ("error", "stack", "data"), 1, "{} = excluded.{}", heavy)

    def _insert(self, new: Iterable[ErrorGroup], jobs: dict[JobKey, int]) -> list[bytes]:
        marks = ", ".join([self._mark] * len(_COLUMNS))
        statement = (
            f"INSERT INTO error_group ({', '.join(_COLUMNS)}) VALUES ({marks})"
            " ON CONFLICT (fingerprint) DO NOTHING RETURNING fingerprint"
        )
        inserted = []
        for group in new:
            values = (group.fingerprint, jobs[group.scheduler, group.job], *_values(group))
            if self._connection.exec_driver_sql(statement, values).first():
                inserted.append(group.fingerprint)
        return inserted

    def _roll_up(self, tally: Tally) -> None:
        rows = [(*place, *by) for place, by in sorted(tally.hours.items()) if any(by)]
        if rows:
            columns = ("at", "error", "failures", "captured")
            self._upsert("error_rollup", columns, 2, "{} = error_rollup.{} + excluded.{}", rows)

    def _upsert(
        self, table: str, columns: Sequence[str], keys: int, change: str, rows: list[tuple[Any, ...]]
    ) -> None:
        marks = ", ".join([self._mark] * len(columns))
        sets = ", ".join(change.format(*[column] * 3) for column in columns[keys:])
        self._connection.exec_driver_sql(
            f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"
            f" ON CONFLICT ({', '.join(columns[:keys])}) DO UPDATE SET {sets}",
            rows,
        )

    def _remove_empty(self, moved: Iterable[bytes]) -> None:
        """A group that was only told by mistake is none."""
        empty = "SELECT fingerprint FROM error_group WHERE failures + captured <= 0 AND fingerprint IN {}"
        remove(self._connection, [bytes(row.fingerprint) for row in self._read(empty, sorted(moved))])

    def _read(self, query: str, keys: list[bytes]) -> Iterator[sa.Row[Any]]:
        """What the query finds for these keys, whose place in it is `{}`."""
        for some in slices(keys):
            yield from self._connection.exec_driver_sql(
                _asking(query, self._mark, len(some)), tuple(some)
            ).all()


def remove(connection: sa.Connection, fingerprints: Sequence[bytes]) -> None:
    """Remove these groups, and all that is known of them but their occurrences."""
    mark = "?" if connection.dialect.name == "sqlite" else "%s"
    for some in slices(list(fingerprints)):
        marks = ", ".join([mark] * len(some))
        for table, column in (
            ("error_group", "fingerprint"),
            ("error_text", "error"),
            ("error_rollup", "error"),
        ):
            connection.exec_driver_sql(f"DELETE FROM {table} WHERE {column} IN ({marks})", tuple(some))


def group_of(row: Any) -> ErrorGroup:
    """A row of `error_group` with the names of its job, `scheduler` and `job_name`."""
    return ErrorGroup(
        fingerprint=bytes(row.fingerprint),
        scheduler=row.scheduler,
        job=row.job_name,
        kind=row.kind,
        name=row.name,
        place=row.place,
        message=row.message,
        first_seen=row.first_seen,
        last_seen=row.last_seen,
        failures=row.failures,
        captured=row.captured,
        latest_id=bytes(row.latest_id),
        latest_run=bytes(row.latest_run),
        instances=_seen(row.instances),
        versions=_seen(row.versions),
        state=STATES[row.state],
        acted=row.acted,
        actor=row.actor,
        note=row.note,
        regressed=row.regressed,
    )


def _with_texts(row: Row, stored: Detail | None) -> Row:
    """The run with the texts that are stored of it, beside what only this batch knows."""
    if stored is None:
        return row
    told = row.detail or _NOTHING
    return replace(row, detail=replace(stored, version=told.version, captured=told.captured))


@lru_cache(maxsize=64)
def _asking(query: str, mark: str, count: int) -> str:
    return query.format(f"({', '.join([mark] * count)})")


def _born(sight: Sight) -> ErrorGroup:
    scheduler, name = sight.key
    return ErrorGroup(
        fingerprint=sight.group.fingerprint, scheduler=scheduler, job=name, kind=sight.group.kind
    )


def _values(group: ErrorGroup) -> Iterator[Any]:
    """In the order of the table's columns, without the fingerprint and the job, which never change."""
    yield from map(clean, (group.kind, group.name, group.place, group.message))
    yield from (group.first_seen, group.last_seen, group.failures, group.captured)
    yield from (group.latest_id, group.latest_run)
    yield from (clean(msgspec.json.encode(seen).decode()) for seen in (group.instances, group.versions))
    yield from (
        STATES.index(group.state),
        group.acted,
        clean(group.actor),
        clean(group.note),
        group.regressed,
    )


_GROUPS = (
    "SELECT error_group.*, job.scheduler, job.name AS job_name FROM error_group"
    " JOIN job ON job.id = error_group.job"
)
