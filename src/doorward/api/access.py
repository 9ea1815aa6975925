"""Who is asking the API and what they may do there.

Two ways in. Over the *admin listener*, the socket in the data directory, everybody is the administrator: its mode 0600
is the proof. Anywhere else a bearer token says who it is, and its role what it may do.

Roles follow what the policy language's autogroups mean: owners and administrators do everything, network
administrators the network, IT administrators people and their nodes, billing administrators and auditors read, members
have no business here. Nobody hands out more than they hold (``require_rank``): who may make keys or approve nodes for
another person could otherwise become that person.
"""

from dataclasses import dataclass
from enum import StrEnum

from doorward.errors import NotPermitted
from doorward.model import Role

ADMIN_LISTENER = "admin"


class Permission(StrEnum):
    """What an operation needs."""

    READ = "read"
    USERS = "users"
    KEYS = "keys"
    NODES = "nodes"
    POLICY = "policy"
    TOKENS = "tokens"
    DNS = "dns"
    CHECKS = "checks"


_EVERYTHING = frozenset(Permission)
ALLOWED: dict[Role, frozenset[Permission]] = {
    Role.OWNER: _EVERYTHING,
    Role.ADMIN: _EVERYTHING,
    Role.NETWORK_ADMIN: frozenset(
        {Permission.READ, Permission.KEYS, Permission.NODES, Permission.POLICY, Permission.DNS},
    ),
    Role.IT_ADMIN: frozenset({Permission.READ, Permission.KEYS, Permission.NODES, Permission.USERS}),
    Role.BILLING_ADMIN: frozenset({Permission.READ}),
    Role.AUDITOR: frozenset({Permission.READ}),
    Role.MEMBER: frozenset(),
}


@dataclass(frozen=True)
class Principal:
    """Who is asking. ``actor`` is how the audit log names them."""

    actor: str
    role: Role

    def require(self, permission: Permission) -> None:
        """Raise NotPermitted unless the role allows it."""
        if permission not in ALLOWED[self.role]:
            able = ", ".join(role for role in Role if permission in ALLOWED[role])
            raise NotPermitted(
                f"the role {self.role} may not do this", cure=f"Ask with one of these roles: {able}."
            )

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
