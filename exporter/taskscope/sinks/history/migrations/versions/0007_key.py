"""Runs say what their users call them and what came of them."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
KEYED = sa.text("key <> ''")


def upgrade() -> None:
    """Two columns, empty in all rows from before, and an index of the runs that have a key."""
    for name in ("key", "result"):
        op.add_column("run", sa.Column(name, TEXT, nullable=False, server_default=""))
    op.create_index("run_by_key", "run", ["key"], sqlite_where=KEYED, postgresql_where=KEYED)
