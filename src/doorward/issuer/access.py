"""Access tokens, of either form: one that says by itself what it is (a JWT, RFC 9068), or a name for what is kept here.

An app made with ``--opaque`` has the second: nobody learns anything from such a token but who asks us about it (``/introspect``), and
what ends here ends everywhere at once. Of its name only the SHA-256 is kept, and what it says until it is over.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from doorward.issuer.desk import Desk
from doorward.issuer.tokens import ACCESS_TYPE, Access, BadToken, access_claims, access_of, read, sign
from doorward.model import AccessToken, App, AppGrant
from doorward.store import apps
from doorward.tailnet import secrets

KIND = "dwaccess"  # how the names begin; no JWT does


async def access_token(
    desk: Desk,
    app: App,
    *,
    scopes: tuple[str, ...],
    resources: tuple[str, ...],
    grant: AppGrant | None = None,
    extra: Mapping[str, Any] | None = None,
    last: int | None = None,
) -> str:
    """An access token of an app: for a person by their grant, or for the app itself.

    ``last``: when it is over at the latest, in seconds since 1970.
    """
    ring = await desk.keys.ring()
    claims = access_claims(
        ring,
        desk.issuer,
        app,
        random=desk.random(),
        now=desk.now(),
        scopes=scopes,
        resources=resources,
        grant=grant,
        extra=extra,
        last=last,
    )
    if not app.opaque:
        return sign(ring, app.algorithm, ACCESS_TYPE, claims)
    secret = desk.secret(KIND)
    draft = AccessToken(
        id=0,
        secret_hash=secret.digest,
        grant_id=None if grant is None else grant.id,
        claims=claims,
        expires=datetime.fromtimestamp(claims["exp"], UTC),
    )
    await desk.database.share(apps.insert_access_tokens, draft)
    return secret.text


async def read_access(desk: Desk, token: str) -> Access:
    """What an access token of ours says, while it is good by itself. Raises BadToken."""
    if token.startswith(f"{KIND}-"):
        found = await desk.database.find(apps.access_tokens, secrets.digest(token))
        if found is None:
            raise BadToken("it is unknown, or over")
        return access_of(found.claims, desk.issuer, desk.now())
    claims = read(await desk.keys.ring(), token, ACCESS_TYPE)
    return access_of(claims, desk.issuer, desk.now())
