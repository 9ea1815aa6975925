"""Several processes on one database: who they are, what they tell each other, and which of them holds a node's stream."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def whole() -> sa.types.TypeEngine[int]:
    """A 64-bit integer."""
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add two tables and a column; programs from before do not miss them."""
    op.create_table(
        "processes",
        sa.Column("id", whole(), sa.Identity(), nullable=False),
        sa.Column("installation", sa.Text(), nullable=False),
        sa.Column("boot", whole(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("noise_key", sa.LargeBinary(), nullable=False),
        sa.Column("door_port", whole(), nullable=False),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("own_key", whole(), nullable=True),
        sa.Column("own_node", whole(), nullable=True),
        sa.Column("seen", whole(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="processes_pk"),
        sa.UniqueConstraint("installation", name="processes_installation_unique"),
        sqlite_strict=True,
        sqlite_autoincrement=True,
    )
    op.create_table(
        "changes",
        sa.Column("id", whole(), sa.Identity(), nullable=False),
        sa.Column("boot", whole(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("ids", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="changes_pk"),
        sqlite_strict=True,
        sqlite_autoincrement=True,
    )
    op.add_column("node_observations", sa.Column("held_by", whole(), nullable=True))
