"""The table of alerts: one row for each (fingerprint, start), whatever was told of it, how often, in which order."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection

from taskscope.settings import Retention
from taskscope.sinks.history.merge import slices
from taskscope.sinks.history.records import AGAIN, Alert, AlertFilter, AlertPage
from taskscope.sinks.history.schema import alert

_LOCK = 0x616C6572  # of PostgreSQL, "aler": replicas merge alerts one after the other
_texts = msgspec.json.Decoder(dict[str, str]).decode


def record(connection: Connection, told: Sequence[Alert]) -> None:
    """Merge what is told into what is known. Texts must be clean."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
    new: dict[bytes, Alert] = {}
    for one in told:
        new[one.id] = new[one.id].merge(one) if one.id in new else one
    for ids in slices(sorted(new)):
        known = {bytes(row.id): _alert(row) for row in connection.execute(_select(alert.c.id.in_(ids)))}
        merged = [known[id].merge(new[id]) if id in known else new[id] for id in ids]
        connection.exec_driver_sql(_upsert(connection.dialect.name), [_values(one) for one in merged])


def page(
    connection: Connection, filter: AlertFilter, limit: int, offset: int, after: bytes | None
) -> AlertPage:
    """One page, newest first, going on `after` a page's last alert."""
    conditions = list(_conditions(filter))
    count = sa.select(sa.func.count()).select_from(alert).where(*conditions)
    rest = [alert.c.id < after] if after is not None else []
    query = _select(*conditions, *rest).add_columns(_active(filter.now, filter.silence).label("active"))
    rows = connection.execute(query.order_by(alert.c.id.desc()).limit(limit + 1).offset(offset)).all()
    return AlertPage(
        alerts=[(_alert(row), bool(row.active)) for row in rows[:limit]],
        total=connection.execute(count).scalar_one(),
        after=bytes(rows[limit - 1].id) if len(rows) > limit else None,
    )


def remove(connection: Connection, rules: Retention, now: float) -> int:
    """Remove some alerts that are too old or too many; returns how many."""
    ms = int(now * 1000)
    active = _active(ms, int(rules.alert_silence * 1000))
    ids = sa.select(alert.c.id).order_by(alert.c.id.desc()).limit(rules.chunk)
    queries = [ids.where(condition).offset(rules.max_alerts) for condition in (active, ~active)]
    if rules.max_age:
        border = ms - int(rules.max_age * 1000)
        queries.append(ids.where(~active, alert.c.fired < border, alert.c.resolved < border))
    gone = {bytes(id) for query in queries for id in connection.scalars(query)}
    for some in slices(list(gone)):
        connection.execute(sa.delete(alert).where(alert.c.id.in_(some)))
    return len(gone)


def _active(now: int, silence: int) -> ColumnElement[bool]:
    """Of alerts with one fingerprint only the newest can be: that another has ended was not told, then."""
    newer = alert.alias()
    anew = sa.exists().where(newer.c.fingerprint == alert.c.fingerprint, newer.c.id > alert.c.id)
    return sa.and_(alert.c.fired > alert.c.resolved + AGAIN, alert.c.fired > now - silence, ~anew)


def _conditions(filter: AlertFilter) -> Iterator[ColumnElement[bool]]:
    active = _active(filter.now, filter.silence)
    if len(set(filter.status)) == 1:
        yield active if "active" in filter.status else ~active
    for column in ("severity", "name", "scheduler", "job"):
        if wanted := getattr(filter, column):
            yield alert.c[column].in_(wanted)
    if filter.since is not None:
        yield sa.or_(active, alert.c.ended >= filter.since, alert.c.fired >= filter.since)
    if filter.until is not None:
        yield alert.c.started < filter.until


def _select(*conditions: ColumnElement[bool]) -> sa.Select[Any]:
    return sa.select(alert).where(*conditions)


def _alert(row: sa.Row[Any]) -> Alert:
    return Alert(
        fingerprint=row.fingerprint,
        started=row.started,
        ended=row.ended,
        fired=row.fired,
        resolved=row.resolved,
        labels=_texts(row.labels),
        annotations=_texts(row.annotations),
        generator=row.generator,
    )


def _values(one: Alert) -> tuple[Any, ...]:
    """In the order of the table's columns."""
    labels = one.labels
    return (
        one.id,
        one.fingerprint,
        one.started,
        one.ended,
        one.fired,
        one.resolved,
        *(labels.get(label, "") for label in ("alertname", "severity", "scheduler", "job_name")),
        msgspec.json.encode(labels).decode(),
        msgspec.json.encode(one.annotations).decode(),
        one.generator,
    )


def _upsert(dialect: str) -> str:
    columns = [column.name for column in alert.c]
    marks = ", ".join(["?" if dialect == "sqlite" else "%s"] * len(columns))
    changes = ", ".join(f"{column} = excluded.{column}" for column in columns[1:])
    return (
        f"INSERT INTO alert ({', '.join(columns)}) VALUES ({marks}) ON CONFLICT (id) DO UPDATE SET {changes}"
    )
