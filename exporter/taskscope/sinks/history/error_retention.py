"""Removes occurrences with their runs, and error groups that were not seen for long or are too many."""

import sqlalchemy as sa

from taskscope.settings import Retention
from taskscope.sinks.history import error_ledger
from taskscope.sinks.history.merge import slices
from taskscope.sinks.history.schema import CAPTURED, error_group, error_rollup

_HOUR = 3_600  # seconds


def remove_occurrences(connection: sa.Connection, runs: list[bytes]) -> None:
    """Remove the errors of these runs."""
    mark = "?" if connection.dialect.name == "sqlite" else "%s"
    for some in slices(runs):
        marks, ids = ", ".join([mark] * len(some)), tuple(some)
        captured = f"SELECT id FROM occurrence WHERE run IN ({marks}) AND {CAPTURED}"
        connection.exec_driver_sql(f"DELETE FROM detail WHERE id IN ({captured})", ids)
        connection.exec_driver_sql(f"DELETE FROM occurrence WHERE run IN ({marks}) AND {CAPTURED}", ids)
        connection.exec_driver_sql(f"DELETE FROM occurrence WHERE id IN ({marks})", ids)


def remove(connection: sa.Connection, rules: Retention, now: float) -> int:
    """Remove some groups, and rollups, that are too old or too many; returns how many."""
    groups, fingerprint = error_group.c, error_group.c.fingerprint
    oldest = sa.select(fingerprint).order_by(groups.last_seen, fingerprint).limit(rules.chunk)
    silent = oldest.where(groups.last_seen < int((now - rules.errors) * 1000))
    gone = {bytes(found) for found in connection.scalars(silent)}
    if not gone and (excess := _excess(connection, rules.max_errors)):
        gone = {bytes(found) for found in connection.scalars(oldest.limit(min(excess, rules.chunk)))}
    error_ledger.remove(connection, sorted(gone))
    return len(gone) + _remove_rollups(connection, rules, now)


def _excess(connection: sa.Connection, most: int) -> int:
    """How many groups must go so that there is room for a tenth of what may be; 0 while there is room for one."""
    number: int = connection.execute(sa.select(sa.func.count()).select_from(error_group)).scalar_one()
    return number - most + max(1, most // 10) if number >= most else 0


def _remove_rollups(connection: sa.Connection, rules: Retention, now: float) -> int:
    """The oldest hour, where it is too old."""
    at = error_rollup.c.at
    oldest = connection.execute(sa.select(sa.func.min(at))).scalar()
    if oldest is None or oldest >= int(now - rules.rollups) // _HOUR:
        return 0
    return connection.execute(sa.delete(error_rollup).where(at == oldest)).rowcount
