"""What is remembered of jobs, and in which queues they ran."""

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection

from taskscope.counts import JobState
from taskscope.events import JobKey
from taskscope.identity import first_id
from taskscope.sinks.history.schema import job, job_state, name, run

decode = msgspec.msgpack.Decoder(JobState).decode


def states(connection: Connection) -> dict[JobKey, JobState]:
    """The saved memories of all jobs."""
    query = sa.select(job.c.scheduler, job.c.name, job_state.c.state).join(job, job.c.id == job_state.c.job)
    return {(scheduler, of): decode(packed) for scheduler, of, packed in connection.execute(query)}


def queues(connection: Connection, since: int) -> dict[JobKey, frozenset[str]]:
    """In which queues each job ran, since then (ms)."""
    ran = sa.select(run.c.job, run.c.queue).distinct().where(run.c.id >= first_id(since)).subquery()
    query = sa.select(job.c.scheduler, job.c.name, name.c.text).select_from(
        ran.join(job, job.c.id == ran.c.job).outerjoin(name, name.c.id == ran.c.queue)
    )
    found: dict[JobKey, set[str]] = {}
    for scheduler, of, queue in connection.execute(query):
        found.setdefault((scheduler, of), set()).add(queue or "")
    return {key: frozenset(texts) for key, texts in found.items()}
