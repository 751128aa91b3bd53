"""Fault plans of endpoints."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "fault_plans",
        sa.Column("arn", sa.String(512), sa.ForeignKey("endpoints.arn", ondelete="CASCADE"), primary_key=True),
        sa.Column("plan", sa.Text, nullable=False),
        sa.Column("set_at", sa.Float(53), nullable=False),
    )
