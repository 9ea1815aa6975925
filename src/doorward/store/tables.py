"""One definition of every table, for both engines.

Ids come from AUTOINCREMENT or an identity column, so that none is ever used again: a reference that outlives its
target (in the audit log, in a client's state) can never come to mean something else. Where such a reference is meant
to outlive it (``nodes.auth_key_id``, ``registrations.node_id``) there is no foreign key. The others restrict: nothing
disappears from the database that a caller did not name, or the snapshot in memory would differ from it.

A change here needs a migration in ``migrations/versions`` and a new number below; a test compares the two.
"""

from ipaddress import IPv4Address, IPv6Address
from typing import Any

from sqlalchemy import (
    DDL,
    Column,
    ForeignKey,
    Index,
    LargeBinary,
    UniqueConstraint,
    event,
    false,
    text,
    true,
)

from doorward.model import Attribute, Brought, ChangeKind, CheckState, Role, Tab, TabOver
from doorward.protocol.auditlog import AuditPublic
from doorward.protocol.keys import DiscoPublic, MachinePublic, NodePublic
from doorward.protocol.tailcfg.derpmap import DERPRegion
from doorward.protocol.tailcfg.hostinfo import Hostinfo
from doorward.store import signin_tables
from doorward.store.columns import (
    Address,
    AnyAddress,
    Choice,
    Flag,
    Json,
    Key,
    Moment,
    Prefixes,
    Words,
    whole,
)
from doorward.store.defining import may as _may
from doorward.store.defining import must as _must
from doorward.store.defining import table as _table

# The number of the newest migration, and the oldest number whose program may still use the tables as they are now.
# A migration that only adds what older programs do not miss keeps OLDEST; one that changes a meaning raises it.
VERSION = 24
OLDEST = 23  # before, nobody knew tabs: they would be taken for devices, and reach whatever their person may

# All of them: those of signing in are in a module of their own.
metadata = signin_tables.passkeys.metadata

# Alembic's own table, under our name so that another program's in the same PostgreSQL schema is not taken for ours.
schema_version = _table("schema_version", Column("version_num", Words(), primary_key=True, nullable=False))

users = _table(
    "users",
    _must("name", Words()),
    _must("display_name", Words()),
    _must("email", Words()),
    _must("role", Choice(Role)),
    _must("created", Moment()),
    _must("suspended", Flag()),
    Column("groups", Json(tuple[str, ...]), nullable=False, server_default=text("'[]'")),
    UniqueConstraint("name"),
    numbered=True,
)

nodes = _table(
    "nodes",
    _must("stable_id", Words()),
    _must("machine_key", Key(MachinePublic)),
    _must("node_key", Key(NodePublic)),
    _may("user_id", whole(), ForeignKey("users.id")),
    _must("tags", Json(tuple[str, ...])),
    _must("name", Words()),
    _must("renamed", Flag()),
    _must("ipv4", Address(IPv4Address)),
    _must("ipv6", Address(IPv6Address)),
    _must("created", Moment()),
    _may("key_expiry", Moment()),
    _must("ephemeral", Flag()),
    _may("auth_key_id", whole()),
    _must("approved_routes", Prefixes()),
    _must("system", Flag()),
    Column("attributes", Json(tuple[Attribute, ...]), nullable=False, server_default=text("'[]'")),
    Column("suspended", Flag(), nullable=False, server_default=false()),
    Column("approved", Flag(), nullable=False, server_default=true()),
    Column("tab", Json(Tab | None), nullable=False, server_default=text("'null'")),
    UniqueConstraint("stable_id"),
    UniqueConstraint("node_key"),
    UniqueConstraint("name"),
    UniqueConstraint("ipv4"),
    UniqueConstraint("ipv6"),
    Index(None, "machine_key"),
    Index(None, "user_id"),
    numbered=True,
)

# A machine has one node for each user who signed in on it (control.md, section 10.3). A tagged node belongs to nobody,
# so the user who brought it in may have one of their own on the same machine besides.
_untagged = text("tags = '[]'")
_one_node_each = Index(
    "nodes_machine_key_user_id_unique",
    nodes.c.machine_key,
    nodes.c.user_id,
    unique=True,
    sqlite_where=_untagged,
)


def load_postgresql() -> None:
    """Add what PostgreSQL alone is told. Apart, because to name a dialect loads it: most of a tenth of a second."""
    _one_node_each.dialect_options["postgresql"]["where"] = _untagged


node_observations = _table(
    "node_observations",
    Column(
        "node_id", whole(), ForeignKey("nodes.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    ),
    _may("disco_key", Key(DiscoPublic)),
    _must("hostinfo", Json(Hostinfo)),
    _must("endpoints", Json(tuple[str, ...])),
    _must("home_derp", whole()),
    _must("cap_version", whole()),
    _must("online", Flag()),
    _may("last_seen", Moment()),
    _may("held_by", whole()),  # a process, which may be forgotten before the node is
    _may("came_from", AnyAddress()),
)

auth_keys = _table(
    "auth_keys",
    _must("prefix", Words()),
    _must("secret_hash", LargeBinary()),
    _may("user_id", whole(), ForeignKey("users.id")),
    _must("tags", Json(tuple[str, ...])),
    _must("reusable", Flag()),
    _must("ephemeral", Flag()),
    _must("created", Moment()),
    _must("expires", Moment()),
    _may("used", Moment()),
    _may("revoked", Moment()),
    _must("system", Flag()),
    Column("preapproved", Flag(), nullable=False, server_default=false()),
    UniqueConstraint("secret_hash"),
    Index(None, "user_id"),
    numbered=True,
)

api_tokens = _table(
    "api_tokens",
    _must("prefix", Words()),
    _must("secret_hash", LargeBinary()),
    _must("description", Words()),
    _must("role", Choice(Role)),
    _must("created", Moment()),
    _may("expires", Moment()),
    _may("revoked", Moment()),
    _may("user_id", whole()),  # no foreign key: a token whose person is gone is worth nothing
    UniqueConstraint("secret_hash"),
    numbered=True,
)

apps = _table(
    "apps",
    _must("name", Words()),
    _must("client_id", Words()),
    _must("secret_hash", LargeBinary()),
    _must("redirect_uris", Json(tuple[str, ...])),
    _must("resources", Json(tuple[str, ...])),
    _must("asks", Flag()),
    _must("service", Flag()),
    _must("algorithm", Words()),
    _must("actor", Words()),
    _must("created", Moment()),
    Column("keys", Json(tuple[dict[str, Any], ...]), nullable=False, server_default=text("'[]'")),
    Column("keys_url", Words(), nullable=False, server_default=text("''")),
    Column("device", Flag(), nullable=False, server_default=false()),
    Column("scopes", Json(tuple[str, ...]), nullable=False, server_default=text("'[]'")),
    Column("dpop", Flag(), nullable=False, server_default=false()),
    Column("shared", Flag(), nullable=False, server_default=false()),
    Column("brought", Json(Brought | None), nullable=False, server_default=text("'null'")),
    _may("owner_id", whole()),
    Column("nodes", Json(tuple[str, ...]), nullable=False, server_default=text("'[]'")),
    Column("binds", Flag(), nullable=False, server_default=false()),
    Column("signed_out_uris", Json(tuple[str, ...]), nullable=False, server_default=text("'[]'")),
    Column("logout_url", Words(), nullable=False, server_default=text("''")),
    Column("opaque", Flag(), nullable=False, server_default=false()),
    Column("pushed_only", Flag(), nullable=False, server_default=false()),
    UniqueConstraint("name"),
    UniqueConstraint("client_id"),
    numbered=True,
)

app_invitations = _table(
    "app_invitations",
    _must("secret_hash", LargeBinary()),
    _must("uses", whole()),
    _must("actor", Words()),
    _must("created", Moment()),
    _must("expires", Moment()),
    UniqueConstraint("secret_hash"),
    numbered=True,
)

signing_keys = _table(
    "signing_keys",
    _must("algorithm", Words()),
    _must("generation", whole()),
    _must("kid", Words()),
    _must("public", Json(dict[str, Any])),
    _must("sealed", LargeBinary()),
    _must("created", Moment()),
    _must("starts", Moment()),
    UniqueConstraint("algorithm", "generation"),
    numbered=True,
)

app_sessions = _table(
    "app_sessions",
    _must("key", Words()),
    _must("sid", Words()),
    _must("user_id", whole(), ForeignKey("users.id")),
    _must("created", Moment()),
    _must("seen", Moment()),
    _must("acted", Moment()),
    _may("signed_out", Moment()),
    UniqueConstraint("key"),
    Index(None, "user_id"),
    numbered=True,
)

# No foreign key to nodes: a grant ends when its device is gone, and is still known then.
app_grants = _table(
    "app_grants",
    _must("app_id", whole(), ForeignKey("apps.id")),
    _must("user_id", whole(), ForeignKey("users.id")),
    _may("node_id", whole()),
    _must("sid", Words()),
    _must("code_hash", LargeBinary()),
    _must("redirect_uri", Words()),
    _must("challenge", Words()),
    _must("nonce", Words()),
    _must("scopes", Json(tuple[str, ...])),
    _must("resources", Json(tuple[str, ...])),
    _must("auth_time", Moment()),
    _must("acr", Words()),
    _must("amr", Json(tuple[str, ...])),
    _must("created", Moment()),
    _must("code_expires", Moment()),
    _must("expires", Moment()),
    _may("redeemed", Moment()),
    _may("ended", Moment()),
    Column("jkt", Words(), nullable=False, server_default=text("''")),
    Column("key", Words(), nullable=False, server_default=text("''")),
    Column("claims", Json(tuple[str, ...]), nullable=False, server_default=text("'[]'")),
    UniqueConstraint("code_hash"),
    Index(None, "app_id"),
    Index(None, "user_id"),
    numbered=True,
)

refresh_tokens = _table(
    "refresh_tokens",
    _must("grant_id", whole(), ForeignKey("app_grants.id")),
    _must("secret_hash", LargeBinary()),
    _must("created", Moment()),
    _must("expires", Moment()),
    _may("used", Moment()),
    Column("jkt", Words(), nullable=False, server_default=text("''")),
    Column("node", Words(), nullable=False, server_default=text("''")),
    UniqueConstraint("secret_hash"),
    Index(None, "grant_id"),
    numbered=True,
)

access_tokens = _table(
    "access_tokens",
    _must("secret_hash", LargeBinary()),
    _may("grant_id", whole(), ForeignKey("app_grants.id")),
    _must("claims", Json(dict[str, Any])),
    _must("expires", Moment()),
    UniqueConstraint("secret_hash"),
    Index(None, "grant_id"),
    Index(None, "expires"),
    numbered=True,
)

pushed_requests = _table(
    "pushed_requests",
    _must("app_id", whole(), ForeignKey("apps.id")),
    _must("secret_hash", LargeBinary()),
    _must("pairs", Json(tuple[tuple[str, str], ...])),
    _must("expires", Moment()),
    UniqueConstraint("secret_hash"),
    Index(None, "app_id"),
    numbered=True,
)

device_requests = _table(
    "device_requests",
    _must("app_id", whole(), ForeignKey("apps.id")),
    _must("device_hash", LargeBinary()),
    _must("user_hash", LargeBinary()),
    _must("scopes", Json(tuple[str, ...])),
    _must("resources", Json(tuple[str, ...])),
    _must("levels", Json(tuple[str, ...])),
    _must("address", Words()),
    _may("node_id", whole()),
    _must("created", Moment()),
    _must("expires", Moment()),
    _may("polled", Moment()),
    _must("interval", whole()),
    _must("denied", Flag()),
    _may("grant_id", whole()),  # no foreign key: a grant may be gone before anybody asks for it
    _may("asking_id", whole()),  # the same
    UniqueConstraint("device_hash"),
    UniqueConstraint("user_hash"),
    Index(None, "app_id"),
    numbered=True,
)

used_ids = _table(
    "used_ids",
    _must("digest", LargeBinary()),
    _must("expires", Moment()),
    UniqueConstraint("digest"),
    Index(None, "expires"),
    numbered=True,
)

# No foreign keys: an app is told of its own end, and of that of a person, too.
logout_notices = _table(
    "logout_notices",
    _must("app", Words()),
    _must("client_id", Words()),
    _must("algorithm", Words()),
    _must("url", Words()),
    _must("user_id", whole()),
    _must("sid", Words()),
    _must("created", Moment()),
    _must("due", Moment()),
    _must("tries", whole()),
    UniqueConstraint("client_id", "user_id", "sid"),
    Index(None, "due"),
    numbered=True,
)

consents = _table(
    "consents",
    _must("app_id", whole(), ForeignKey("apps.id")),
    _must("user_id", whole(), ForeignKey("users.id")),
    _may("node_id", whole()),
    _must("host", Words()),
    _must("scopes", Json(tuple[str, ...])),
    _must("resources", Json(tuple[str, ...])),
    _must("expires", Moment()),
    Index(None, "app_id"),
    Index(None, "user_id"),
    numbered=True,
)

registrations = _table(
    "registrations",
    _must("code_hash", LargeBinary()),
    _must("machine_key", Key(MachinePublic)),
    _must("node_key", Key(NodePublic)),
    _must("hostinfo", Json(Hostinfo)),
    _must("cap_version", whole()),
    _must("ephemeral", Flag()),
    _must("created", Moment()),
    _must("expires", Moment()),
    _may("node_id", whole()),
    _may("denied", Moment()),
    _may("came_from", AnyAddress()),
    UniqueConstraint("code_hash"),
    Index(None, "node_key"),
    numbered=True,
)

policy_versions = _table(
    "policy_versions",
    _must("text", Words()),
    _must("actor", Words()),
    _must("created", Moment()),
    Column("comment", Words(), nullable=False, server_default=text("''")),
    _may("added", whole()),
    _may("removed", whole()),
    numbered=True,
)

# No foreign keys: a check is over soon, and a node may be deleted before.
ssh_checks = _table(
    "ssh_checks",
    _must("link", Words()),
    _must("code", Words()),
    _must("source_id", whole()),
    _must("target_id", whole()),
    _may("user_id", whole()),
    _must("ssh_user", Words()),
    _must("account", Words()),
    _must("rule", Words()),
    _must("rule_digest", Words()),
    _must("period", whole()),
    _must("approvers", Json(tuple[str, ...])),
    _must("created", Moment()),
    _must("expires", Moment()),
    _must("state", Choice(CheckState)),
    _may("decided", Moment()),
    _must("decided_by", Words()),
    _may("until", Moment()),
    _may("session_id", whole()),
    UniqueConstraint("link"),
    Index(None, "target_id"),
    numbered=True,
)

# No foreign keys: whoever deletes a node names its cuts, and the id of a deleted one never means another.
cuts = _table(
    "cuts",
    _must("first", whole()),
    _must("second", whole()),
    _must("created", Moment()),
    _must("created_by", Words()),
    _may("expires", Moment()),
    _must("comment", Words()),
    UniqueConstraint("first", "second"),
    numbered=True,
)

# By the id of the node that was the tab, which never means another.
tab_ends = _table(
    "tab_ends",
    Column("id", whole(), primary_key=True, autoincrement=False, nullable=False),
    _must("user_id", whole()),
    _must("session_id", whole()),
    _must("over", Choice(TabOver)),
    _must("reason", Words()),
    _must("at", Moment()),
)

# No foreign keys, as of cuts.
host_keys = _table(
    "host_keys",
    _must("node_id", whole()),
    _may("user_id", whole()),
    _must("key", Words()),
    _must("actor", Words()),
    _must("created", Moment()),
    Index(None, "node_id"),
    numbered=True,
)

settings = _table(
    "settings",
    Column("key", Words(), primary_key=True, nullable=False),
    _must("value", Words()),  # JSON; typed by whoever reads it
)

audit = _table(
    "audit",
    Column("seq", whole(), primary_key=True, autoincrement=False),  # dense: the one before plus one
    _must("at", Moment()),
    _must("actor", Words()),
    _must("action", Words()),
    _must("target", Words()),
    _must("details", Words()),  # JSON, kept as the very text that was hashed
    _must("previous", LargeBinary()),
    _must("digest", LargeBinary()),
    # With the number, so that what is found comes in its order and a page ends where it is full.
    Index(None, "actor", "seq"),
    Index(None, "target", "seq"),
    Index(None, "action", "seq"),
    Index(None, "at"),
)

# What was signed of the log (``protocol.auditlog``), by whichever process came first.
audit_checkpoints = _table(
    "audit_checkpoints",
    Column("seq", whole(), primary_key=True, autoincrement=False),
    _must("digest", LargeBinary()),
    _must("at", Moment()),
    _must("key", Key(AuditPublic)),
    _must("signature", LargeBinary()),
)

# How far each destination of the log has come, and who serves it: a row for each that there ever was.
audit_sinks = _table(
    "audit_sinks",
    Column("name", Words(), primary_key=True, nullable=False),
    _must("seq", whole()),  # the last event that it has
    _may("delivered", Moment()),  # when it got that
    _must("trouble", Words()),  # why it does not get the next; empty while it does
    _may("since", Moment()),  # of the trouble
    _may("holder", whole()),  # the process that delivers; 0 where there is only one
    _must("until", whole()),  # by the database's clock, microseconds since 1970: then another may
)

# Two tables for several processes on one PostgreSQL; with SQLite there is only one, and they stay empty.
processes = _table(
    "processes",
    _must("installation", Words()),
    _must("boot", whole()),
    _must("label", Words()),
    _must("noise_key", Key(MachinePublic)),
    _must("door_port", whole()),
    _must("region", Json(DERPRegion | None)),
    _may("own_key", whole()),
    _may("own_node", whole()),
    _must(
        "seen", whole()
    ),  # by the database's clock, microseconds since 1970: the machines' clocks may differ
    UniqueConstraint("installation"),
    numbered=True,
)

changes = _table(
    "changes",
    _must("boot", whole()),  # of the process that made the change
    _must("kind", Choice(ChangeKind)),
    _must("ids", Json(tuple[int, ...])),
    numbered=True,
)

# What keeps the audit log append-only against mistakes; against an intruder there is only its hash chain.
AUDIT_GUARDS: dict[str, tuple[str, ...]] = {
    "sqlite": tuple(
        f"CREATE TRIGGER audit_no_{act.lower()} BEFORE {act} ON audit "
        "BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
        for act in ("UPDATE", "DELETE")
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

for _dialect, _statements in AUDIT_GUARDS.items():
    for _statement in _statements:
        event.listen(audit, "after_create", DDL(_statement).execute_if(dialect=_dialect))  # type: ignore[no-untyped-call]
