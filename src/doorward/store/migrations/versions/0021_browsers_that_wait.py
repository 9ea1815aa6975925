"""Browsers that wait for a yes from elsewhere."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def whole() -> sa.types.TypeEngine[int]:
    """A 64-bit integer."""
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add a column; programs from before do not miss it, and make no such requests."""
    op.add_column("device_requests", sa.Column("asking_id", whole(), nullable=True))
