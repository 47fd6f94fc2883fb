"""The one statement that merges runs, the same on SQLite and PostgreSQL, and agrees with `facts.merge`.

Of two values of a column the greater stays; interned texts are compared as texts, only where both are known
and differ. `added` is left in the row because RETURNING shows no old values. On SQLite, which has one writer, runs
that are not stored yet need no merging: they are inserted as they are.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

import sqlalchemy as sa
from msgspec.structs import replace

from taskscope.events import JobKey
from taskscope.facts import Change, Detail, Row
from taskscope.sinks.history import schema
from taskscope.sinks.history.names import Interned

_COLUMNS = tuple(column.name for column in schema.run.c)
_GREATER = ("rank", "attempt", "due", "enqueued", "started", "ended", "duration", "trace_id", "key", "result")
_NAMES = ("reason", "exception", "queue", "worker", "instance", "entity")
_TEXTS = ("message", "stack", "data", "details")
_AT_ONCE = (500, 250, 100, 50, 20, 10, 5, 2, 1)
"""Rows in one statement: few sizes, so that SQLite prepares each of them once."""


class Merger:
    """Merges rows into `run` and `detail`, and knows the names in them."""

    def __init__(self, jobs: Interned[JobKey], names: Interned[str]) -> None:
        self._jobs = jobs
        self._names = names

    def merge(self, connection: sa.Connection, rows: Sequence[Row], now: float) -> list[Change]:
        """What these rows (one for each id, ascending) add; `now` is noted as the time of the change."""
        rows, values = self._values(connection, rows, int(now))
        write = _merge_by_values if connection.dialect.name == "sqlite" else _merge_by_copy
        added, before = {}, []
        for run, bits, facts in write(connection, values):
            if bits:
                added[run] = bits
                if bits != facts:
                    before.append(run)
        merge_details(connection, ((row.id, row.detail) for row in rows if row.detail))
        merged = self.read(connection, before, {row.id: row for row in rows}) if before else {}
        return [Change(merged.get(row.id, row), added[row.id]) for row in rows if row.id in added]

    def _values(
        self, connection: sa.Connection, rows: Sequence[Row], now: int
    ) -> tuple[Sequence[Row], list[tuple[Any, ...]]]:
        """The rows, their names clean, and what to write."""
        try:
            return rows, self._pack(rows, now)
        except (
            KeyError
        ):  # names never met before, or unclean ones: rare, so that looking first would cost more
            rows = [_cleaned(row) for row in rows]
            self._jobs.learn(connection, {row.job_key for row in rows})
            self._names.learn(connection, {text for row in rows for text in _names_of(row)})
            return rows, self._pack(rows, now)

    def _pack(self, rows: Sequence[Row], now: int) -> list[tuple[Any, ...]]:
        jobs, names = self._jobs.ids, self._names.ids
        return [
            (
                row.id,
                jobs[row.scheduler, row.job],
                row.facts,
                row.facts,
                row.rank,
                row.attempt,
                row.due,
                row.enqueued,
                row.started,
                row.ended,
                row.duration,
                names[row.reason],
                names[row.exception],
                names[row.queue],
                names[row.worker],
                names[row.instance],
                names[row.entity],
                row.trace_id and schema.clean(row.trace_id),
                row.key and schema.clean(row.key),
                row.result and schema.clean(row.result),
                now,
            )
            for row in rows
        ]

    def read(
        self, connection: sa.Connection, runs: list[bytes], given: Mapping[bytes, Row]
    ) -> dict[bytes, Row]:
        """Runs as they are now; what RETURNING would tell of every run is only needed of those known before."""
        found = [
            row for some in slices(runs) for row in connection.exec_driver_sql(*_select(connection, some))
        ]
        self._jobs.recall(connection, {row[_JOB] for row in found})
        self._names.recall(connection, {number for row in found for number in row[_NAMED]})
        return {bytes(row[0]): self._row(tuple(row), given[bytes(row[0])]) for row in found}

    def _row(self, found: tuple[Any, ...], given: Row) -> Row:
        """The run as it is now; its detail is what came with this batch."""
        run_id, job, facts, _, rank, attempt, due, enqueued, started, ended, duration, *others = found
        *names, trace_id, key, result, _ = others
        reason, exception, queue, worker, instance, entity = map(self._names.keys.__getitem__, names)
        return Row(
            id=run_id,
            scheduler=given.scheduler,
            facts=facts,
            rank=rank,
            job=self._jobs.keys[job][1],
            attempt=attempt,
            due=due,
            enqueued=enqueued,
            started=started,
            ended=ended,
            duration=duration,
            reason=reason,
            exception=exception,
            queue=queue,
            worker=worker,
            instance=instance,
            entity=entity,
            key=key,
            result=result,
            trace_id=trace_id,
            detail=given.detail,
        )


def present(connection: sa.Connection, ids: Iterable[bytes]) -> set[bytes]:
    """Which of these runs are stored."""
    found = (connection.exec_driver_sql(*_select(connection, some, ("id",))) for some in slices(list(ids)))
    return {bytes(row[0]) for rows in found for row in rows}


def slices(values: list[Any]) -> Iterator[list[Any]]:
    """Cut into pieces of the few sizes that statements are made for."""
    start = 0
    for size in _AT_ONCE:
        while len(values) - start >= size:
            yield values[start : start + size]
            start += size


def _cleaned(row: Row) -> Row:
    texts = {name: getattr(row, name) for name in ("scheduler", "job", *_NAMES)}
    unclean = {name: clean for name, text in texts.items() if (clean := schema.clean(text)) != text}
    return replace(row, **unclean) if unclean else row


def _names_of(row: Row) -> tuple[str, ...]:
    return (row.reason, row.exception, row.queue, row.worker, row.instance, row.entity)


def _merge_by_values(connection: sa.Connection, values: list[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """Mostly all runs are new. With one writer it is cheaper to ask which are not than to have each returned."""
    known = present(connection, [value[0] for value in values])
    new = [value for value in values if value[0] not in known] if known else values
    for some in slices(new):
        connection.exec_driver_sql(_insert(len(some)), _bound(some))
        yield from [(value[0], value[_FACTS], value[_FACTS]) for value in some]
    for some in slices([value for value in values if value[0] in known] if known else []):
        yield from connection.exec_driver_sql(_sqlite(len(some)), _bound(some)).all()


def _bound(values: Iterable[tuple[Any, ...]]) -> tuple[Any, ...]:
    """One row after the other. Of bytes, not of a bytearray, sqlite3 asks around how to adapt them: 0.6 µs each."""
    flat = list(chain.from_iterable(values))
    flat[:: len(_COLUMNS)] = map(bytearray, flat[:: len(_COLUMNS)])
    return tuple(flat)


def _merge_by_copy(connection: sa.Connection, values: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    cursor: Any = connection.connection.cursor()
    columns = ", ".join(_COLUMNS)
    with cursor.copy(f"COPY incoming ({columns}) FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types(_POSTGRESQL_TYPES)
        for value in values:
            copy.write_row(value)
    cursor.execute(_postgresql())
    rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows


def prepare(connection: sa.Connection) -> None:
    """Make what a new connection needs to merge."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("CREATE TEMPORARY TABLE incoming (LIKE run) ON COMMIT DELETE ROWS")


def _select(
    connection: sa.Connection, runs: list[bytes], columns: Sequence[str] = _COLUMNS
) -> tuple[str, tuple[bytearray, ...]]:
    mark = "?" if connection.dialect.name == "sqlite" else "%s"
    marks = _marks(mark, len(runs), 1)
    return f"SELECT {', '.join(columns)} FROM run WHERE id IN {marks}", tuple(map(bytearray, runs))


def merge_details(connection: sa.Connection, details: Iterable[tuple[bytes, Detail]]) -> None:
    """Merge the heavy texts of runs, and of exceptions that they reported, by id."""
    heavy = [(id, *texts) for id, detail in details if any(texts := _texts_of(detail)) or not detail.captured]
    for some in slices(heavy):
        connection.exec_driver_sql(
            _details(connection.dialect.name, len(some)), tuple(chain.from_iterable(some))
        )


def _texts_of(detail: Detail) -> tuple[str, ...]:
    return tuple(map(schema.clean, (detail.message, detail.stack, detail.data, detail.details)))


@lru_cache(maxsize=len(_AT_ONCE))
def _insert(count: int) -> str:
    return f"INSERT INTO run ({', '.join(_COLUMNS)}) VALUES {_marks('?', len(_COLUMNS), count)}"


@lru_cache(maxsize=len(_AT_ONCE))
def _sqlite(count: int) -> str:
    values = f"VALUES {_marks('?', len(_COLUMNS), count)}"
    return _statement("run", _COLUMNS, values, _run_sets("max"), _run_differs(), _SHOWN)


@lru_cache(maxsize=1)
def _postgresql() -> str:
    values = (
        f"SELECT {', '.join(_COLUMNS)} FROM incoming ORDER BY id"  # in order: replicas never lock crosswise
    )
    return _statement("run", _COLUMNS, values, _run_sets("greatest"), _run_differs(), _SHOWN)


@lru_cache(maxsize=2 * len(_AT_ONCE))
def _details(dialect: str, count: int) -> str:
    mark, greater = ("?", "max") if dialect == "sqlite" else ("%s", "greatest")
    columns = ("id", *_TEXTS)
    sets = [f"{column} = {greater}(detail.{column}, excluded.{column})" for column in _TEXTS]
    differs = [f"excluded.{column} > detail.{column}" for column in _TEXTS]
    return _statement("detail", columns, f"VALUES {_marks(mark, len(columns), count)}", sets, differs)


def _statement(
    table: str,
    columns: Sequence[str],
    values: str,
    sets: Iterable[str],
    differs: Iterable[str],
    returning: Sequence[str] = (),
) -> str:
    statement = (
        f"INSERT INTO {table} ({', '.join(columns)}) {values}"
        f" ON CONFLICT (id) DO UPDATE SET {', '.join(sets)} WHERE {' OR '.join(differs)}"
    )
    return f"{statement} RETURNING {', '.join(returning)}" if returning else statement


def _run_sets(greater: str) -> list[str]:
    return [
        "facts = run.facts | excluded.facts",
        "added = excluded.facts & ~run.facts",
        "changed = excluded.changed",
        *[f"{column} = {greater}(run.{column}, excluded.{column})" for column in _GREATER],
        f"job = {_greater_name('job', 'job', 'name')}",
        *[f"{column} = {_greater_name(column, 'name', 'text')}" for column in _NAMES],
    ]


def _run_differs() -> list[str]:
    return [
        "excluded.facts & ~run.facts <> 0",
        *[f"excluded.{column} > run.{column}" for column in _GREATER],
        "excluded.job <> run.job",
        *[f"excluded.{column} <> run.{column} AND excluded.{column} <> 0" for column in _NAMES],
    ]


def _greater_name(column: str, table: str, text: str) -> str:
    old, new = (
        f"(SELECT {text} FROM {table} WHERE {table}.id = {side}.{column})" for side in ("run", "excluded")
    )
    return (
        f"CASE WHEN excluded.{column} = run.{column} OR excluded.{column} = 0 THEN run.{column}"
        f" WHEN run.{column} = 0 OR {new} > {old} THEN excluded.{column} ELSE run.{column} END"
    )


def _marks(mark: str, columns: int, rows: int) -> str:
    return ", ".join([f"({', '.join([mark] * columns)})"] * rows)


_SHOWN = ("id", "added", "facts")
_FACTS = _COLUMNS.index("facts")
_JOB = _COLUMNS.index("job")
_NAMED = slice(_COLUMNS.index(_NAMES[0]), _COLUMNS.index(_NAMES[-1]) + 1)
_POSTGRESQL_TYPES = [
    {"LargeBinary": "bytea", "Text": "text", "SmallInteger": "int2", "Integer": "int4", "BigInteger": "int8"}[
        type(column.type).__name__
    ]
    for column in schema.run.c
]
