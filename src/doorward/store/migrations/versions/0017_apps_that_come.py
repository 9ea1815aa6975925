"""Apps that come by themselves, and what they say of themselves."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def whole() -> sa.types.TypeEngine[int]:
    """A 64-bit integer."""
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def flag() -> sa.types.TypeEngine[bool]:
    """True or false."""
    return sa.Boolean().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add columns. To a program from before such an app is one that asks each person, at its first sign-in."""
    op.add_column("apps", sa.Column("shared", flag(), nullable=False, server_default=sa.false()))
    op.add_column("apps", sa.Column("brought", sa.Text(), nullable=False, server_default=sa.text("'null'")))
    op.add_column("apps", sa.Column("owner_id", whole(), nullable=True))
