"""Single claims that apps have asked for."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a column; a program from before tells such an app what its scopes are for, and no more."""
    op.add_column(
        "app_grants", sa.Column("claims", sa.Text(), nullable=False, server_default=sa.text("'[]'"))
    )
