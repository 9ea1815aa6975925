"""The nouns of signing in: what people show, where they have shown it, and what they are asked. Values, as in ``nouns``."""

from datetime import datetime

import msgspec


class Passkey(msgspec.Struct, frozen=True, kw_only=True):
    """A key in an authenticator with which a person signs in (WebAuthn). The secret half never leaves the authenticator."""

    id: int
    user_id: int
    credential: bytes  # its id, by which browsers find it
    public_key: bytes  # COSE
    count: int  # signatures so far, as the authenticator counts them; many do not, and say 0
    name: str  # for people
    place: str  # the host name it works at (the RP ID): passkeys belong to the name they were made on
    transports: tuple[str, ...] = ()
    created: datetime
    used: datetime | None = None


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """An outside OpenID provider at which people may sign in."""

    id: int
    name: str  # what people call it, on the button and in addresses: lower-case letters, digits, "-"
    issuer: str
    client_id: str
    client_secret: str = ""  # sealed; empty for a public client
    scopes: tuple[str, ...] = ("openid", "email", "profile")
    # Who may come in at the first sign-in without having been invited; any of the three is enough. None: nobody.
    domains: tuple[str, ...] = ()  # of a verified e-mail address; also what "group:NAME@DOMAIN" may end in
    users: tuple[str, ...] = ()  # verified e-mail addresses
    groups: tuple[str, ...] = ()
    groups_claim: str = "groups"
    created: datetime

    def __repr__(self) -> str:
        return f"Provider(name={self.name!r}, issuer={self.issuer!r})"


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """That a subject of an outside provider is a person here. Nothing but the two together says so, least an e-mail."""

    id: int
    provider_id: int
    subject: str
    user_id: int
    email: str = ""
    groups: tuple[str, ...] = ()  # as the provider last called them; sorted
    created: datetime
    used: datetime | None = None


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """What an outside provider says about somebody who has just signed in there, every check passed."""

    issuer: str
    subject: str
    email: str = ""  # lower case
    email_verified: bool = False  # the provider vouches for the address; else it says nothing at all
    name: str = ""  # for people
    preferred_username: str = ""  # as they like it; proves nothing
    groups: tuple[str, ...] = ()  # sorted
    auth_time: datetime | None = None  # when they last showed there who they are, where it says so


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A browser in which a person has signed in. Only the SHA-256 of its cookie is kept."""

    id: int
    user_id: int
    secret_hash: bytes
    origin: str  # the door it was made at: "https://door.example.com"
    created: datetime
    seen: datetime
    expires: datetime
    proven: datetime  # when the person last showed who they are
    method: str  # by what: "passkey:ID", "provider:NAME", "recovery"
    address: str  # where it was made from
    agent: str  # what the browser calls itself
    ended: datetime | None = None

    def is_open(self, now: datetime) -> bool:
        """True while its cookie signs in."""
        return self.ended is None and now < self.expires


class Invitation(msgspec.Struct, frozen=True, kw_only=True):
    """A one-time link by which a person gets their first passkey, or another one. Only the SHA-256 of its code is kept."""

    id: int
    user_id: int | None  # None: for the first owner, who is not there yet and says their name
    secret_hash: bytes
    actor: str  # who made it, as the audit log names them
    created: datetime
    expires: datetime
    used: datetime | None = None


class Asking(msgspec.Struct, frozen=True, kw_only=True):
    """A browser that is being asked who sits before it, and what happens once that is shown. It is answered once.

    The browser holds a secret in a cookie, of which only the SHA-256 is kept: nobody else can answer for it.
    """

    id: int
    secret_hash: bytes
    act: str  # what it is for
    argument: str  # of the act; JSON
    user_id: int | None  # who has to answer; None: whoever can
    origin: str
    challenge: bytes  # what a passkey signs
    provider_id: int | None = None  # the browser was sent there,
    state: str = ""  # with this, which has to come back with it,
    nonce: str = ""  # this, which has to be in the token,
    verifier: str = ""  # and the hash of this (PKCE)
    created: datetime
    expires: datetime

    def __repr__(self) -> str:
        return f"Asking(id={self.id}, act={self.act!r})"
