"""The nouns of the domain on one page. Values only: frozen, compared by content, with no behaviour but small facts.

A *node* is what Tailscale calls a machine or device: one installation, seen from one user's profile. Times are aware
datetimes in UTC. Addresses and prefixes are ``ipaddress`` objects. ``id`` is an integer from 1 up, never used again
after a deletion; a node's ``stable_id`` is its name in the protocol.
"""

from datetime import datetime
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

import msgspec

from doorward.model.tabs import Tab
from doorward.protocol.keys import DiscoPublic, MachinePublic, NodePublic
from doorward.protocol.tailcfg.derpmap import DERPRegion
from doorward.protocol.tailcfg.hostinfo import Hostinfo

Prefix = IPv4Network | IPv6Network

EXIT_ROUTES: frozenset[Prefix] = frozenset((IPv4Network("0.0.0.0/0"), IPv6Network("::/0")))

# The owner that clients see for every tagged node. The number is out of the way of real users, and below 2^31.
TAGGED_DEVICES_USER_ID = 2147455555
# The owner that clients see for doorward's own node.
DOORWARD_USER_ID = 2147455556


class Role(StrEnum):
    """What a user may administer; the policy language calls them autogroups."""

    OWNER = "owner"
    ADMIN = "admin"
    NETWORK_ADMIN = "network-admin"
    IT_ADMIN = "it-admin"
    BILLING_ADMIN = "billing-admin"
    AUDITOR = "auditor"
    MEMBER = "member"


class User(msgspec.Struct, frozen=True, kw_only=True):
    """A person. ``name`` is the login name: unique, what the policy and clients call them."""

    id: int
    name: str
    display_name: str = ""
    email: str = ""
    role: Role = Role.MEMBER
    created: datetime
    suspended: bool = False  # nothing of theirs is admitted while true
    # The groups that outside providers say they are in, as the policy names them: "eng@example.com". Sorted.
    groups: tuple[str, ...] = ()


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """What a node last reported or was last seen to do. Written lazily: losing a second of it loses nothing."""

    disco_key: DiscoPublic | None = None
    hostinfo: Hostinfo = Hostinfo()
    endpoints: tuple[str, ...] = ()  # "ip:port", best first
    home_derp: int = 0  # region, 0 while unknown
    cap_version: int = 0  # the client's capability version
    online: bool = False  # it has a map stream open
    last_seen: datetime | None = None  # when its last map stream ended
    held_by: int | None = None  # the process that has its stream, where there are several
    # Where its last map stream came from. It stays when that ends: a node that is away is judged by where it was.
    came_from: IPv4Address | IPv6Address | None = None


class Attribute(msgspec.Struct, frozen=True, kw_only=True):
    """What an administrator says about a node, for postures to judge it by."""

    key: str  # "custom:..."; letter case is not looked at
    value: str | int | float | bool
    expires: datetime | None = None  # from then on it is not set; None: it stays


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A node of the tailnet."""

    id: int
    stable_id: str
    machine_key: MachinePublic
    node_key: NodePublic
    user_id: int | None  # who registered it; None for doorward's own, and where a key had no user
    tags: tuple[str, ...] = ()  # sorted; a tagged node belongs to nobody, whoever registered it
    name: str  # the first DNS label, unique in the tailnet
    renamed: bool = False  # an administrator chose the name: a changed hostname no longer changes it
    ipv4: IPv4Address
    ipv6: IPv6Address
    created: datetime
    key_expiry: datetime | None = None  # None: never
    ephemeral: bool = False  # removed soon after it goes offline
    auth_key_id: int | None = None  # the key that admitted it
    approved_routes: tuple[Prefix, ...] = ()  # sorted; those it may route once it advertises them
    attributes: tuple[Attribute, ...] = ()  # sorted by key
    system: bool = False  # doorward's own node: not listed among people's, its filter is fixed
    suspended: bool = False  # an administrator shut it out: it sees nobody, and nobody sees it
    approved: bool = True  # false: it waits for an administrator, and until then is as good as not there
    tab: Tab | None = None  # a browser's tab: without a client, and for a few targets only
    observed: Observed = Observed()

    @property
    def addresses(self) -> tuple[IPv4Address, IPv6Address]:
        """Its tailnet addresses, IPv4 first."""
        return (self.ipv4, self.ipv6)

    def expired(self, now: datetime) -> bool:
        """True once its key may no longer be used."""
        return self.key_expiry is not None and self.key_expiry <= now


class AuthKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key that admits nodes without a person. Only its SHA-256 is kept: 128 random bits need no slow hash."""

    id: int
    prefix: str  # the first characters, to tell keys apart; not secret
    secret_hash: bytes
    user_id: int | None = None  # the owner of the nodes it admits; None for a key with tags only
    tags: tuple[str, ...] = ()
    reusable: bool = False
    ephemeral: bool = False
    created: datetime
    expires: datetime
    used: datetime | None = None  # when it last admitted a node
    revoked: datetime | None = None
    system: bool = False  # made for doorward's own node
    preapproved: bool = False  # what it admits waits for no administrator


class ApiToken(msgspec.Struct, frozen=True, kw_only=True):
    """A bearer token of the JSON API. Only its SHA-256 is kept."""

    id: int
    prefix: str
    secret_hash: bytes
    description: str = ""
    role: Role = Role.ADMIN
    created: datetime
    expires: datetime | None = None
    revoked: datetime | None = None
    user_id: int | None = None  # the person who made it: it may do no more than they; None: nobody's


class Brought(msgspec.Struct, frozen=True, kw_only=True):
    """What an app has said of itself that no administrator has made. Anybody may have written any of it."""

    title: str  # what it calls itself
    site: str = ""  # https addresses, for people
    policy: str = ""
    terms: str = ""
    refreshes: bool = False  # it wants to stay signed in
    approved: tuple[str, ...] = ()  # hosts at which an administrator has said that nobody need be asked
    software: str = ""  # its own name and version of what it is
    login_uri: str = ""  # where it can be asked to begin a sign-in
    method: str = ""  # how it said that it would show who it is, where it has registered
    native: bool = False  # a program on people's own devices
    key_hash: bytes = b""  # of what it changes its own registration with; empty where nobody can


class AppInvitation(msgspec.Struct, frozen=True, kw_only=True):
    """What lets programs register apps, so many times. Only its SHA-256 is kept."""

    id: int
    secret_hash: bytes
    uses: int  # that are left
    actor: str  # who made it
    created: datetime
    expires: datetime


class App(msgspec.Struct, frozen=True, kw_only=True):
    """A program in which people sign in through us: a client, as OAuth has it. Of its secret only the SHA-256 is kept."""

    id: int
    name: str  # what the policy and commands call it: lower-case letters, digits, "-"
    client_id: str  # random, "app-..."; never the subject of a person
    # Empty for a public one, which cannot keep a secret. Of one that signs with its key no secret has this hash: where it were
    # empty, a program from before keys would take the app for a public one.
    secret_hash: bytes = b""
    keys: tuple[dict[str, Any], ...] = ()  # public JWKs that it signs with, in place of a secret
    keys_url: str = ""  # or where it publishes them
    device: bool = False  # people may sign in there by a code that they type elsewhere
    nodes: tuple[
        str, ...
    ] = ()  # tags and stable ids of the nodes that it runs on, and is known by, in place of a secret
    opaque: bool = False  # its access tokens say nothing by themselves
    binds: bool = False  # its tokens are bound to the node that asks for them
    dpop: bool = False  # its tokens are bound to a key of its own, each time with a word of ours (RFC 9449)
    redirect_uris: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()  # what its tokens may be for, beside itself (RFC 8707)
    scopes: tuple[str, ...] = ()  # words of its own that tokens for these may hold
    asks: bool = False  # people are asked before their first sign-in; else an administrator's word is enough
    service: bool = False  # may have tokens of its own, for no person
    algorithm: str = "RS256"  # what its tokens are signed with
    pushed_only: bool = False  # what it asks for it leaves here first (RFC 9126)
    shared: bool = False  # apps that come by themselves may have tokens for its resources, too
    brought: Brought | None = None  # what it says of itself, where no administrator has made it
    owner_id: int | None = None  # whose program has registered it
    signed_out_uris: tuple[
        str, ...
    ] = ()  # where people may be sent back to who sign out there (post_logout_redirect_uris)
    logout_url: str = ""  # where it is told that somebody has signed out (backchannel_logout_uri)
    actor: str  # who made it, as the audit log names them
    created: datetime

    @property
    def title(self) -> str:
        """What people call it."""
        return self.name if self.brought is None else self.brought.title

    @property
    def is_document(self) -> bool:
        """True for one that describes itself at the address that is its client id."""
        return self.client_id.startswith("https:")

    @property
    def public(self) -> bool:
        """True for one without a secret or a key."""
        return not self.secret_hash

    @property
    def signs(self) -> bool:
        """True for one that shows who it is by signing with its key, and not by a secret."""
        return bool(self.keys or self.keys_url)

    def __repr__(self) -> str:
        return f"App(id={self.id}, name={self.name!r}, client_id={self.client_id!r})"


class SigningKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key that tokens are signed with. Its secret half is sealed with what only doorward's own files hold."""

    id: int
    algorithm: str  # "RS256", "ES256", "EdDSA"
    generation: int  # from 1, for each algorithm
    kid: str
    public: dict[str, Any]  # as a JWK
    sealed: bytes
    created: datetime
    starts: datetime  # it is published at once, and signs from here on

    def __repr__(self) -> str:
        return f"SigningKey(kid={self.kid!r}, algorithm={self.algorithm!r})"


class AppSession(msgspec.Struct, frozen=True, kw_only=True):
    """That a person is known to apps by a device, or by a browser in which they signed in: since when, and how."""

    id: int
    key: str  # "node:NODE:USER" or "session:SESSION"
    sid: str  # random; what apps call it
    user_id: int
    created: datetime
    seen: datetime
    acted: datetime  # when they last did something on purpose; at first, when it was made
    signed_out: datetime | None = (
        None  # they left, and come in no more without a yes; no app knows ``sid`` yet
    )


class AppGrant(msgspec.Struct, frozen=True, kw_only=True):
    """What a person gave to an app: a code, and all tokens that came of it. Ended, all of them are worth nothing."""

    id: int
    app_id: int
    user_id: int
    node_id: int | None  # their device that it was given on; None where only a browser spoke for them
    sid: str
    key: str = ""  # of the session it was given in, whatever its sid is by now; empty for those from before there were keys
    code_hash: bytes
    redirect_uri: str
    challenge: str  # PKCE; empty without
    nonce: str
    scopes: tuple[str, ...]
    resources: tuple[str, ...]
    auth_time: datetime
    acr: str
    amr: tuple[str, ...]
    created: datetime
    code_expires: datetime
    expires: datetime  # no token is made of it later
    redeemed: datetime | None = None
    ended: datetime | None = None
    jkt: str = ""  # the key that the code is bound to, by its thumbprint; empty for none
    claims: tuple[str, ...] = ()  # asked for by name: "id_token:NAME", "userinfo:NAME"


class RefreshToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token that is exchanged once for new ones. Only its SHA-256 is kept."""

    id: int
    grant_id: int
    secret_hash: bytes
    created: datetime
    expires: datetime
    used: datetime | None = None
    jkt: str = ""  # the key that it is bound to, by its thumbprint; empty for none
    node: str = ""  # the node that it is bound to, by its stable id; empty for none


class AccessToken(msgspec.Struct, frozen=True, kw_only=True):
    """An access token that says nothing by itself. Only its SHA-256 is kept, and what it would say."""

    id: int
    secret_hash: bytes
    grant_id: int | None  # what it came of; None for an app's own
    claims: dict[str, Any]
    expires: datetime

    def __repr__(self) -> str:
        return f"AccessToken(id={self.id}, grant_id={self.grant_id})"


class PushedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request to authorize that an app has left here before it sends a browser (RFC 9126). Of its name only the SHA-256 is kept."""

    id: int
    app_id: int
    secret_hash: bytes
    pairs: tuple[
        tuple[str, str], ...
    ]  # as they would stand in the address; nothing by which the app shows who it is
    expires: datetime

    def __repr__(self) -> str:
        return f"PushedRequest(id={self.id}, app_id={self.app_id})"


class DeviceRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A program on a device without a browser that waits for somebody to say yes elsewhere (RFC 8628); or a browser that does."""

    id: int
    app_id: int
    device_hash: bytes  # of what the program asks again with
    user_hash: bytes  # of what a person types
    scopes: tuple[str, ...]
    resources: tuple[str, ...]
    levels: tuple[str, ...]  # acr_values
    address: str  # where it asked from, to be shown
    node_id: int | None  # the same, where that is one of ours
    created: datetime
    expires: datetime
    polled: datetime | None = None
    interval: int = 5  # seconds between two askings
    denied: bool = False
    grant_id: int | None = None  # what somebody gave
    asking_id: int | None = None  # what a browser was asked that waits; None for a program

    def __repr__(self) -> str:
        return f"DeviceRequest(id={self.id}, app_id={self.app_id})"


class UsedId(msgspec.Struct, frozen=True, kw_only=True):
    """The hash of something that is good once, which was shown; forgotten when it would not be good any more anyway."""

    id: int
    digest: bytes
    expires: datetime


class LogoutNotice(msgspec.Struct, frozen=True, kw_only=True):
    """That an app has yet to be told of a session's end. It outlives the app and the person, so it names what it takes."""

    id: int
    app: str  # its name, for the audit log
    client_id: str
    algorithm: str  # what the token is signed with
    url: str
    user_id: int
    sid: str
    created: datetime
    due: datetime  # of the next attempt; while one is under way, when it is taken for lost
    tries: int = 0


class Consent(msgspec.Struct, frozen=True, kw_only=True):
    """That a person said yes to an app, and is not asked the same again for a while."""

    id: int
    app_id: int
    user_id: int
    node_id: int | None  # on this device alone
    host: str  # where answers go
    scopes: tuple[str, ...]
    resources: tuple[str, ...]
    expires: datetime


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """A node that waits for a person. Known by the SHA-256 of the code in its link."""

    id: int
    code_hash: bytes
    machine_key: MachinePublic
    node_key: NodePublic
    hostinfo: Hostinfo
    cap_version: int
    ephemeral: bool
    created: datetime
    expires: datetime
    node_id: int | None = None  # set once approved
    denied: datetime | None = None  # set once somebody said no
    came_from: IPv4Address | IPv6Address | None = None  # where it was asked from


class CheckState(StrEnum):
    """How a check stands. One that nobody decided in time stays ``WAITING`` and is over by its ``expires``."""

    WAITING = "waiting"
    APPROVED = "approved"
    DENIED = "denied"


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """An ssh that waits until somebody allows it, and what became of it (ssh.md, section 2).

    It is bound to everything in ``binding``: an approval lets nothing else in.
    """

    id: int
    link: str  # random; opens the page about it, and decides nothing
    code: str  # short, in the terminal and on the page: so that nobody approves another's request
    source_id: int
    target_id: int
    user_id: int | None  # the source's owner; None for a tagged source
    ssh_user: str  # as typed
    account: str  # the local account that the rule makes of it
    rule: str  # as the policy calls it now: "ssh[0]"
    rule_digest: str  # what the rule says, wherever it stands
    period: int  # seconds for which an approval counts; 0: for the connections that wait, and no other
    approvers: tuple[str, ...] = ()  # who may approve, as the rule names them; none: the source's owner
    created: datetime
    expires: datetime  # who waits is refused then
    state: CheckState = CheckState.WAITING
    decided: datetime | None = None
    decided_by: str = ""  # an actor of the audit log
    until: datetime | None = None  # approved: nobody is asked again before
    session_id: int | None = None  # the source is a tab: of which session

    @property
    def source(self) -> tuple[str, int]:
        """Where it comes from: a device, or a session, whose tabs are one to whoever sits before them."""
        return ("device", self.source_id) if self.session_id is None else ("session", self.session_id)

    @property
    def binding(self) -> tuple[tuple[str, int], int | None, int, str, str, str]:
        """What has to be the same for an attempt to be this one's."""
        return self.source, self.user_id, self.target_id, self.ssh_user, self.account, self.rule_digest

    def is_waiting(self, now: datetime) -> bool:
        """True while somebody can still decide."""
        return self.state is CheckState.WAITING and now < self.expires

    def covers(self, now: datetime) -> bool:
        """True while an approval lets further connections in."""
        return self.state is CheckState.APPROVED and self.until is not None and now < self.until


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """Two nodes that an administrator keeps apart, whatever the policy says. ``first`` is the smaller id."""

    id: int
    first: int
    second: int
    created: datetime
    created_by: str  # an actor of the audit log
    expires: datetime | None = None  # from then on it counts no longer; None: until it is lifted
    comment: str = ""  # why, in its author's words

    @property
    def pair(self) -> tuple[int, int]:
        """The two nodes."""
        return self.first, self.second


class AuditEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One line of "who did what to whom". Each carries the hash of the one before it."""

    seq: int
    at: datetime
    actor: str  # "user:NAME", "node:STABLEID", "cli", "token:ID", "system"
    action: str  # "node.register", "policy.set" ...
    target: str  # "node:STABLEID", "user:NAME", "key:ID", "policy"
    details: dict[str, Any]  # never a secret
    previous: bytes  # SHA-256 of the event before; 32 zero bytes for the first
    digest: bytes  # SHA-256 of this one, previous included


class PolicyVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version of the policy file, as text."""

    id: int
    text: str
    actor: str
    created: datetime
    comment: str = ""  # why, in its author's words
    added: int | None = None  # lines that the version before did not have; None where nobody counted
    removed: int | None = None  # lines of the version before that it does not have


class PolicyEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One version of the policy as the history lists it: all but its text."""

    id: int
    actor: str
    created: datetime
    comment: str
    added: int | None
    removed: int | None
    size: int  # characters of text


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """One process of several on one database: a worker of a ``serve``.

    It is the same one after a restart: its data directory says so, and which of the workers there it is. The workers of one
    ``serve`` have one relay and one own node together.
    """

    id: int
    installation: (
        str  # random, kept in the data directory; with "/NUMBER" behind it for each worker but the first
    )
    boot: int  # random, new at each start
    label: str  # the machine and the data directory, for people
    noise_key: MachinePublic  # of control; clients know only one, so all processes must have the same
    door_port: int  # all that its own node admits
    region: DERPRegion | None = None  # its relay
    own_key: int | None = None  # the auth key that its own node was last given
    own_node: int | None = None  # its own node, once it has joined

    @property
    def serve(self) -> str:
        """What the workers of one ``serve`` have in common."""
        return self.installation.partition("/")[0]

    @property
    def worker(self) -> int:
        """Which of them it is, from 1."""
        return int(self.installation.partition("/")[2] or 1)


class ChangeKind(StrEnum):
    """What one process tells the others of; they read the rows themselves."""

    NODES = "nodes"
    OBSERVED = "observed"  # what nodes reported, and whether they are there
    USERS = "users"
    POLICY = "policy"
    DNS = "dns"
    REGISTRATIONS = "registrations"  # a person decided
    PROCESSES = "processes"
    CHECKS = "checks"  # of ssh: asked for, decided, or forgotten
    CUTS = "cuts"  # pairs of nodes that are kept apart
    JOINING = "joining"  # who gets in, and for how long


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One line of what processes tell each other."""

    id: int
    boot: int  # who says it, and knows it already
    kind: ChangeKind
    ids: tuple[int, ...] = ()  # of nodes, registrations, checks and cuts
