"""What a version of the policy is for, and how much it changed."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def whole() -> sa.types.TypeEngine[int]:
    """A 64-bit integer."""
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add three columns; programs from before do not miss them."""
    op.add_column(
        "policy_versions", sa.Column("comment", sa.Text(), nullable=False, server_default=sa.text("''"))
    )
    op.add_column("policy_versions", sa.Column("added", whole(), nullable=True))
    op.add_column("policy_versions", sa.Column("removed", whole(), nullable=True))
