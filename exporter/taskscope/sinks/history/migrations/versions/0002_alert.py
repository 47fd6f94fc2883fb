"""Alerts that Alertmanager told of."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
TIMES = ("started", "ended", "fired", "resolved")
LABELS = ("name", "severity", "scheduler", "job")
TEXTS = ("labels", "annotations", "generator")


def upgrade() -> None:
    """Alerts that Alertmanager told of."""
    op.create_table(
        "alert",
        sa.Column("id", sa.LargeBinary(16), primary_key=True),
        sa.Column("fingerprint", TEXT, nullable=False),
        *[sa.Column(name, sa.BigInteger(), nullable=False) for name in TIMES],
        *[sa.Column(name, TEXT, nullable=False) for name in (*LABELS, *TEXTS)],
    )
    op.create_index("alert_by_fingerprint", "alert", ["fingerprint", "id"])
