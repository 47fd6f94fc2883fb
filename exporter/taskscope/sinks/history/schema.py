"""The tables of the history, the same on SQLite and PostgreSQL.

Texts that repeat are interned: `job` holds (scheduler, job name), `name` all others; a run holds their ids.
Points in time are ms since the epoch, durations µs; 0 and '' mean unknown: merging is "the greater holds".
On PostgreSQL everything lives in the schema `taskscope`, which every connection of ours searches alone.
"""

from hashlib import sha256
from typing import Any

import sqlalchemy as sa

from taskscope.facts import RANK

HEAD = "0008"
"""The revision that this code reads and writes: the newest file in migrations/versions."""

NAMESPACE = "taskscope"
"""The schema on PostgreSQL."""

metadata = sa.MetaData()

_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")  # compares like Python: by code point
_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

job = sa.Table(
    "job",
    metadata,
    sa.Column("id", _ROW_ID, primary_key=True),
    sa.Column("digest", sa.LargeBinary(16), nullable=False, unique=True),
    sa.Column("scheduler", _TEXT, nullable=False),
    sa.Column("name", _TEXT, nullable=False),
)
"""Every (scheduler, job name) ever seen; name '' stands for runs not named yet, `_other` only for counts."""

name = sa.Table(
    "name",
    metadata,
    sa.Column("id", _ROW_ID, primary_key=True),
    sa.Column("digest", sa.LargeBinary(16), nullable=False, unique=True),
    sa.Column("text", _TEXT, nullable=False),
)
"""Every reason, exception, queue, worker, instance and entity ever seen."""

run = sa.Table(
    "run",
    metadata,
    sa.Column("id", sa.LargeBinary(16), primary_key=True),
    sa.Column("job", sa.Integer, nullable=False),
    sa.Column("facts", sa.Integer, nullable=False),
    sa.Column("added", sa.Integer, nullable=False),
    sa.Column("rank", sa.SmallInteger, nullable=False),
    sa.Column("attempt", sa.BigInteger, nullable=False),
    sa.Column("due", sa.BigInteger, nullable=False),
    sa.Column("enqueued", sa.BigInteger, nullable=False),
    sa.Column("started", sa.BigInteger, nullable=False),
    sa.Column("ended", sa.BigInteger, nullable=False),
    sa.Column("duration", sa.BigInteger, nullable=False),
    sa.Column("reason", sa.Integer, nullable=False),
    sa.Column("exception", sa.Integer, nullable=False),
    sa.Column("queue", sa.Integer, nullable=False),
    sa.Column("worker", sa.Integer, nullable=False),
    sa.Column("instance", sa.Integer, nullable=False),
    sa.Column("entity", sa.Integer, nullable=False),
    sa.Column("trace_id", _TEXT, nullable=False),
    sa.Column("key", _TEXT, nullable=False, server_default=""),
    sa.Column("result", _TEXT, nullable=False, server_default=""),
    sa.Column("changed", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
"""One row for each run. `job` is a job.id; reason … entity are name.id; `rank` is its place in facts.RANKED.

`added` holds the bits which the last merge added, `changed` the seconds of the store's clock at that merge.
"""

LOST = "lost"
"""The reason of a run whose process is gone: its rank says so, and a real ending may still come."""
OPEN = f"rank < {RANK['unknown']}"
"""SQL: runs that have not ended."""
UNSUCCESSFUL = f"rank <> {RANK['success']}"
"""SQL: runs in `run_unsuccessful` (rank, id). Write it beside `rank = …`, or SQLite leaves the index."""
ENDED_BADLY = f"rank NOT IN ({RANK['queued']}, {RANK['started']}, {RANK['success']})"
"""SQL: runs in `run_ended_badly` (job, rank, id); to be written out likewise. (No range: SQLite would walk it.)"""
ABOUT = "entity <> 0"
"""SQL: runs in `run_by_entity` (entity, id); to be written out likewise."""
TRACED = "trace_id <> ''"
"""SQL: runs in `run_by_trace` (trace_id); to be written out likewise."""
KEYED = "key <> ''"
"""SQL: runs in `run_by_key` (key); to be written out likewise."""


def _partial(name: str, condition: str, *columns: sa.Column[Any]) -> None:
    where = sa.text(condition)
    sa.Index(name, *columns, sqlite_where=where, postgresql_where=where)


sa.Index("run_by_job", run.c.job, run.c.id)
_partial("run_unsuccessful", UNSUCCESSFUL, run.c.rank, run.c.id)
_partial("run_ended_badly", ENDED_BADLY, run.c.job, run.c.rank, run.c.id)
_partial("run_by_entity", ABOUT, run.c.entity, run.c.id)
_partial("run_by_trace", TRACED, run.c.trace_id)
_partial("run_by_key", KEYED, run.c.key)

detail = sa.Table(
    "detail",
    metadata,
    sa.Column("id", sa.LargeBinary(16), primary_key=True),
    sa.Column("message", _TEXT, nullable=False),
    sa.Column("stack", _TEXT, nullable=False),
    sa.Column("data", _TEXT, nullable=False),
    sa.Column("details", _TEXT, nullable=False),
    sqlite_with_rowid=False,
)
"""The heavy texts of a run, by run id; only runs that have any."""

open_run = sa.Table(
    "open_run",
    metadata,
    sa.Column("key", sa.LargeBinary(10), primary_key=True),
    sa.Column("id", sa.LargeBinary(16), nullable=False),
    sqlite_with_rowid=False,
)
"""The id that a run without an anchor got by its first fact, by identity.key; until its run has long ended."""

replica = sa.Table(
    "replica",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", _TEXT, nullable=False, unique=True),
)
"""Who counts: a UUID in the owner's file on SQLite, a leased `host/service/slot` on PostgreSQL."""

counter = sa.Table(
    "counter",
    metadata,
    sa.Column("replica", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("job", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("counts", sa.LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
"""What a replica has counted of a job: a packed counts.Counts. Never pruned."""

job_state = sa.Table(
    "job_state",
    metadata,
    sa.Column("job", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("state", sa.LargeBinary, nullable=False),
)
"""Memories of a job: a packed counts.JobState."""

rollup = sa.Table(
    "rollup",
    metadata,
    sa.Column("hours", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("at", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("job", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("replica", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("rollup", sa.LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
"""Runs by their anchor: a packed rollups.Rollup. Every run is in an hour (`hours` = 1) and in a UTC day (24).

`at` is its begin in hours since the epoch. Use days for whole days, hours for the rest; add up the replicas.
"""

instance = sa.Table(
    "instance",
    metadata,
    sa.Column("name", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("host", _TEXT, nullable=False),
    sa.Column("pid", sa.BigInteger, nullable=False),
    sa.Column("beat", sa.BigInteger, nullable=False),
)
"""Processes that say they live; `name` is a name.id."""

removed = sa.Table(
    "removed",
    metadata,
    sa.Column("job", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("id", sa.LargeBinary(16), nullable=False),
)
"""The highest run id that retention removed: overall (job 0), and of a job under a rule of its own."""

occurrence = sa.Table(
    "occurrence",
    metadata,
    sa.Column("id", sa.LargeBinary(16), primary_key=True),
    sa.Column("run", sa.LargeBinary(16), nullable=False),
    sa.Column("error", sa.LargeBinary(8), nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
"""The errors of runs: what a run failed of, under the run's own id, and exceptions that it reported (`CAPTURED`).

`error` is the fingerprint of their group, which may be gone; their texts are in `detail`, by their own ids.
"""

CAPTURED = "id <> run"
"""SQL: occurrences in `occurrence_captured` (run)."""

sa.Index("occurrence_by_error", occurrence.c.error, occurrence.c.id)
sa.Index(
    "occurrence_captured",
    occurrence.c.run,
    sqlite_where=sa.text(CAPTURED),
    postgresql_where=sa.text(CAPTURED),
)

error_group = sa.Table(
    "error_group",
    metadata,
    sa.Column("fingerprint", sa.LargeBinary(8), primary_key=True),
    sa.Column("job", sa.Integer, nullable=False),
    sa.Column("kind", _TEXT, nullable=False),
    sa.Column("name", _TEXT, nullable=False),
    sa.Column("place", _TEXT, nullable=False),
    sa.Column("message", _TEXT, nullable=False),
    sa.Column("first_seen", sa.BigInteger, nullable=False),
    sa.Column("last_seen", sa.BigInteger, nullable=False),
    sa.Column("failures", sa.BigInteger, nullable=False),
    sa.Column("captured", sa.BigInteger, nullable=False),
    sa.Column("latest_id", sa.LargeBinary(16), nullable=False),
    sa.Column("latest_run", sa.LargeBinary(16), nullable=False),
    sa.Column("instances", _TEXT, nullable=False),
    sa.Column("versions", _TEXT, nullable=False),
    sa.Column("state", sa.SmallInteger, nullable=False),
    sa.Column("acted", sa.BigInteger, nullable=False),
    sa.Column("actor", _TEXT, nullable=False),
    sa.Column("note", _TEXT, nullable=False),
    sa.Column("regressed", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
"""Errors of a job that are the same: an error_records.ErrorGroup without its heavy texts. Outlives its occurrences."""

_FILTERED = ("fingerprint", "state", "job", "first_seen")
"""Behind `last_seen`: the usual filters then read the index alone, and no texts."""
sa.Index("error_group_last_seen", error_group.c.last_seen, *[error_group.c[name] for name in _FILTERED])
for _order in ("first_seen", "failures"):
    sa.Index(f"error_group_{_order}", error_group.c[_order], error_group.c.fingerprint)

error_text = sa.Table(
    "error_text",
    metadata,
    sa.Column("error", sa.LargeBinary(8), primary_key=True),
    sa.Column("stack", _TEXT, nullable=False),
    sa.Column("data", _TEXT, nullable=False),
    sqlite_with_rowid=False,
)
"""The heavy texts of a group's latest occurrence."""

error_rollup = sa.Table(
    "error_rollup",
    metadata,
    sa.Column("at", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("error", sa.LargeBinary(8), primary_key=True),
    sa.Column("failures", sa.BigInteger, nullable=False),
    sa.Column("captured", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
"""Occurrences by the anchor of their run: `at` is hours since the epoch."""

sa.Index("error_rollup_by_error", error_rollup.c.error, error_rollup.c.at)

alert = sa.Table(
    "alert",
    metadata,
    sa.Column("id", sa.LargeBinary(16), primary_key=True),
    sa.Column("fingerprint", _TEXT, nullable=False),
    sa.Column("started", sa.BigInteger, nullable=False),
    sa.Column("ended", sa.BigInteger, nullable=False),
    sa.Column("fired", sa.BigInteger, nullable=False),
    sa.Column("resolved", sa.BigInteger, nullable=False),
    sa.Column("name", _TEXT, nullable=False),
    sa.Column("severity", _TEXT, nullable=False),
    sa.Column("scheduler", _TEXT, nullable=False),
    sa.Column("job", _TEXT, nullable=False),
    sa.Column("labels", _TEXT, nullable=False),
    sa.Column("annotations", _TEXT, nullable=False),
    sa.Column("generator", _TEXT, nullable=False),
)
"""What Alertmanager told: a records.Alert for each (fingerprint, started); `labels` and `annotations` are JSON."""

sa.Index("alert_by_fingerprint", alert.c.fingerprint, alert.c.id)


finding = sa.Table(
    "finding",
    metadata,
    sa.Column("id", sa.LargeBinary(16), primary_key=True),
    *[
        sa.Column(name, sa.BigInteger, nullable=False)
        for name in ("started", "last_seen", "recovered", "told")
    ],
    *[
        sa.Column(name, _TEXT, nullable=False)
        for name in ("inspection", "kind", "level", "scheduler", "job", "key", "content")
    ],
)
"""What inspections found: `content` is a finding_records.Finding as JSON; the rest is for filters, but `told`."""

sa.Index("finding_by_inspection", finding.c.inspection, finding.c.id)
sa.Index("finding_by_recovery", finding.c.recovered, finding.c.id)

inspection = sa.Table(
    "inspection",
    metadata,
    sa.Column("name", _TEXT, primary_key=True),
    *[sa.Column(name, sa.BigInteger, nullable=False) for name in ("through", "at", "took", "found")],
    sa.Column("failure", _TEXT, nullable=False),
)
"""How the last inspection of each name went: a finding_records.Inspected."""

absence = sa.Table(
    "absence",
    metadata,
    *[
        sa.Column(name, sa.BigInteger, primary_key=name == "began", nullable=False, autoincrement=False)
        for name in ("began", "ended")
    ],
)
"""When no taskscope was there to see what runs."""

scheduler = sa.Table(
    "scheduler",
    metadata,
    sa.Column("name", _TEXT, primary_key=True),
    sa.Column("labels", _TEXT, nullable=False),
)
"""What each scheduler belongs to, as it said last: JSON."""


def unindexed(column: sa.ColumnElement[int]) -> sa.ColumnElement[int]:
    """The column with a plus, for which SQLite uses no index: it would walk all of one, or sort what it finds by it."""
    return sa.literal_column(f"+{column}", sa.Integer)


def digest(*texts: str) -> bytes:
    """What `job.digest` (scheduler, name) and `name.digest` (text) hold: names may exceed an index."""
    return sha256("\0".join(texts).encode()).digest()[:16]


def clean(text: str) -> str:
    """The text as a database can hold it: without NUL and lone surrogates."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
