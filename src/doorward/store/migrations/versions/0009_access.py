"""Who is shut out, who waits for an administrator, and which nodes are kept apart."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def whole() -> sa.types.TypeEngine[int]:
    """A 64-bit integer."""
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def flag() -> sa.types.TypeEngine[bool]:
    """True or false."""
    return sa.Boolean().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add one table and some columns. Nodes that are there stay in. Programs from before would let in who is shut out."""
    op.add_column("nodes", sa.Column("suspended", flag(), nullable=False, server_default=sa.false()))
    op.add_column("nodes", sa.Column("approved", flag(), nullable=False, server_default=sa.true()))
    op.add_column("auth_keys", sa.Column("preapproved", flag(), nullable=False, server_default=sa.false()))
    op.add_column("api_tokens", sa.Column("user_id", whole(), nullable=True))
    op.add_column("registrations", sa.Column("denied", whole(), nullable=True))
    op.add_column("registrations", sa.Column("came_from", sa.LargeBinary(), nullable=True))
    op.create_table(
        "cuts",
        sa.Column("id", whole(), sa.Identity(), nullable=False),
        *(sa.Column(name, whole(), nullable=False) for name in ("first", "second", "created")),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("expires", whole(), nullable=True),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="cuts_pk"),
        sa.UniqueConstraint("first", "second", name="cuts_first_second_unique"),
        sqlite_strict=True,
        sqlite_autoincrement=True,
    )
