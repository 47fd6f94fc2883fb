"""From a `Filter` to SQL: names become their small ids, and every way in has an index where one exists."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TypeAlias

import msgspec
import sqlalchemy as sa
from sqlalchemy import ColumnElement, Connection

from taskscope.events import JobKey
from taskscope.facts import RANK
from taskscope.identity import first_id
from taskscope.sinks.history import error_queries, schema
from taskscope.sinks.history.records import Filter

Condition: TypeAlias = ColumnElement[bool] | sa.TextClause

BRANCHES = 32
"""So many index ranges are walked side by side; beyond, the runs are walked in order and filtered."""

run, job, name, detail = schema.run, schema.job, schema.name, schema.detail

_INTERNED = ("queue", "worker", "entity", "exception")


class Conditions(msgspec.Struct):
    """What a run must fulfil, all of it. None does not filter."""

    others: list[Condition]
    jobs: list[int] | None
    ranks: list[int] | None


def conditions(connection: Connection, filter: Filter) -> Conditions | None:
    """The conditions of the filter; None where no run can fulfil them, as a name was never seen."""
    others = [*_times(filter), *_durations(connection, filter), *_texts(connection, filter)]
    others += _reasons(connection, filter.reason)
    if filter.error:
        others.append(error_queries.runs_of(filter.error))
    names = named(connection, {column: getattr(filter, column) for column in _INTERNED})
    if names is None:
        return None
    others += names
    jobs = None
    if filter.job or filter.scheduler:
        jobs = list(connection.scalars(sa.select(job.c.id).where(*_job_is(filter.job, filter.scheduler))))
        if not jobs:
            return None
    ranks = sorted({RANK[status] for status in filter.status}) or None
    few = filter.trace_id or (filter.key and "" not in filter.key)
    if few:  # no other index leads to them sooner
        return Conditions([*others, *_one_of(run.c.job, jobs), *_one_of(run.c.rank, ranks)], None, None)
    return Conditions(others, jobs, ranks)


def named(connection: Connection, wanted: Mapping[str, Sequence[str]]) -> list[Condition] | None:
    """Runs with one of these names in each of these columns; None where one was never seen."""
    ids = {column: name_ids(connection, texts) for column, texts in wanted.items() if texts}
    if not all(ids.values()):
        return None
    found: list[Condition] = [run.c[column].in_(known) for column, known in ids.items()]
    if 0 not in ids.get("entity", [0]):
        found.append(sa.text(schema.ABOUT))
    return found


def _reasons(connection: Connection, wanted: Sequence[str]) -> list[Condition]:
    """`lost` is the reason of every run of which nothing else is known; it is not stored."""
    if not wanted:
        return []
    stored = run.c.reason.in_(name_ids(connection, wanted)) & (run.c.rank != RANK["unknown"])
    return [stored | (run.c.rank == RANK["unknown"])] if schema.LOST in wanted else [stored]


def branches(conditions: Conditions) -> list[list[Condition]]:
    """The same, as disjoint ranges of indexes, each in the order of ids; their union is what fulfils them."""
    jobs, ranks = conditions.jobs, conditions.ranks
    few = jobs is not None and len(jobs) * len(ranks or [0]) <= BRANCHES
    if ranks is not None and RANK["success"] not in ranks:
        ways = [way for rank in ranks for way in _of_rank(rank, jobs, few)]
    elif jobs is not None and few:
        ways = [[run.c.job == id, *_one_of(run.c.rank, ranks)] for id in jobs]
    else:
        ways = [[*_one_of(run.c.job, jobs), *_one_of(run.c.rank, ranks)]]
    return [[*way, *conditions.others] for way in ways]


def everything(conditions: Conditions) -> list[Condition]:
    """The same, as one list of conditions."""
    jobs = [run.c.job.in_(conditions.jobs)] if conditions.jobs is not None else []
    return [*jobs, *_one_of(run.c.rank, conditions.ranks), *conditions.others]


def beyond(conditions: Conditions, after: bytes | None, descending: bool) -> Conditions:
    """The same for what comes after this run in the order of ids."""
    if after is None:
        return conditions
    after_it = run.c.id < after if descending else run.c.id > after
    return msgspec.structs.replace(conditions, others=[*conditions.others, after_it])


def jobs(connection: Connection, names: Sequence[str], schedulers: Sequence[str]) -> dict[int, JobKey]:
    """The jobs with one of these names at one of these schedulers, by job.id."""
    query = sa.select(job.c.id, job.c.scheduler, job.c.name).where(*_job_is(names, schedulers))
    found = connection.execute(
        query.where(job.c.name != "")
    )  # '' are runs of which the name is not known yet
    return {id: (scheduler, text) for id, scheduler, text in found}


def name_ids(connection: Connection, texts: Collection[str]) -> list[int]:
    """Of those texts that were ever seen."""
    digests = [schema.digest(schema.clean(text)) for text in texts]
    blank = [0] if "" in texts else []
    return blank + list(connection.scalars(sa.select(name.c.id).where(name.c.digest.in_(digests))))


def _job_is(names: Sequence[str], schedulers: Sequence[str]) -> Iterable[Condition]:
    if names:
        yield job.c.name.in_([schema.clean(text) for text in names])
    if schedulers:
        yield job.c.scheduler.in_([schema.clean(text) for text in schedulers])


def _of_rank(rank: int, jobs: list[int] | None, few: bool) -> list[list[Condition]]:
    """Runs of a status other than success are in partial indexes; SQLite sees that in literal numbers."""
    status = sa.text(f"rank = {rank}")
    if jobs is not None and few and rank > RANK["started"]:
        return [[run.c.job == id, status, sa.text(schema.ENDED_BADLY)] for id in jobs]
    return [[status, sa.text(schema.UNSUCCESSFUL), *_one_of(run.c.job, jobs)]]


def _one_of(column: ColumnElement[int], values: list[int] | None) -> list[Condition]:
    return [] if values is None else [schema.unindexed(column).in_(values)]


def _times(filter: Filter, id: ColumnElement[bytes] = run.c.id) -> Iterable[Condition]:
    if filter.since is not None:
        yield id >= first_id(filter.since)
    if filter.until is not None:
        yield id < first_id(filter.until)


def _durations(connection: Connection, filter: Filter) -> Iterable[Condition]:
    if filter.slow is not None:
        yield run.c.duration > micros(filter.slow)
    if filter.slow_by_job is not None:
        limits = {id: micros(limit) for id, limit in limits_by_id(connection, filter.slow_by_job).items()}
        if not limits:
            yield sa.false()
            return
        yield run.c.duration > min(limits.values())
        yield run.c.duration > sa.case(limits, value=run.c.job)  # NULL, so false, for all other jobs


def limits_by_id(connection: Connection, limits: dict[JobKey, float]) -> dict[int, float]:
    """The limits by job.id instead of by name."""
    by_digest = {schema.digest(*map(schema.clean, key)): limit for key, limit in limits.items()}
    found = connection.execute(sa.select(job.c.id, job.c.digest).where(job.c.digest.in_(by_digest)))
    return {id: by_digest[bytes(digest)] for id, digest in found}


def micros(seconds: float) -> int:
    """Seconds as the database has them: whole µs that fit its integers."""
    return round(min(max(seconds, 0.0), 1e12) * 1e6)


def _texts(connection: Connection, filter: Filter) -> Iterable[Condition]:
    if filter.trace_id:
        yield run.c.trace_id == schema.clean(filter.trace_id)
        yield sa.text(schema.TRACED)
    if filter.key:
        yield run.c.key.in_([schema.clean(text) for text in filter.key])
        if "" not in filter.key:
            yield sa.text(schema.KEYED)
    if filter.q:
        holds = sa.func.instr if connection.dialect.name == "sqlite" else sa.func.strpos
        text = schema.clean(filter.q).encode().lower().decode()  # bytes fold only ASCII, as the databases do
        jobs = sa.select(job.c.id).where(holds(sa.func.lower(job.c.name), text) > 0)
        exceptions = sa.select(name.c.id).where(holds(sa.func.lower(name.c.text), text) > 0)
        messages = sa.select(detail.c.id).where(
            holds(sa.func.lower(detail.c.message), text) > 0, *_times(filter, detail.c.id)
        )
        yield sa.or_(run.c.job.in_(jobs), run.c.exception.in_(exceptions), run.c.id.in_(messages))
