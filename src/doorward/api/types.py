"""What travels: every request and answer of the API. Imports msgspec only, because the command line imports this.

Requests refuse fields they do not know, so that a misspelt field is an error and not a wish ignored. Answers may gain
fields at any time; readers must ignore those they do not know. Times are RFC 3339 in UTC. Durations are seconds.
"""

from datetime import datetime
from typing import Annotated, Literal

import msgspec

# The names of doorward.model.Role, repeated so that this module stays light; a test holds the two together.
RoleName = Literal["owner", "admin", "network-admin", "it-admin", "billing-admin", "auditor", "member"]

HOUR = 3600
DAY = 24 * HOUR

# A secret that lives for more than ten years is better made again.
Lifetime = Annotated[int, msgspec.Meta(gt=0, le=3650 * DAY, description="seconds")]
# What the database numbers things with: no larger one can be asked for.
Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Count = Annotated[int, msgspec.Meta(ge=1, le=1000)]


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The root of everything that is sent to the API."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The root of everything the API answers."""


class Diagnostic(Answer, frozen=True, kw_only=True):
    """One fault in a policy, by its place in the text that was sent."""

    line: int  # from 1
    column: int  # from 1
    message: str
    cure: str = ""


class Problem(Answer, frozen=True, kw_only=True):
    """An error, as RFC 9457 has it (application/problem+json)."""

    type: str  # a stable word for programs, such as "not-found"
    title: str  # a sentence for people
    status: int  # the HTTP status
    cure: str = ""  # what to do next
    place: str = ""  # where the fault lies: a field's path, or file:line:column
    diagnostics: tuple[Diagnostic, ...] = ()  # of a refused policy, every fault that was found
    request: str = ""  # the number of the request, as in X-Request-Id, the log and the audit log


# Users ------------------------------------------------------------------------------------------------------------


class User(Answer, frozen=True, kw_only=True):
    """A person."""

    id: int
    name: str  # the login name: what the policy and clients call them
    display_name: str
    email: str
    role: RoleName
    created: datetime
    suspended: bool
    nodes: int  # how many nodes are theirs; tagged ones are nobody's
    groups: tuple[str, ...] = ()  # as outside providers say, and as the policy names them
    passkeys: int = 0
    identities: int = 0  # accounts at outside providers that are theirs
    recovery_codes: int = 0  # left to use
    sessions: int = 0  # browsers in which they are signed in
    invited: datetime | None = None  # a link to sign in is open until then


class NewUser(Request, frozen=True, kw_only=True):
    """A person to create."""

    name: str
    email: str = ""
    display_name: str = ""
    role: RoleName = "member"


class UserDeletion(Request, frozen=True, kw_only=True):
    """What goes with a person."""

    with_nodes: bool = (
        False  # their nodes, at once with all that is open from and to them; else they must have none
    )


class UserChange(Request, frozen=True, kw_only=True):
    """What to change about a person. What is left out stays as it is."""

    role: RoleName | None = None
    suspended: bool | None = None  # true: shut out, with all their nodes, until it is false again


# Signing in -------------------------------------------------------------------------------------------------------


class NewInvitation(Request, frozen=True, kw_only=True):
    """An invitation to make. An open one for the same person is worth nothing from then on."""

    user: str | None = None  # null: whoever is to be the first owner, while nobody can sign in and administer
    expires_in: Lifetime | None = None  # a minute to 30 days; null: three days; an hour for the first owner


class Link(Answer, frozen=True, kw_only=True):
    """One of the addresses of a page."""

    url: str
    where: str  # from where it can be reached


class MadeInvitation(Answer, frozen=True, kw_only=True):
    """A new invitation with its link, which is shown this once, the address that works for most first."""

    user: str | None
    expires: datetime
    links: tuple[Link, ...]


class NewSignInLink(Request, frozen=True, kw_only=True):
    """A link to make, by which a browser on doorward's own machine is signed in."""

    user: str


class Passkey(Answer, frozen=True, kw_only=True):
    """A key in an authenticator with which a person signs in."""

    id: int
    name: str
    place: str  # the host name that it works at
    created: datetime
    used: datetime | None


class Session(Answer, frozen=True, kw_only=True):
    """A browser in which a person has signed in."""

    id: int
    user: str
    created: datetime
    seen: datetime
    expires: datetime
    proven: datetime  # when the person last showed who they are
    method: str  # by what: "passkey:ID", "provider:NAME", "recovery"
    address: str  # where it was made from
    agent: str  # what the browser calls itself
    door: str  # the address that it was made at


class SignedOut(Answer, frozen=True, kw_only=True):
    """How many sessions were ended."""

    sessions: int


# Outside providers ------------------------------------------------------------------------------------------------


class Provider(Answer, frozen=True, kw_only=True):
    """An outside OpenID provider at which people sign in, without its client secret."""

    name: str
    issuer: str
    client_id: str
    has_secret: bool
    scopes: tuple[str, ...]
    domains: tuple[str, ...]  # who has a verified e-mail address there comes in
    users: tuple[str, ...]  # whose verified e-mail address this is comes in
    groups: tuple[str, ...]  # who is in one of these comes in
    groups_claim: str
    group_domains: tuple[str, ...]  # what its groups end in, in the policy: group:NAME@DOMAIN
    redirect_uris: tuple[str, ...]  # what the provider has to know
    created: datetime


_Words = Annotated[tuple[str, ...], msgspec.Meta(max_length=1000)]


class NewProvider(Request, frozen=True, kw_only=True):
    """A provider to add. Without domains, users and groups only those come in by it who were invited or linked."""

    name: str  # what people call it: lower-case letters, digits, "-"
    issuer: str
    client_id: str
    client_secret: str = ""  # empty: a public client
    scopes: _Words = ("openid", "email", "profile")
    domains: _Words = ()
    users: _Words = ()
    groups: _Words = ()
    groups_claim: str = "groups"


class ProviderChange(Request, frozen=True, kw_only=True):
    """What to change about a provider. What is left out stays as it is; the issuer always does."""

    client_id: str | None = None
    client_secret: str | None = None
    scopes: _Words | None = None
    domains: _Words | None = None
    users: _Words | None = None
    groups: _Words | None = None
    groups_claim: str | None = None


class RemovedProvider(Answer, frozen=True, kw_only=True):
    """How many accounts at a provider were somebody's here, and are no more."""

    identities: int


class Identity(Answer, frozen=True, kw_only=True):
    """An account at an outside provider, by which a person signs in."""

    provider: str
    subject: str
    email: str  # as the provider last gave it
    groups: tuple[str, ...]  # as the provider last called them
    created: datetime
    used: datetime | None


class NewIdentity(Request, frozen=True, kw_only=True):
    """An account at an outside provider that is to be a person's."""

    provider: str
    subject: str  # what the provider calls "sub"


# Checks of ssh ----------------------------------------------------------------------------------------------------


class Check(Answer, frozen=True, kw_only=True):
    """An ssh that waits until somebody approves it, or what became of it."""

    id: int
    user: str  # whose device asks; "tagged-devices" where it is nobody's
    source: str  # the device
    target: str  # what it wants into
    account: str  # the account there
    since: datetime
    code: str  # as in the terminal that waits
    rule: str  # the rule of the policy that asks: "ssh[0]"
    approvers: tuple[str, ...]  # who may approve, where the rule says so
    expires: datetime  # it is refused then
    state: Literal["waiting", "approved", "denied"]
    until: datetime | None  # approved: nobody is asked again before


# Auth keys --------------------------------------------------------------------------------------------------------


class Key(Answer, frozen=True, kw_only=True):
    """An auth key, without its secret."""

    id: int
    prefix: str  # the first characters of the secret, to tell keys apart
    user: str | None  # the owner of the nodes it admits; null for a key with tags only
    tags: tuple[str, ...]
    reusable: bool
    ephemeral: bool
    preapproved: bool  # what it admits waits for no administrator
    created: datetime
    expires: datetime
    used: datetime | None  # when it last admitted a node
    revoked: datetime | None
    state: Literal["valid", "used", "expired", "revoked"]  # only a valid key admits a node


class NewKey(Request, frozen=True, kw_only=True):
    """An auth key to create. It needs a user, or tags, or both."""

    user: str | None = None
    tags: tuple[str, ...] = ()
    reusable: bool = False
    ephemeral: bool = False
    preapproved: bool = False
    expires_in: Lifetime = HOUR


class MadeKey(Answer, frozen=True, kw_only=True):
    """A new auth key with its secret, which is shown this once."""

    key: Key
    secret: str


# Nodes ------------------------------------------------------------------------------------------------------------


class Route(Answer, frozen=True, kw_only=True):
    """A subnet or exit route of a node. Traffic takes it only while it is advertised and approved."""

    prefix: str
    advertised: bool  # the node offers it
    approved: bool  # an administrator, or the policy's autoApprovers, allowed it
    primary: bool  # of several routers for it, this one is used now


class TabEntry(Answer, frozen=True, kw_only=True):
    """What a browser's tab was opened for."""

    machine: str  # the node's name
    account: str


class Node(Answer, frozen=True, kw_only=True):
    """A node of the tailnet."""

    id: int
    stable_id: str  # its name in the protocol
    name: str  # the first label of its DNS name
    fqdn: str  # its full DNS name, without a final dot
    user: str  # the owner's login name; "tagged-devices" for a tagged node
    tags: tuple[str, ...]
    addresses: tuple[str, ...]  # IPv4 first
    online: bool
    last_seen: datetime | None  # when its last connection to control ended; null while online or never seen
    routes: tuple[Route, ...]
    expiry: datetime | None  # when its key must be renewed; null: never
    expired: bool
    ephemeral: bool
    created: datetime
    hostname: str  # what the host calls itself
    os: str
    client_version: str
    cap_version: int  # the client's capability version
    endpoints: tuple[str, ...]  # "address:port" where it can be reached directly
    came_from: str  # the address that its map stream comes or last came from, as control sees it; empty while unknown
    relay: str  # its home relay: region number and name, empty while unknown
    ssh: bool  # it runs Tailscale SSH
    ssh_host_keys: tuple[
        str, ...
    ]  # those it published, as "KIND BASE64"; empty where it does not run Tailscale SSH
    system: bool  # doorward's own node
    suspended: bool  # an administrator shut it out
    approved: bool  # false: it waits for an administrator, and sees nobody until then
    tab: bool = False  # a browser's tab, which only the machines that it was opened for see
    tab_for: tuple[TabEntry, ...] = ()  # these, and as whom, as it asked for them


class HostKey(Answer, frozen=True, kw_only=True):
    """A host key of ssh that an administrator has pinned for a machine."""

    key: str
    fingerprint: str
    actor: str  # who did it
    created: datetime


class HostKeys(Answer, frozen=True, kw_only=True):
    """The host keys by which terminals in the browser know a machine."""

    node: str
    published: tuple[str, ...]  # by its own client; where there are any, nothing else counts
    pinned: tuple[HostKey, ...]


class HostKeyChange(Request, frozen=True, kw_only=True):
    """Which keys to pin, and which no longer to."""

    pin: tuple[str, ...] = ()
    unpin: tuple[str, ...] = ()


class NodeFilter(Request, frozen=True, kw_only=True):
    """Which nodes to list."""

    all: bool = False  # doorward's own node, too


class NodeChange(Request, frozen=True, kw_only=True):
    """What to change about a node; a field left out, or null, stays as it is."""

    name: str | None = None
    tags: tuple[str, ...] | None = None  # an empty list gives the node back to the person who registered it


class NodeAttribute(Answer, frozen=True, kw_only=True):
    """One thing that is known about a node."""

    key: str
    value: str | int | float | bool
    custom: bool  # an administrator said it; otherwise the node itself did
    expires: datetime | None  # from then on it is not set; null: it stays


class PostureVerdict(Answer, frozen=True, kw_only=True):
    """How a node stands to a posture of the policy."""

    name: str
    met: bool
    failing: tuple[str, ...]  # the assertions that do not hold


class NodeAttributes(Answer, frozen=True, kw_only=True):
    """What postures judge a node by, and how."""

    node: str  # its name
    attributes: tuple[NodeAttribute, ...]  # by key
    postures: tuple[PostureVerdict, ...]  # in the policy's order


class AttributeChange(Request, frozen=True, kw_only=True):
    """What to say about a node."""

    value: str | int | bool
    expires_in: Lifetime | None = None  # null: it stays
    comment: Annotated[str, msgspec.Meta(max_length=200)] = ""  # for the audit log


class RouteChange(Request, frozen=True, kw_only=True):
    """Routes to approve and to reject, as prefixes; a route in neither list stays as it is."""

    approve: tuple[str, ...] = ()
    reject: tuple[str, ...] = ()


class Ping(Request, frozen=True, kw_only=True):
    """What is to be tried."""

    source: str | None = None  # the node that is to ping the other; left out: doorward asks the node itself


class Pong(Answer, frozen=True, kw_only=True):
    """A node answered."""

    node: str  # its name
    source: str  # the name of the node that pinged it; empty: doorward asked
    seconds: float  # there and back
    endpoint: str  # the address of the direct path between the two; empty where there is none, or none was asked for
    relay: str  # the code of the relay's region that carried it; empty as above


class Cut(Answer, frozen=True, kw_only=True):
    """Two nodes that an administrator keeps apart: neither sees the other, whatever the policy says."""

    id: int
    nodes: tuple[str, str]  # their names
    created: datetime
    created_by: str  # as the audit log has it: "cli", "user:NAME", "token:ID"
    expires: datetime | None  # when it ends by itself; null: it stays until it is lifted
    comment: str


class NewCut(Request, frozen=True, kw_only=True):
    """How two nodes are to be kept apart."""

    expires_in: Lifetime | None = None  # null: until it is lifted
    comment: Annotated[str, msgspec.Meta(max_length=200)] = ""  # for the audit log and the list


class Joining(Answer, frozen=True, kw_only=True):
    """Who gets in, and for how long."""

    approval: bool  # a device that no administrator let in waits for one
    key_lifetime: int | None  # seconds until a person has to sign in again on a device; null: never


class JoiningChange(Request, frozen=True, kw_only=True):
    """What to change about who gets in; what is left out stays as it is."""

    approval: bool | None = None
    key_lifetime: Annotated[int, msgspec.Meta(ge=0)] | None = None  # seconds; 0: people sign in once


class Registration(Answer, frozen=True, kw_only=True):
    """A node that waits for somebody to approve it."""

    id: int
    hostname: str
    os: str
    client_version: str
    node_key: str  # short form, as `tailscale status --json` and logs show it
    ephemeral: bool
    created: datetime
    expires: datetime
    came_from: str  # the address it asks from, as control sees it; empty where nobody knows
    known_as: tuple["KnownAs", ...]  # the nodes that this machine is already


class KnownAs(Answer, frozen=True, kw_only=True):
    """A node of the machine that waits. For its own person the machine becomes that one again; for another, one more."""

    node: str  # its name
    user: str  # whose; "tagged-devices" for a tagged one


class Denial(Request, frozen=True, kw_only=True):
    """A decision to refuse a waiting node."""

    link: str  # the link that the client shows, the code at its end, or the registration's id


class Approval(Request, frozen=True, kw_only=True):
    """A decision to let a waiting node in."""

    link: str  # the link that the client shows, the code at its end, or the registration's id
    user: str | None = None  # whose it becomes; may be left out while there is only one person


# DNS --------------------------------------------------------------------------------------------------------------


class DNSRecord(Request, frozen=True, kw_only=True):
    """A name of one's own, and the address it stands for; its type follows from the address."""

    name: str
    address: str


class DNS(Request, frozen=True, kw_only=True):
    """What nodes are told about DNS. Answered as it is sent."""

    magic_dns: bool = True  # nodes find each other by name
    search: tuple[str, ...] = ()  # domains that are tried after the tailnet's own
    nameservers: tuple[str, ...] = ()  # for all other names; empty: as each device has it
    split: dict[str, tuple[str, ...]] = {}  # a domain, and the nameservers for the names below it
    records: tuple[DNSRecord, ...] = ()


# API tokens -------------------------------------------------------------------------------------------------------


class Token(Answer, frozen=True, kw_only=True):
    """An API token, without its secret."""

    id: int
    prefix: str
    description: str
    role: RoleName
    user: str | None  # who made it: it may do no more than they may now; null for one made on the server
    created: datetime
    expires: datetime | None
    revoked: datetime | None
    state: Literal["valid", "expired", "revoked"]


class NewToken(Request, frozen=True, kw_only=True):
    """An API token to create."""

    description: str
    role: RoleName = "admin"
    expires_in: Lifetime | None = 90 * DAY  # null: never


class MadeToken(Answer, frozen=True, kw_only=True):
    """A new API token with its secret, which is shown this once."""

    token: Token
    secret: str


# Status -----------------------------------------------------------------------------------------------------------


class Part(Answer, frozen=True, kw_only=True):
    """One part of the server: what it does now, and how to get it to work where it does not."""

    name: str
    state: Literal["running", "off", "failing"]
    text: str = ""  # an address, a count, a reason
    cure: str = ""


class Status(Answer, frozen=True, kw_only=True):
    """The server at a glance."""

    version: str
    domain: str  # the tailnet's DNS suffix
    url: str  # where clients log in
    door: str  # where people go
    data_dir: str
    started: datetime
    users: int
    nodes: int  # without doorward's own
    online: int  # of these
    waiting: int  # devices that wait for approval: behind a link, or for an administrator
    parts: tuple[Part, ...]


class Finding(Answer, frozen=True, kw_only=True):
    """What the doctor found about one subject."""

    level: Literal["ok", "warning", "error"]
    subject: str
    message: str
    cure: str = ""  # empty only where the level is ok
