"""Apps that are known by the nodes they run on, and tokens that are bound to a node."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def flag() -> sa.types.TypeEngine[bool]:
    """True or false."""
    return sa.Boolean().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add columns. A program from before finds that an app with nodes has a secret which nobody knows: it refuses."""
    op.add_column("apps", sa.Column("nodes", sa.Text(), nullable=False, server_default=sa.text("'[]'")))
    op.add_column("apps", sa.Column("binds", flag(), nullable=False, server_default=sa.false()))
    op.add_column(
        "refresh_tokens", sa.Column("node", sa.Text(), nullable=False, server_default=sa.text("''"))
    )
