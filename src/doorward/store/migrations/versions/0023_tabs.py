"""Browsers' tabs that are nodes, why they ended, and host keys."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def whole() -> sa.types.TypeEngine[int]:
    """A 64-bit integer."""
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add columns and tables. Programs from before would take a tab for a device."""
    op.add_column("nodes", sa.Column("tab", sa.Text(), nullable=False, server_default=sa.text("'null'")))
    op.add_column("ssh_checks", sa.Column("session_id", whole(), nullable=True))
    op.create_table(
        "tab_ends",
        sa.Column("id", whole(), autoincrement=False, nullable=False),
        *(sa.Column(name, whole(), nullable=False) for name in ("user_id", "session_id")),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("over", "reason")),
        sa.Column("at", whole(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="tab_ends_pk"),
        sqlite_strict=True,
    )
    op.create_table(
        "host_keys",
        sa.Column("id", whole(), sa.Identity(), nullable=False),
        sa.Column("node_id", whole(), nullable=False),
        sa.Column("user_id", whole(), nullable=True),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("key", "actor")),
        sa.Column("created", whole(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="host_keys_pk"),
        sqlite_strict=True,
        sqlite_autoincrement=True,
    )
    op.create_index("host_keys_node_id", "host_keys", ["node_id"])
