"""The tables of findings and of inspections: written in the store's transaction, read in pages."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from msgspec.structs import replace
from sqlalchemy import ColumnElement, Connection

from taskscope.settings import Retention
from taskscope.sinks.history.finding_records import Finding, FindingFilter, FindingPage, Inspected
from taskscope.sinks.history.merge import slices
from taskscope.sinks.history.schema import clean, finding, inspection

_FIELDS = ("inspection", "kind", "level", "scheduler", "job")
_TEXTS = (*_FIELDS, "key")
_NEAR = 1_000  # findings among which related ones are looked for
_SELECT = sa.select(finding.c.id, finding.c.told, finding.c.content)
_decode = msgspec.json.Decoder(Finding).decode


def record(connection: Connection, findings: Iterable[Finding], inspected: Inspected | None) -> None:
    """Keep findings as they are now, and how the inspection went."""
    upsert(connection, finding, [_values(one) for one in findings], keep=("told",))
    if inspected is not None:
        upsert(connection, inspection, [msgspec.structs.asdict(inspected)])


def tell(connection: Connection, ids: Iterable[bytes], at: int) -> None:
    """Note when these findings were told, unless they were before."""
    untold = sa.update(finding).where(finding.c.told == 0).values(told=at)
    for some in slices(sorted(ids)):
        connection.execute(untold.where(finding.c.id.in_(some)))


def upsert(
    connection: Connection, table: sa.Table, rows: Sequence[dict[str, Any]], keep: Sequence[str] = ()
) -> None:
    """Write rows in place of those with their primary key, of which the columns `keep` stay."""
    if not rows:
        return
    columns = [column.name for column in table.c]
    keys = [column.name for column in table.primary_key]
    marks = ", ".join(f":{name}" for name in columns)
    changes = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in (*keys, *keep))
    connection.execute(
        sa.text(
            f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({marks})"
            f" ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {changes}"
        ),
        rows,
    )


def page(
    connection: Connection, filter: FindingFilter, limit: int, offset: int, after: bytes | None
) -> FindingPage:
    """One page, newest first, going on `after` a page's last finding."""
    conditions = list(_conditions(filter))
    count = sa.select(sa.func.count()).select_from(finding).where(*conditions)
    rest = [finding.c.id < after] if after is not None else []
    query = _SELECT.where(*conditions, *rest)
    rows = connection.execute(query.order_by(finding.c.id.desc()).limit(limit + 1).offset(offset)).all()
    return FindingPage(
        findings=[_finding(row) for row in rows[:limit]],
        total=connection.execute(count).scalar_one(),
        after=bytes(rows[limit - 1].id) if len(rows) > limit else None,
    )


def one(connection: Connection, id: bytes) -> Finding | None:
    """The finding of this id; None where there is none."""
    row = connection.execute(_SELECT.where(finding.c.id == id)).first()
    return _finding(row) if row is not None else None


def current(connection: Connection, since: int, inspection: str | None = None) -> list[Finding]:
    """What is open, and what has recovered since (ms), of one inspection or of all; the oldest first."""
    conditions = [sa.or_(finding.c.recovered == 0, finding.c.recovered >= since)]
    if inspection is not None:
        conditions.append(finding.c.inspection == clean(inspection))
    return list(map(_finding, connection.execute(_SELECT.where(*conditions).order_by(finding.c.id))))


def near(connection: Connection, since: int, until: int) -> list[Finding]:
    """The newest that were open at some time in [since, until) ms."""
    ended = sa.or_(finding.c.recovered == 0, finding.c.recovered >= since)
    query = _SELECT.where(finding.c.started < until, ended).order_by(finding.c.id.desc()).limit(_NEAR)
    return list(map(_finding, connection.execute(query)))


def census(connection: Connection) -> dict[tuple[str, str], int]:
    """How many are open, by scheduler and kind."""
    by = (finding.c.scheduler, finding.c.kind)
    query = sa.select(*by, sa.func.count()).where(finding.c.recovered == 0).group_by(*by)
    return {(scheduler, kind): count for scheduler, kind, count in connection.execute(query)}


def inspections(connection: Connection) -> dict[str, Inspected]:
    """How the last inspection of each name went."""
    rows = connection.execute(sa.select(inspection)).mappings()
    return {row["name"]: Inspected(**row) for row in rows}


def remove(connection: Connection, rules: Retention, now: float) -> int:
    """Remove some findings that are too old or too many; returns how many."""
    past = finding.c.recovered > 0
    ids = sa.select(finding.c.id).where(past).order_by(finding.c.id.desc()).limit(rules.chunk)
    queries = [ids.offset(rules.max_findings)]
    if rules.errors:
        queries.append(ids.where(finding.c.recovered < int((now - rules.errors) * 1000)))
    gone = {bytes(id) for query in queries for id in connection.scalars(query)}
    for some in slices(list(gone)):
        connection.execute(sa.delete(finding).where(finding.c.id.in_(some)))
    return len(gone)


def _conditions(filter: FindingFilter) -> Iterator[ColumnElement[bool]]:
    for field in _FIELDS:
        if wanted := getattr(filter, field):
            yield finding.c[field].in_([clean(text) for text in wanted])
    if filter.key is not None:
        yield finding.c.key == clean(filter.key)
    if len(set(filter.state)) == 1:
        yield finding.c.recovered == 0 if "open" in filter.state else finding.c.recovered > 0
    if filter.since is not None:
        yield sa.or_(finding.c.recovered == 0, finding.c.last_seen >= filter.since)
    if filter.until is not None:
        yield finding.c.started < filter.until


def _values(one: Finding) -> dict[str, Any]:
    times = {name: getattr(one, name) for name in ("id", "last_seen", "started", "recovered", "told")}
    texts = {field: clean(getattr(one, field)) for field in _TEXTS}
    return {**times, **texts, "content": clean(msgspec.json.encode(one).decode())}


def _finding(row: Any) -> Finding:
    return replace(_decode(row.content), told=row.told)
