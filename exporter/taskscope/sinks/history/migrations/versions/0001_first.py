"""The first tables."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
ID_16 = sa.LargeBinary(16)
NUMBERS = ("attempt", "due", "enqueued", "started", "ended", "duration")
NAMES = ("reason", "exception", "queue", "worker", "instance", "entity")


def upgrade() -> None:
    """The first tables."""
    _names()
    _runs()
    _indexes()
    _counts()
    _processes()


def _column(name: str, type_: sa.types.TypeEngine[Any]) -> sa.Column[Any]:
    return sa.Column(name, type_, nullable=False)


def _key(name: str, type_: sa.types.TypeEngine[Any]) -> sa.Column[Any]:
    return sa.Column(name, type_, primary_key=True, autoincrement=False)


def _names() -> None:
    for table, texts in {"job": ["scheduler", "name"], "name": ["text"]}.items():
        op.create_table(
            table,
            sa.Column("id", ROW_ID, primary_key=True),
            sa.Column("digest", ID_16, nullable=False, unique=True),
            *[_column(text, TEXT) for text in texts],
        )


def _runs() -> None:
    op.create_table(
        "run",
        _key("id", ID_16),
        _column("job", sa.Integer()),
        _column("facts", sa.Integer()),
        _column("added", sa.Integer()),
        _column("rank", sa.SmallInteger()),
        *[_column(name, sa.BigInteger()) for name in NUMBERS],
        *[_column(name, sa.Integer()) for name in NAMES],
        _column("trace_id", TEXT),
        _column("changed", sa.BigInteger()),
        sqlite_with_rowid=False,
    )
    texts = [_column(name, TEXT) for name in ("message", "stack", "data", "details")]
    op.create_table("detail", _key("id", ID_16), *texts, sqlite_with_rowid=False)


def _indexes() -> None:
    op.create_index("run_by_job", "run", ["job", "id"])
    _partial("run_unsuccessful", ["rank", "id"], "rank <> 6")
    _partial("run_ended_badly", ["job", "rank", "id"], "rank NOT IN (0, 1, 6)")
    _partial("run_by_trace", ["trace_id"], "trace_id <> ''")


def _partial(name: str, columns: list[str], where: str) -> None:
    op.create_index(name, "run", columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))


def _counts() -> None:
    op.create_table(
        "replica",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("name", TEXT, nullable=False, unique=True),
    )
    op.create_table(
        "counter",
        _key("replica", sa.Integer()),
        _key("job", sa.Integer()),
        _column("counts", sa.LargeBinary()),
        sqlite_with_rowid=False,
    )
    op.create_table("job_state", _key("job", sa.Integer()), _column("state", sa.LargeBinary()))
    op.create_table(
        "rollup",
        _key("hours", sa.SmallInteger()),
        _key("at", sa.Integer()),
        _key("job", sa.Integer()),
        _key("replica", sa.Integer()),
        _column("rollup", sa.LargeBinary()),
        sqlite_with_rowid=False,
    )


def _processes() -> None:
    op.create_table(
        "instance",
        _key("name", sa.Integer()),
        _column("host", TEXT),
        _column("pid", sa.BigInteger()),
        _column("beat", sa.BigInteger()),
    )
    op.create_table("removed", _key("job", sa.Integer()), _column("id", ID_16))
