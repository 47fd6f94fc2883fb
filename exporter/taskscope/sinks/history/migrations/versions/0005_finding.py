"""Inspections and what they find."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
TIMES = ("started", "last_seen", "recovered", "told")
TEXTS = ("inspection", "kind", "level", "scheduler", "job", "key", "content")


def upgrade() -> None:
    """Findings, and when each inspection looked last."""
    op.create_table(
        "finding",
        sa.Column("id", sa.LargeBinary(16), primary_key=True),
        *[sa.Column(name, sa.BigInteger(), nullable=False) for name in TIMES],
        *[sa.Column(name, TEXT, nullable=False) for name in TEXTS],
    )
    op.create_index("finding_by_inspection", "finding", ["inspection", "id"])
    op.create_index("finding_by_recovery", "finding", ["recovered", "id"])
    op.create_table(
        "inspection",
        sa.Column("name", TEXT, primary_key=True),
        *[sa.Column(name, sa.BigInteger(), nullable=False) for name in ("through", "at", "took", "found")],
        sa.Column("failure", TEXT, nullable=False),
    )
