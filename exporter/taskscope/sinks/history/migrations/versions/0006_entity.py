"""Runs are found by what they were about."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

ABOUT = sa.text("entity <> 0")


def upgrade() -> None:
    """An index of the runs that say what they were about."""
    op.create_index("run_by_entity", "run", ["entity", "id"], sqlite_where=ABOUT, postgresql_where=ABOUT)
