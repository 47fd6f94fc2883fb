"""Runs whose facts know no common anchor are found again."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """The ids that their first facts chose."""
    op.create_table(
        "open_run",
        sa.Column("key", sa.LargeBinary(10), primary_key=True),
        sa.Column("id", sa.LargeBinary(16), nullable=False),
        sqlite_with_rowid=False,
    )
