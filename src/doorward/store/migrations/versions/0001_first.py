"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# What these tables were on the day they were first made. Never changed and never imported from the program: that goes
# on, and this has to stay.


def whole() -> sa.types.TypeEngine[int]:
    """A 64-bit integer."""
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def flag() -> sa.types.TypeEngine[bool]:
    """True or false."""
    return sa.Boolean().with_variant(sa.Integer(), "sqlite")


AUDIT_GUARDS = {
    "sqlite": (
        (
            "CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit "
            "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
        ),
        (
            "CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit "
            "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
        ),
    ),
    "postgresql": (
        (
            "CREATE FUNCTION audit_append_only() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "RAISE EXCEPTION 'the audit log is append-only' USING ERRCODE = 'restrict_violation'; END $$"
        ),
        (
            "CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit "
            "FOR EACH STATEMENT EXECUTE FUNCTION audit_append_only()"
        ),
    ),
}


def upgrade() -> None:
    """Make every table."""
    untagged = sa.text("tags = '[]'")
    op.create_table(
        "api_tokens",
        sa.Column("id", whole(), sa.Identity(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("created", whole(), nullable=False),
        sa.Column("expires", whole(), nullable=True),
        sa.Column("revoked", whole(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="api_tokens_pk"),
        sa.UniqueConstraint("secret_hash", name="api_tokens_secret_hash_unique"),
        sqlite_strict=True,
        sqlite_autoincrement=True,
    )
    op.create_table(
        "audit",
        sa.Column("seq", whole(), nullable=False, autoincrement=False),
        sa.Column("at", whole(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        sa.Column("previous", sa.LargeBinary(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="audit_pk"),
        sqlite_strict=True,
    )
    op.create_index("audit_actor", "audit", ["actor"])
    op.create_index("audit_target", "audit", ["target"])
    op.create_table(
        "policy_versions",
        sa.Column("id", whole(), sa.Identity(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("created", whole(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="policy_versions_pk"),
        sqlite_strict=True,
        sqlite_autoincrement=True,
    )
    op.create_table(
        "registrations",
        sa.Column("id", whole(), sa.Identity(), nullable=False),
        sa.Column("code_hash", sa.LargeBinary(), nullable=False),
        sa.Column("machine_key", sa.LargeBinary(), nullable=False),
        sa.Column("node_key", sa.LargeBinary(), nullable=False),
        sa.Column("hostinfo", sa.Text(), nullable=False),
        sa.Column("cap_version", whole(), nullable=False),
        sa.Column("ephemeral", flag(), nullable=False),
        sa.Column("created", whole(), nullable=False),
        sa.Column("expires", whole(), nullable=False),
        sa.Column("node_id", whole(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="registrations_pk"),
        sa.UniqueConstraint("code_hash", name="registrations_code_hash_unique"),
        sqlite_strict=True,
        sqlite_autoincrement=True,
    )
    op.create_index("registrations_node_key", "registrations", ["node_key"])
    op.create_table(
        "settings",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="settings_pk"),
        sqlite_strict=True,
    )
    op.create_table(
        "users",
        sa.Column("id", whole(), sa.Identity(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("created", whole(), nullable=False),
        sa.Column("suspended", flag(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="users_pk"),
        sa.UniqueConstraint("name", name="users_name_unique"),
        sqlite_strict=True,
        sqlite_autoincrement=True,
    )
    op.create_table(
        "auth_keys",
        sa.Column("id", whole(), sa.Identity(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("user_id", whole(), nullable=True),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("reusable", flag(), nullable=False),
        sa.Column("ephemeral", flag(), nullable=False),
        sa.Column("created", whole(), nullable=False),
        sa.Column("expires", whole(), nullable=False),
        sa.Column("used", whole(), nullable=True),
        sa.Column("revoked", whole(), nullable=True),
        sa.Column("system", flag(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="auth_keys_user_id_exists"),
        sa.PrimaryKeyConstraint("id", name="auth_keys_pk"),
        sa.UniqueConstraint("secret_hash", name="auth_keys_secret_hash_unique"),
        sqlite_strict=True,
        sqlite_autoincrement=True,
    )
    op.create_index("auth_keys_user_id", "auth_keys", ["user_id"])
    op.create_table(
        "nodes",
        sa.Column("id", whole(), sa.Identity(), nullable=False),
        sa.Column("stable_id", sa.Text(), nullable=False),
        sa.Column("machine_key", sa.LargeBinary(), nullable=False),
        sa.Column("node_key", sa.LargeBinary(), nullable=False),
        sa.Column("user_id", whole(), nullable=True),
        sa.Column("tags", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("renamed", flag(), nullable=False),
        sa.Column("ipv4", sa.LargeBinary(), nullable=False),
        sa.Column("ipv6", sa.LargeBinary(), nullable=False),
        sa.Column("created", whole(), nullable=False),
        sa.Column("key_expiry", whole(), nullable=True),
        sa.Column("ephemeral", flag(), nullable=False),
        sa.Column("auth_key_id", whole(), nullable=True),
        sa.Column("approved_routes", sa.Text(), nullable=False),
        sa.Column("system", flag(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="nodes_user_id_exists"),
        sa.PrimaryKeyConstraint("id", name="nodes_pk"),
        sa.UniqueConstraint("ipv4", name="nodes_ipv4_unique"),
        sa.UniqueConstraint("ipv6", name="nodes_ipv6_unique"),
        sa.UniqueConstraint("name", name="nodes_name_unique"),
        sa.UniqueConstraint("node_key", name="nodes_node_key_unique"),
        sa.UniqueConstraint("stable_id", name="nodes_stable_id_unique"),
        sqlite_strict=True,
        sqlite_autoincrement=True,
    )
    op.create_index("nodes_machine_key", "nodes", ["machine_key"])
    op.create_index(
        "nodes_machine_key_user_id_unique",
        "nodes",
        ["machine_key", "user_id"],
        unique=True,
        sqlite_where=untagged,
        postgresql_where=untagged,
    )
    op.create_index("nodes_user_id", "nodes", ["user_id"])
    op.create_table(
        "node_observations",
        sa.Column("node_id", whole(), nullable=False, autoincrement=False),
        sa.Column("disco_key", sa.LargeBinary(), nullable=True),
        sa.Column("hostinfo", sa.Text(), nullable=False),
        sa.Column("endpoints", sa.Text(), nullable=False),
        sa.Column("home_derp", whole(), nullable=False),
        sa.Column("cap_version", whole(), nullable=False),
        sa.Column("online", flag(), nullable=False),
        sa.Column("last_seen", whole(), nullable=True),
        sa.ForeignKeyConstraint(
            ["node_id"], ["nodes.id"], name="node_observations_node_id_exists", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("node_id", name="node_observations_pk"),
        sqlite_strict=True,
    )
    for statement in AUDIT_GUARDS[op.get_bind().dialect.name]:
        op.execute(statement)
