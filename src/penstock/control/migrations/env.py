"""What Alembic runs: the steps, on the connection that `penstock.control.store` hands over."""

from __future__ import annotations

from alembic import context

from penstock.control import schema

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=schema.metadata,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
