"""What retention has removed: facts about these runs come too late."""

import sqlalchemy as sa

from taskscope.events import JobKey
from taskscope.facts import Row
from taskscope.sinks.history.schema import job, removed

_LOCK = 0x676F6E65  # of PostgreSQL, "gone": no replica merges while another removes


class Removed:
    """The highest removed run id: overall, and of each job that has a rule of its own."""

    def __init__(self) -> None:
        self.highest = b""
        """Nothing above it was ever removed."""
        self._overall = b""
        self._by_job: dict[JobKey, bytes] = {}
        self._by_scheduler: dict[str, bytes] = {}

    def covers(self, row: Row) -> bool:
        """If this run is not stored, is it because it has been removed?"""
        if row.id <= self._overall:
            return True
        if row.job:
            return row.id <= self._by_job.get(row.job_key, b"")
        return row.id <= self._by_scheduler.get(row.scheduler, b"")  # its name is not told: any of them

    def load(self, connection: sa.Connection) -> None:
        """Read it all, and while the transaction lasts let nobody remove more."""
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock_shared({_LOCK})")
        query = sa.select(removed.c.id, removed.c.job, job.c.scheduler, job.c.name)
        self._overall = self.highest = b""
        self._by_job.clear()
        self._by_scheduler.clear()
        for run, number, scheduler, name in connection.execute(
            query.outerjoin(job, job.c.id == removed.c.job)
        ):
            self._learn(bytes(run), (scheduler, name) if number else None)

    def note(self, connection: sa.Connection, run: bytes, number: int = 0, key: JobKey | None = None) -> None:
        """Write down that runs up to this one are removed: all, or those of the job with this id and key."""
        mark, greater = ("?", "max") if connection.dialect.name == "sqlite" else ("%s", "greatest")
        connection.exec_driver_sql(
            f"INSERT INTO removed (job, id) VALUES ({mark}, {mark})"
            f" ON CONFLICT (job) DO UPDATE SET id = {greater}(removed.id, excluded.id)",
            (number, run),
        )
        self._learn(run, key)

    def _learn(self, run: bytes, key: JobKey | None) -> None:
        self.highest = max(self.highest, run)
        if key is None:
            self._overall = max(self._overall, run)
        else:
            self._by_job[key] = max(run, self._by_job.get(key, b""))
            self._by_scheduler[key[0]] = max(run, self._by_scheduler.get(key[0], b""))


def removing(connection: sa.Connection) -> None:
    """While the transaction lasts, let nobody merge: what is being removed could come back."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
