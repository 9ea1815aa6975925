"""Who is asking the API and what they may do there.

Four ways in. Over the *admin listener*, the socket in the data directory, everybody is the administrator: its mode 0600
is the proof. A bearer token says who it is, and its role what it may do. A browser in which a person has signed in is
that person, by its cookie: that is enough to look, while whoever changes something has shown who they are a quarter of an
hour ago at most, and for what makes a way in (``ASKED_EACH_TIME``) they are asked for that very act. And what comes through
the tailnet from a person's own device is that person, to look and for nothing else.

``ALLOWED`` is the one table of what each role may do; ``Principal.require`` is where it is enforced, called at the gate
(``api.app``). Roles follow what the policy language's autogroups mean. A person's own things need no role: ``OWN`` says
which. Nobody hands out more than they hold (``require_rank``): who may make keys, approve nodes or invite for another
person could otherwise become that person.
"""

from dataclasses import dataclass
from enum import StrEnum

from doorward.errors import NotPermitted
from doorward.model import Role, User

ADMIN_LISTENER = "admin"


class Permission(StrEnum):
    """What an operation needs. ``ACTS`` says each in words."""

    READ = "read"
    USERS = "users"
    INVITE = "invite"
    SESSIONS = "sessions"
    FACTORS = "factors"
    PROVIDERS = "providers"
    KEYS = "keys"
    NODES = "nodes"
    APPROVE = "approve"
    CUT = "cut"
    POLICY = "policy"
    DNS = "dns"
    SETTINGS = "settings"
    CHECKS = "checks"
    TOKENS = "tokens"
    APPS = "apps"
    CONSOLE = "console"


ACTS: dict[Permission, str] = {
    Permission.READ: "look at everything: people, nodes, policy, audit log",
    Permission.USERS: "create people, change their role, suspend and delete them",
    Permission.INVITE: "invite people, and withdraw invitations",
    Permission.SESSIONS: "sign people out",
    Permission.FACTORS: "delete people's passkeys",
    Permission.PROVIDERS: "set up outside providers for sign-in",
    Permission.KEYS: "make and revoke auth keys",
    Permission.NODES: "change, expire and delete nodes",
    Permission.APPROVE: "approve and deny devices",
    Permission.CUT: "cut access: a device, or all between two",
    Permission.POLICY: "change the policy",
    Permission.DNS: "change DNS",
    Permission.SETTINGS: "say who gets in: device approval, how long a device stays signed in",
    Permission.CHECKS: "decide about checks of ssh, whoever asks",
    Permission.TOKENS: "make and revoke API tokens",
    Permission.APPS: "say in which apps people sign in, and give them secrets",
    Permission.CONSOLE: "use the console in a browser: see the machines that are for oneself",
}

# The console is about whoever sits before it: no role has it, and everybody has their own.
_EVERYTHING = frozenset(Permission) - {Permission.CONSOLE}
_LOOK = frozenset({Permission.READ})
_NETWORK = _LOOK | {Permission.KEYS, Permission.NODES, Permission.APPROVE, Permission.CUT}
_PEOPLE = frozenset({Permission.USERS, Permission.INVITE, Permission.SESSIONS, Permission.FACTORS})
ALLOWED: dict[Role, frozenset[Permission]] = {
    Role.OWNER: _EVERYTHING,
    Role.ADMIN: _EVERYTHING,
    Role.NETWORK_ADMIN: _NETWORK | {Permission.POLICY, Permission.DNS},
    Role.IT_ADMIN: _NETWORK | _PEOPLE | {Permission.SETTINGS},
    Role.BILLING_ADMIN: _LOOK,
    Role.AUDITOR: _LOOK,
    Role.MEMBER: frozenset(),
}

# What anybody may do about themselves, below /users/{name}.
OWN = frozenset({Permission.READ, Permission.SESSIONS, Permission.FACTORS})

# Each makes or ends a way in, or lets somebody in: a browser that was left alone must not be enough.
ASKED_EACH_TIME = frozenset(
    {Permission.TOKENS, Permission.CHECKS, Permission.INVITE, Permission.FACTORS, Permission.PROVIDERS}
)


def bounded(role: Role, by: Role) -> Role:
    """What is left of a role that somebody handed on who has the role ``by`` now: nobody lends more than they hold."""
    if role is Role.OWNER and by is not Role.OWNER:
        return by
    return role if ALLOWED[role] <= ALLOWED[by] else by


class FreshProofNeeded(NotPermitted):
    """The person is known, and has to show anew who they are."""

    problem = "fresh-proof-needed"


@dataclass(frozen=True)
class Principal:
    """Who is asking.

    ``actor`` is how the audit log names them; ``person`` is whose browser it is, None for no person; ``lender`` is who made the
    API token that asks, if a person did.
    """

    actor: str
    role: Role
    person: User | None = None
    lender: User | None = None

    def require(self, permission: Permission) -> None:
        """Raise NotPermitted unless the role allows it."""
        if permission is Permission.CONSOLE:
            raise NotPermitted(
                "this is for a person in a browser", cure="Open the door's own pages and do it there."
            )
        if permission not in ALLOWED[self.role]:
            able = ", ".join(role for role in Role if permission in ALLOWED[role])
            raise NotPermitted(
                f"the role {self.role} may not do this", cure=f"Ask with one of these roles: {able}."
            )

    def owns(self, user: User) -> bool:
        """True if it is about themselves."""
        return self.person is not None and self.person.id == user.id

    def require_over(self, user: User) -> None:
        """Raise NotPermitted unless they may act on this person: themselves, or by rank."""
        if not self.owns(user):
            self.require_rank(user.role)

    def require_rank(self, role: Role) -> None:
        """Raise NotPermitted if acting on or for somebody of ``role`` would give more than the asker holds.

        Owners act for everybody, administrators for everybody but owners, others for members only.
        """
        if self.role is Role.OWNER or role is Role.MEMBER:
            return
        if self.role is Role.ADMIN and role is not Role.OWNER:
            return
        needed = Role.OWNER if role is Role.OWNER else f"{Role.OWNER} or {Role.ADMIN}"
        raise NotPermitted(
            f"the role {self.role} may not act for somebody with the role {role}",
            cure=f"Ask with the role {needed}.",
        )


ADMINISTRATOR = Principal("cli", Role.OWNER)
