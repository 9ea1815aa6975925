"""Keys that apps sign with in place of a secret, and what was shown once."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def whole() -> sa.types.TypeEngine[int]:
    """A 64-bit integer."""
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add columns and a table. A program from before finds that an app with keys has a secret which nobody knows: it refuses."""
    op.add_column("apps", sa.Column("keys", sa.Text(), nullable=False, server_default=sa.text("'[]'")))
    op.add_column("apps", sa.Column("keys_url", sa.Text(), nullable=False, server_default=sa.text("''")))
    op.create_table(
        "used_ids",
        sa.Column("id", whole(), sa.Identity(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("expires", whole(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="used_ids_pk"),
        sa.UniqueConstraint("digest", name="used_ids_digest_unique"),
        sqlite_strict=True,
        sqlite_autoincrement=True,
    )
    op.create_index("used_ids_expires", "used_ids", ["expires"])
