"""Run by Alembic inside the transaction that `store/migrate.py` opened."""

from alembic import context

from mezzo.store.database import tables

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=tables(),
    render_as_batch=True,  # SQLite changes a table by making it anew
    transactional_ddl=True,
)
context.run_migrations()
