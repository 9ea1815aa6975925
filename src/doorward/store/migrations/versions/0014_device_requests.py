"""Programs without a browser that wait for a yes from elsewhere."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
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
    op.add_column("apps", sa.Column("device", flag(), nullable=False, server_default=sa.false()))
    op.create_table(
        "device_requests",
        sa.Column("id", whole(), sa.Identity(), nullable=False),
        sa.Column("app_id", whole(), nullable=False),
        *(sa.Column(name, sa.LargeBinary(), nullable=False) for name in ("device_hash", "user_hash")),
        *(
            sa.Column(name, sa.Text(), nullable=False)
            for name in ("scopes", "resources", "levels", "address")
        ),
        sa.Column("node_id", whole(), nullable=True),
        *(sa.Column(name, whole(), nullable=False) for name in ("created", "expires")),
        sa.Column("polled", whole(), nullable=True),
        sa.Column("interval", whole(), nullable=False),
        sa.Column("denied", flag(), nullable=False),
        sa.Column("grant_id", whole(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="device_requests_pk"),
        sa.UniqueConstraint("device_hash", name="device_requests_device_hash_unique"),
        sa.UniqueConstraint("user_hash", name="device_requests_user_hash_unique"),
        sa.ForeignKeyConstraint(["app_id"], ["apps.id"], name="device_requests_app_id_exists"),
        sqlite_strict=True,
        sqlite_autoincrement=True,
    )
    op.create_index("device_requests_app_id", "device_requests", ["app_id"])
