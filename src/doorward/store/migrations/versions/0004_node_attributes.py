"""What an administrator says about a node, for postures."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a column; programs from before do not miss it."""
    op.add_column("nodes", sa.Column("attributes", sa.Text(), nullable=False, server_default=sa.text("'[]'")))
