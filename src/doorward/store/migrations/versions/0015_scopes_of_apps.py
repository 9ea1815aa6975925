"""Scopes that an app has of its own."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a column. A program from before knows no such scopes, and leaves them out of what it gives."""
    op.add_column("apps", sa.Column("scopes", sa.Text(), nullable=False, server_default=sa.text("'[]'")))
