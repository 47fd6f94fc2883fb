"""When taskscope was away, and what schedulers belong to that are away themselves."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Two tables; both fill from now on."""
    op.create_table(
        "absence",
        sa.Column("began", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("ended", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "scheduler",
        sa.Column("name", TEXT, primary_key=True),
        sa.Column("labels", TEXT, nullable=False),
    )
