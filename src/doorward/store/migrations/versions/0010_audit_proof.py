"""Checkpoints of the audit log, its destinations, and indexes in the order in which it is read."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def whole() -> sa.types.TypeEngine[int]:
    """A 64-bit integer."""
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add two tables and replace two indexes; programs from before miss nothing."""
    for name in ("actor", "target"):
        op.drop_index(f"audit_{name}", "audit")
    for name in ("actor", "target", "action"):
        op.create_index(f"audit_{name}_seq", "audit", [name, "seq"])
    op.create_index("audit_at", "audit", ["at"])
    op.create_table(
        "audit_checkpoints",
        sa.Column("seq", whole(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("at", whole(), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="audit_checkpoints_pk"),
        sqlite_strict=True,
    )
    op.create_table(
        "audit_sinks",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("seq", whole(), nullable=False),
        sa.Column("delivered", whole(), nullable=True),
        sa.Column("trouble", sa.Text(), nullable=False),
        sa.Column("since", whole(), nullable=True),
        sa.Column("holder", whole(), nullable=True),
        sa.Column("until", whole(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="audit_sinks_pk"),
        sqlite_strict=True,
    )
