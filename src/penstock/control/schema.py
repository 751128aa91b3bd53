"""The tables of the database.

Owns their columns. The numbered files in `migrations/versions` lead there step by step; a test compares the two.
Names are unique whatever their case, as the ARN is (AWS, "CreateEndpoint": the name is case-insensitive), so the ARN is the key.
"""

from __future__ import annotations

from sqlalchemy import Column, Float, ForeignKey, Index, Integer, MetaData, String, Table, Text

metadata = MetaData()


def _resource(name: str) -> Table:
    return Table(
        name,
        metadata,
        Column("arn", String(512), primary_key=True),
        Column("account", String(12), nullable=False),
        Column("region", String(64), nullable=False),
        Column("name", String(63), nullable=False),
        Column("created_at", Float(53), nullable=False),
        Column("request", Text, nullable=False),  # JSON: the request that made it, less its tags
        Index(f"{name}_by_place", "account", "region"),
    )


models = _resource("models")
endpoint_configs = _resource("endpoint_configs")

endpoints = Table(
    "endpoints",
    metadata,
    Column("arn", String(512), primary_key=True),
    Column("id", String(32), nullable=False, unique=True),
    Column("account", String(12), nullable=False),
    Column("region", String(64), nullable=False),
    Column("name", String(63), nullable=False),
    Column("status", String(32), nullable=False),
    Column("fleet", Text, nullable=False),  # JSON: fleet.Fleet
    Column("target", Text),  # JSON: fleet.Fleet
    Column("failure_reason", Text, nullable=False),
    Column("created_at", Float(53), nullable=False),
    Column("modified_at", Float(53), nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("revision", Integer, nullable=False),
    Column(
        "host", Text
    ),  # JSON: fleet.Host; of inference components, which are kept here too: their replicas are like any others
    Index("endpoints_by_place", "account", "region"),
)

replicas = Table(
    "replicas",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("endpoint_id", String(32), ForeignKey("endpoints.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("generation", Integer, nullable=False),
    Column("variant", String(63), nullable=False),
    Column("slot", Integer, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("instance_id", String(32), nullable=False),
    Column("boot", String(32), nullable=False),
    Column("container", String(63)),  # of a variant with several
)

fault_plans = Table(
    "fault_plans",
    metadata,
    Column("arn", String(512), ForeignKey("endpoints.arn", ondelete="CASCADE"), primary_key=True),
    Column("plan", Text, nullable=False),  # JSON: faultplan.Plan
    Column("set_at", Float(53), nullable=False),
)

tags = Table(
    "tags",
    metadata,
    Column("arn", String(512), primary_key=True),
    Column("key", String(128), primary_key=True),
    Column("value", String(256), nullable=False),
    Column("position", Integer, nullable=False),
)
