"""Signing out of apps: where people go then, who has left, and which apps have yet to be told."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def whole() -> sa.types.TypeEngine[int]:
    """A 64-bit integer."""
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add columns and a table; programs from before do not miss them."""
    for table, name, default in (
        ("apps", "signed_out_uris", "'[]'"),
        ("apps", "logout_url", "''"),
        ("app_grants", "key", "''"),
    ):
        op.add_column(table, sa.Column(name, sa.Text(), nullable=False, server_default=sa.text(default)))
    op.add_column("app_sessions", sa.Column("signed_out", whole(), nullable=True))
    op.create_table(
        "logout_notices",
        sa.Column("id", whole(), sa.Identity(), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("app", "client_id", "algorithm", "url")),
        sa.Column("user_id", whole(), nullable=False),
        sa.Column("sid", sa.Text(), nullable=False),
        *(sa.Column(name, whole(), nullable=False) for name in ("created", "due", "tries")),
        sa.PrimaryKeyConstraint("id", name="logout_notices_pk"),
        sa.UniqueConstraint(
            "client_id", "user_id", "sid", name="logout_notices_client_id_user_id_sid_unique"
        ),
        sqlite_strict=True,
        sqlite_autoincrement=True,
    )
    op.create_index("logout_notices_due", "logout_notices", ["due"])
