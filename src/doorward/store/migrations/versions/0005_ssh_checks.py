"""Checks of ssh."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def whole() -> sa.types.TypeEngine[int]:
    """A 64-bit integer."""
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add one table; programs from before do not miss it."""
    op.create_table(
        "ssh_checks",
        sa.Column("id", whole(), sa.Identity(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("link", "code")),
        *(sa.Column(name, whole(), nullable=False) for name in ("source_id", "target_id")),
        sa.Column("user_id", whole(), nullable=True),
        *(
            sa.Column(name, sa.Text(), nullable=False)
            for name in ("ssh_user", "account", "rule", "rule_digest")
        ),
        sa.Column("period", whole(), nullable=False),
        sa.Column("approvers", sa.Text(), nullable=False),
        *(sa.Column(name, whole(), nullable=False) for name in ("created", "expires")),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("decided", whole(), nullable=True),
        sa.Column("decided_by", sa.Text(), nullable=False),
        sa.Column("until", whole(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="ssh_checks_pk"),
        sa.UniqueConstraint("link", name="ssh_checks_link_unique"),
        sqlite_strict=True,
        sqlite_autoincrement=True,
    )
    op.create_index("ssh_checks_target_id", "ssh_checks", ["target_id"])
