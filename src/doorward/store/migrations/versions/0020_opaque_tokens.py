"""Access tokens that say nothing by themselves."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def whole() -> sa.types.TypeEngine[int]:
    """A 64-bit integer."""
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def flag() -> sa.types.TypeEngine[bool]:
    """True or false."""
    return sa.Boolean().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add a column and a table. A program from before gives such apps JWTs, and knows no other token: they end in five minutes."""
    op.add_column("apps", sa.Column("opaque", flag(), nullable=False, server_default=sa.false()))
    op.create_table(
        "access_tokens",
        sa.Column("id", whole(), sa.Identity(), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("grant_id", whole(), nullable=True),
        sa.Column("claims", sa.Text(), nullable=False),
        sa.Column("expires", whole(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="access_tokens_pk"),
        sa.UniqueConstraint("secret_hash", name="access_tokens_secret_hash_unique"),
        sa.ForeignKeyConstraint(["grant_id"], ["app_grants.id"], name="access_tokens_grant_id_exists"),
        sqlite_strict=True,
        sqlite_autoincrement=True,
    )
    for name in ("grant_id", "expires"):
        op.create_index(f"access_tokens_{name}", "access_tokens", [name])
