"""What Alembic runs around the migrations: they use the connection, and so the transaction, of ``schema.upgrade``."""

from alembic import context

from doorward.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table="schema_version",
    render_as_batch=True,  # SQLite changes a table by copying it
)
with context.begin_transaction():
    context.run_migrations()
