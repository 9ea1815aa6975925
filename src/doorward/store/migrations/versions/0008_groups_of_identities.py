"""Which groups each provider says somebody is in: a person may be known to several."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a column; programs from before do not miss it."""
    op.add_column(
        "identities", sa.Column("groups", sa.Text(), nullable=False, server_default=sa.text("'[]'"))
    )
