"""Tokens and codes that are bound to a key."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def flag() -> sa.types.TypeEngine[bool]:
    """True or false."""
    return sa.Boolean().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add columns. A program from before would take a bound refresh token without its key: it does what it did before."""
    op.add_column("apps", sa.Column("dpop", flag(), nullable=False, server_default=sa.false()))
    for table in ("app_grants", "refresh_tokens"):
        op.add_column(table, sa.Column("jkt", sa.Text(), nullable=False, server_default=sa.text("''")))
