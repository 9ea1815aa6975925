"""People sign in: passkeys, outside providers, browsers, invitations; and the groups that providers tell."""

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def whole() -> sa.types.TypeEngine[int]:
    """A 64-bit integer."""
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def columns(names: str, kind: sa.types.TypeEngine[Any], *, nullable: bool = False) -> list[sa.Column[Any]]:
    """Columns of one kind."""
    return [sa.Column(name, kind, nullable=nullable) for name in names.split()]


def table(
    name: str,
    *parts: sa.Column[Any],
    unique: Iterable[str],
    references: dict[str, str],
    indexed: Iterable[str] = (),
) -> None:
    """A table with an id that is never used again."""
    op.create_table(
        name,
        sa.Column("id", whole(), sa.Identity(), nullable=False),
        *parts,
        sa.PrimaryKeyConstraint("id", name=f"{name}_pk"),
        sa.UniqueConstraint(*unique, name=f"{name}_{'_'.join(unique)}_unique"),
        *(
            sa.ForeignKeyConstraint([column], [f"{other}.id"], name=f"{name}_{column}_exists")
            for column, other in references.items()
        ),
        sqlite_strict=True,
        sqlite_autoincrement=True,
    )
    for column in indexed:
        op.create_index(f"{name}_{column}", name, [column])


def upgrade() -> None:
    """Add tables and a column; programs from before do not miss them."""
    of_user = {"user_id": "users"}
    words, raw = sa.Text(), sa.LargeBinary()
    op.add_column("users", sa.Column("groups", words, nullable=False, server_default=sa.text("'[]'")))
    table(
        "passkeys",
        *columns("user_id", whole()),
        *columns("credential public_key", raw),
        *columns("count", whole()),
        *columns("name place transports", words),
        *columns("created", whole()),
        *columns("used", whole(), nullable=True),
        unique=["credential"],
        references=of_user,
        indexed=["user_id"],
    )
    table(
        "providers",
        *columns("name issuer client_id client_secret scopes domains users groups groups_claim", words),
        *columns("created", whole()),
        unique=["name"],
        references={},
    )
    table(
        "identities",
        *columns("provider_id", whole()),
        *columns("subject", words),
        *columns("user_id", whole()),
        *columns("email", words),
        *columns("created", whole()),
        *columns("used", whole(), nullable=True),
        unique=["provider_id", "subject"],
        references={"provider_id": "providers", **of_user},
        indexed=["user_id"],
    )
    table(
        "sessions",
        *columns("user_id", whole()),
        *columns("secret_hash", raw),
        *columns("origin", words),
        *columns("created seen expires proven", whole()),
        *columns("method address agent", words),
        *columns("ended", whole(), nullable=True),
        unique=["secret_hash"],
        references=of_user,
        indexed=["user_id"],
    )
    table(
        "invitations",
        *columns("user_id", whole(), nullable=True),
        *columns("secret_hash", raw),
        *columns("actor", words),
        *columns("created expires", whole()),
        *columns("used", whole(), nullable=True),
        unique=["secret_hash"],
        references=of_user,
        indexed=["user_id"],
    )
    table(
        "recovery_codes",
        *columns("user_id", whole()),
        *columns("secret_hash", raw),
        *columns("used", whole(), nullable=True),
        unique=["secret_hash"],
        references=of_user,
        indexed=["user_id"],
    )
    table(
        "askings",
        *columns("secret_hash", raw),
        *columns("act argument", words),
        *columns("user_id", whole(), nullable=True),
        *columns("origin", words),
        *columns("challenge", raw),
        *columns("provider_id", whole(), nullable=True),
        *columns("state nonce verifier", words),
        *columns("created expires", whole()),
        unique=["secret_hash"],
        references={},
    )
