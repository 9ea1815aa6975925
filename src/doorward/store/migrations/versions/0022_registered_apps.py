"""Apps that register themselves, and what lets them."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def whole() -> sa.types.TypeEngine[int]:
    """A 64-bit integer."""
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def flag() -> sa.types.TypeEngine[bool]:
    """True or false."""
    return sa.Boolean().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add a column and a table; programs from before do not miss them."""
    op.add_column("apps", sa.Column("pushed_only", flag(), nullable=False, server_default=sa.false()))
    op.create_table(
        "app_invitations",
        sa.Column("id", whole(), sa.Identity(), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("uses", whole(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        *(sa.Column(name, whole(), nullable=False) for name in ("created", "expires")),
        sa.PrimaryKeyConstraint("id", name="app_invitations_pk"),
        sa.UniqueConstraint("secret_hash", name="app_invitations_secret_hash_unique"),
        sqlite_strict=True,
        sqlite_autoincrement=True,
    )
