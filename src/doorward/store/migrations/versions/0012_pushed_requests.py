"""Requests to authorize that apps leave before they send a browser."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def whole() -> sa.types.TypeEngine[int]:
    """A 64-bit integer."""
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add a table; programs from before do not miss it."""
    op.create_table(
        "pushed_requests",
        sa.Column("id", whole(), sa.Identity(), nullable=False),
        sa.Column("app_id", whole(), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("pairs", sa.Text(), nullable=False),
        sa.Column("expires", whole(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pushed_requests_pk"),
        sa.UniqueConstraint("secret_hash", name="pushed_requests_secret_hash_unique"),
        sa.ForeignKeyConstraint(["app_id"], ["apps.id"], name="pushed_requests_app_id_exists"),
        sqlite_strict=True,
        sqlite_autoincrement=True,
    )
    op.create_index("pushed_requests_app_id", "pushed_requests", ["app_id"])
