"""Alembic's entry point: uses the connection, and the transaction, that ``registry.store.migrate`` opened."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    transactional_ddl=True,  # SQLite can; Alembic's default says otherwise
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
