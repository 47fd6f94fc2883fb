"""Errors that are the same are one group."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
CAPTURED = sa.text("id <> run")


def upgrade() -> None:
    """Errors of runs, and their groups; what failed before belongs to none."""
    _table("occurrence", _key("id", 16), _bytes("run", 16), _bytes("error", 8), _number("at"))
    op.create_index("occurrence_by_error", "occurrence", ["error", "id"])
    op.create_index(
        "occurrence_captured", "occurrence", ["run"], sqlite_where=CAPTURED, postgresql_where=CAPTURED
    )
    _table(
        "error_group",
        _key("fingerprint", 8),
        sa.Column("job", sa.Integer(), nullable=False),
        *map(_text, ("kind", "name", "place", "message")),
        *map(_number, ("first_seen", "last_seen", "failures", "captured")),
        *[_bytes(name, 16) for name in ("latest_id", "latest_run")],
        *map(_text, ("instances", "versions")),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        _number("acted"),
        *map(_text, ("actor", "note")),
        _number("regressed"),
    )
    filtered = ["last_seen", "fingerprint", "state", "job", "first_seen"]
    op.create_index("error_group_last_seen", "error_group", filtered)
    for order in ("first_seen", "failures"):
        op.create_index(f"error_group_{order}", "error_group", [order, "fingerprint"])
    _table("error_text", _key("error", 8), _text("stack"), _text("data"))
    hour = sa.Column("at", sa.Integer(), primary_key=True, autoincrement=False)
    _table("error_rollup", hour, _key("error", 8), _number("failures"), _number("captured"))
    op.create_index("error_rollup_by_error", "error_rollup", ["error", "at"])


def _table(name: str, *columns: sa.Column[Any]) -> None:
    op.create_table(name, *columns, sqlite_with_rowid=False)


def _key(name: str, length: int) -> sa.Column[Any]:
    return sa.Column(name, sa.LargeBinary(length), primary_key=True)


def _bytes(name: str, length: int) -> sa.Column[Any]:
    return sa.Column(name, sa.LargeBinary(length), nullable=False)


def _number(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger(), nullable=False)


def _text(name: str) -> sa.Column[Any]:
    return sa.Column(name, TEXT, nullable=False)
