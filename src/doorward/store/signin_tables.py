"""The tables of signing in: what people show, and where they have shown it. Part of ``tables``, which says how they are made."""

from sqlalchemy import Column, ForeignKey, Index, LargeBinary, UniqueConstraint, text

from doorward.store.columns import Json, Moment, Words, whole
from doorward.store.defining import may, must, table

passkeys = table(
    "passkeys",
    must("user_id", whole(), ForeignKey("users.id")),
    must("credential", LargeBinary()),
    must("public_key", LargeBinary()),
    must("count", whole()),
    must("name", Words()),
    must("place", Words()),
    must("transports", Json(tuple[str, ...])),
    must("created", Moment()),
    may("used", Moment()),
    UniqueConstraint("credential"),
    Index(None, "user_id"),
    numbered=True,
)

providers = table(
    "providers",
    must("name", Words()),
    must("issuer", Words()),
    must("client_id", Words()),
    must("client_secret", Words()),
    must("scopes", Json(tuple[str, ...])),
    must("domains", Json(tuple[str, ...])),
    must("users", Json(tuple[str, ...])),
    must("groups", Json(tuple[str, ...])),
    must("groups_claim", Words()),
    must("created", Moment()),
    UniqueConstraint("name"),
    numbered=True,
)

identities = table(
    "identities",
    must("provider_id", whole(), ForeignKey("providers.id")),
    must("subject", Words()),
    must("user_id", whole(), ForeignKey("users.id")),
    must("email", Words()),
    must("created", Moment()),
    may("used", Moment()),
    Column("groups", Json(tuple[str, ...]), nullable=False, server_default=text("'[]'")),
    UniqueConstraint("provider_id", "subject"),
    Index(None, "user_id"),
    numbered=True,
)

sessions = table(
    "sessions",
    must("user_id", whole(), ForeignKey("users.id")),
    must("secret_hash", LargeBinary()),
    must("origin", Words()),
    must("created", Moment()),
    must("seen", Moment()),
    must("expires", Moment()),
    must("proven", Moment()),
    must("method", Words()),
    must("address", Words()),
    must("agent", Words()),
    may("ended", Moment()),
    UniqueConstraint("secret_hash"),
    Index(None, "user_id"),
    numbered=True,
)

invitations = table(
    "invitations",
    may("user_id", whole(), ForeignKey("users.id")),
    must("secret_hash", LargeBinary()),
    must("actor", Words()),
    must("created", Moment()),
    must("expires", Moment()),
    may("used", Moment()),
    UniqueConstraint("secret_hash"),
    Index(None, "user_id"),
    numbered=True,
)

recovery_codes = table(
    "recovery_codes",
    must("user_id", whole(), ForeignKey("users.id")),
    must("secret_hash", LargeBinary()),
    may("used", Moment()),
    UniqueConstraint("secret_hash"),
    Index(None, "user_id"),
    numbered=True,
)

# No foreign keys: an asking is over in minutes, and who it is for may be deleted before.
askings = table(
    "askings",
    must("secret_hash", LargeBinary()),
    must("act", Words()),
    must("argument", Words()),
    may("user_id", whole()),
    must("origin", Words()),
    must("challenge", LargeBinary()),
    may("provider_id", whole()),
    must("state", Words()),
    must("nonce", Words()),
    must("verifier", Words()),
    must("created", Moment()),
    must("expires", Moment()),
    UniqueConstraint("secret_hash"),
    numbered=True,
)
