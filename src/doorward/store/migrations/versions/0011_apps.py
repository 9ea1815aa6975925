"""Apps in which people sign in: what they are, what they were given, and the keys that sign it."""

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
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
    unique: Iterable[tuple[str, ...]] = (),
    references: dict[str, str],
) -> None:
    """A table with an id that is never used again; what refers to another table is indexed."""
    op.create_table(
        name,
        sa.Column("id", whole(), sa.Identity(), nullable=False),
        *parts,
        sa.PrimaryKeyConstraint("id", name=f"{name}_pk"),
        *(sa.UniqueConstraint(*one, name=f"{name}_{'_'.join(one)}_unique") for one in unique),
        *(
            sa.ForeignKeyConstraint([column], [f"{other}.id"], name=f"{name}_{column}_exists")
            for column, other in references.items()
        ),
        sqlite_strict=True,
        sqlite_autoincrement=True,
    )
    for column in references:
        op.create_index(f"{name}_{column}", name, [column])


def upgrade() -> None:
    """Add tables; programs from before do not miss them."""
    words, raw, flag = sa.Text(), sa.LargeBinary(), sa.Boolean().with_variant(sa.Integer(), "sqlite")
    table(
        "apps",
        *columns("name client_id", words),
        *columns("secret_hash", raw),
        *columns("redirect_uris resources", words),
        *columns("asks service", flag),
        *columns("algorithm actor", words),
        *columns("created", whole()),
        unique=[("name",), ("client_id",)],
        references={},
    )
    table(
        "signing_keys",
        *columns("algorithm", words),
        *columns("generation", whole()),
        *columns("kid public", words),
        *columns("sealed", raw),
        *columns("created starts", whole()),
        unique=[("algorithm", "generation")],
        references={},
    )
    table(
        "app_sessions",
        *columns("key sid", words),
        *columns("user_id created seen acted", whole()),
        unique=[("key",)],
        references={"user_id": "users"},
    )
    table(
        "app_grants",
        *columns("app_id user_id", whole()),
        *columns("node_id", whole(), nullable=True),
        *columns("sid", words),
        *columns("code_hash", raw),
        *columns("redirect_uri challenge nonce scopes resources", words),
        *columns("auth_time", whole()),
        *columns("acr amr", words),
        *columns("created code_expires expires", whole()),
        *columns("redeemed ended", whole(), nullable=True),
        unique=[("code_hash",)],
        references={"app_id": "apps", "user_id": "users"},
    )
    table(
        "refresh_tokens",
        *columns("grant_id", whole()),
        *columns("secret_hash", raw),
        *columns("created expires", whole()),
        *columns("used", whole(), nullable=True),
        unique=[("secret_hash",)],
        references={"grant_id": "app_grants"},
    )
    table(
        "consents",
        *columns("app_id user_id", whole()),
        *columns("node_id", whole(), nullable=True),
        *columns("host scopes resources", words),
        *columns("expires", whole()),
        references={"app_id": "apps", "user_id": "users"},
    )
