"""When no taskscope was there to see what runs: from the last sign of life of any process to a start."""

import sqlalchemy as sa
from sqlalchemy import Connection

from taskscope.settings import Settings
from taskscope.sinks.history.findings import upsert
from taskscope.sinks.history.schema import absence, instance


def note(connection: Connection, settings: Settings, now: float) -> None:
    """Note that somebody is here again, who has not said so yet; `now` in seconds."""
    began, ended = connection.scalar(sa.select(sa.func.max(instance.c.beat))) or 0, int(now * 1000)
    if ended - began > settings.lost_after * 1000:
        upsert(connection, absence, [{"began": began, "ended": ended}])
    forgotten = int((now - settings.retention.rollups) * 1000)
    connection.execute(sa.delete(absence).where(absence.c.ended < forgotten))


def read(connection: Connection) -> list[tuple[int, int]]:
    """All of them, (from, until) in ms."""
    return [(began, ended) for began, ended in connection.execute(sa.select(absence))]
