"""What travels about apps. Like ``types``: msgspec only, because the command line imports this."""

from datetime import datetime
from typing import Literal

from doorward.api.types import Answer, Lifetime, Request

AppKind = Literal["made", "document", "registered"]
SigningAlgorithm = Literal["RS256", "ES256", "EdDSA"]


class App(Answer, frozen=True, kw_only=True):
    """A program in which people sign in."""

    id: int
    name: str  # what the policy calls it
    client_id: str
    issuer: str  # what it knows us by
    redirect_uris: tuple[str, ...]
    resources: tuple[str, ...]  # what its tokens may be for, beside itself
    scopes: tuple[str, ...]  # of its own, that tokens for these may hold
    public: bool  # it has no secret, and uses PKCE
    asks: bool  # people are asked before their first sign-in
    service: bool  # it may have tokens of its own
    device: bool  # people may sign in there by a code that they type elsewhere
    nodes: tuple[str, ...] = ()  # tags and stable ids of the nodes by which it is known, in place of a secret
    opaque: bool = False  # its access tokens say nothing by themselves: who gets one asks at /introspect
    binds: bool = False  # its tokens are bound to the node that asks for them
    dpop: bool = False  # its tokens are bound to a key (RFC 9449)
    algorithm: SigningAlgorithm
    created: datetime
    actor: str  # who made it
    keys: tuple[str, ...] = ()  # the names (kid) of the keys that it signs with, in place of a secret
    keys_url: str = ""  # or where it publishes them
    pushed_only: bool = False  # what it asks for it leaves here first (RFC 9126)
    shared: bool = False  # apps that come by themselves may have tokens for its resources, too
    kind: AppKind = "made"  # by an administrator; or it came by itself
    title: str = ""  # what people are told that it is called
    owner: str = ""  # whose program has registered it
    approved: tuple[str, ...] = ()  # hosts where nobody is asked, of an app that came by itself
    signed_out_uris: tuple[str, ...] = ()  # where people may be sent back to who sign out there
    logout_url: str = ""  # where it is told that somebody has signed out


class AppApproval(Request, frozen=True, kw_only=True):
    """What an administrator says of an app that came by itself."""

    app: str  # its name, or its client id
    approved: bool = True


class NewApp(Request, frozen=True, kw_only=True):
    """An app to make."""

    name: str
    redirect_uris: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()  # of its own
    public: bool = False
    asks: bool = False
    service: bool = False
    device: bool = False
    nodes: tuple[str, ...] = ()
    opaque: bool = False
    binds: bool = False
    dpop: bool = False
    algorithm: SigningAlgorithm = "RS256"
    keys: str = ""  # a JWK Set with the public keys that it signs with, as text; then it has no secret
    keys_url: str = ""  # or where it publishes them
    pushed_only: bool = False
    shared: bool = False
    signed_out_uris: tuple[str, ...] = ()  # post_logout_redirect_uris of OpenID Connect
    logout_url: str = ""  # backchannel_logout_uri: https, at a host of the redirect addresses or resources


class NewAppInvitation(Request, frozen=True, kw_only=True):
    """What is to let programs register apps."""

    uses: int = 1
    seconds: Lifetime = 86_400


class AppInvitation(Answer, frozen=True, kw_only=True):
    """It, with the secret that programs show, this once."""

    secret: str
    uses: int
    expires: datetime
    address: str  # where they register


class EndedInvitations(Answer, frozen=True, kw_only=True):
    """How many of them were good until now."""

    count: int


class MadeApp(Answer, frozen=True, kw_only=True):
    """An app with its secret, which is shown this once; empty for a public one, and for one that signs with its key."""

    app: App
    secret: str


class NewAppImport(Request, frozen=True, kw_only=True):
    """Apps that another server has, to be taken over with their client ids and secrets."""

    clients: str  # tsidp's oidc-funnel-clients.json, as text: 1 MiB and 1,000 clients at most
    dry_run: bool = False


class ImportedApp(Answer, frozen=True, kw_only=True):
    """What became of one of them."""

    client_id: str
    name: str  # what the policy calls it from now on; of one that is refused what it was called there
    outcome: Literal["imported", "there", "refused"]  # "there": it was here before, and was not changed
    reason: str = ""  # why it is refused, and what to do
    asks: bool = False  # people are asked before their first sign-in: it had registered itself


class AppImport(Answer, frozen=True, kw_only=True):
    """What became of all of them, in the order of the file."""

    apps: tuple[ImportedApp, ...]
    dry_run: bool  # nothing was changed; it would have been so


class AppSessionFilter(Request, frozen=True, kw_only=True):
    """Which sessions to list; every condition that is given must hold."""

    app: str | None = None  # a name or a client id
    user: str | None = None  # a login name


class AppSession(Answer, frozen=True, kw_only=True):
    """Somebody who is signed in in an app, by one device or in one browser, as far as doorward knows."""

    id: int  # another one after each sign-in
    app: str
    user: str
    node: str | None  # the device that they signed in on; none outside the tailnet
    signed_in: datetime  # first
    last: datetime  # last
