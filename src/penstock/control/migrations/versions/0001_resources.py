"""Models, endpoint configurations, endpoints with their replicas, and tags."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("models", "endpoint_configs"):
        op.create_table(
            name,
            sa.Column("arn", sa.String(512), primary_key=True),
            sa.Column("account", sa.String(12), nullable=False),
            sa.Column("region", sa.String(64), nullable=False),
            sa.Column("name", sa.String(63), nullable=False),
            sa.Column("created_at", sa.Float(53), nullable=False),
            sa.Column("request", sa.Text, nullable=False),
        )
        op.create_index(f"{name}_by_place", name, ["account", "region"])
    op.create_table(
        "endpoints",
        sa.Column("arn", sa.String(512), primary_key=True),
        sa.Column("id", sa.String(32), nullable=False, unique=True),
        sa.Column("account", sa.String(12), nullable=False),
        sa.Column("region", sa.String(64), nullable=False),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("fleet", sa.Text, nullable=False),
        sa.Column("target", sa.Text),
        sa.Column("failure_reason", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("modified_at", sa.Float(53), nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
    )
    op.create_index("endpoints_by_place", "endpoints", ["account", "region"])
    op.create_table(
        "replicas",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("endpoint_id", sa.String(32), sa.ForeignKey("endpoints.id", ondelete="CASCADE"), nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("variant", sa.String(63), nullable=False),
        sa.Column("slot", sa.Integer, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("instance_id", sa.String(32), nullable=False),
        sa.Column("boot", sa.String(32), nullable=False),
    )
    op.create_index("ix_replicas_endpoint_id", "replicas", ["endpoint_id"])
    op.create_table(
        "tags",
        sa.Column("arn", sa.String(512), primary_key=True),
        sa.Column("key", sa.String(128), primary_key=True),
        sa.Column("value", sa.String(256), nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
    )
