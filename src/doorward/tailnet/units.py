"""The transactions behind ``registry``: each a plain function that checks, writes rows and one audit event.

They run on the store's writer thread, one after the other, so what they read is true until they are committed. They take
ids rather than values where the row may have changed since the caller looked.
"""

import hashlib
from collections.abc import Container, Iterable
from datetime import datetime, timedelta
from ipaddress import ip_network
from typing import Any

import msgspec

from doorward.errors import BadInput, Conflict, NotFound
from doorward.model import (
    EXIT_ROUTES,
    ApiToken,
    AuthKey,
    ChangeKind,
    Node,
    PolicyVersion,
    Prefix,
    Process,
    Role,
    TabEnd,
    TabOver,
    User,
)
from doorward.policy import DEFAULT_POLICY, Document
from doorward.policy.textdiff import count_changes
from doorward.store import (
    Connection,
    apps,
    audit,
    cuts,
    feed,
    keys,
    nodes,
    policies,
    processes,
    signin,
    tabs,
    users,
)
from doorward.store import settings as stored
from doorward.tailnet import names
from doorward.tailnet.approval import Widening, widen
from doorward.tailnet.deadlines import Due, node_deadlines
from doorward.tailnet.settings import DNS, Settings
from doorward.tailnet.writer import DNS_SETTING, Effect

AWAY = "ephemeral node away"


def first_policy(connection: Connection, now: datetime) -> None:
    """Give a new store the default policy."""
    if policies.current(connection) is None:
        lines = len(DEFAULT_POLICY.splitlines())
        first = PolicyVersion(
            id=0, text=DEFAULT_POLICY, actor="system", created=now, comment="default", added=lines, removed=0
        )
        policies.insert(connection, first)
        audit.append(connection, "system", "policy.set", "policy", {"default": True}, now)


def free_name(
    connection: Connection,
    settings: Settings,
    hostname: str,
    node_id: int | None = None,
    given: Container[str] = (),
) -> str:
    """A name for a host that no other node has; ``node_id`` is the node that is to have it, if there is one yet.

    ``given`` are names that are as good as taken.

    The door's own name is never free: our DNS answers it with our node, and a node called like it would get a share
    of the people who mean the door.
    """
    base = names.label_of(hostname)
    used = nodes.names_like(connection, base)
    own = None if node_id is None else nodes.by_id(connection, node_id)
    if own is not None:
        used.discard(own.name)

    def taken(name: str) -> bool:
        if name == settings.door_label or name in given:
            return True
        if name == base or name.startswith(f"{base}-"):
            return name in used
        other = nodes.by_name(connection, name)  # a long name, shortened to make room for its number
        return other is not None and other.id != node_id

    return names.unique(base, taken)


def _everybody(connection: Connection) -> tuple[User, ...]:
    return tuple(users.load_all(connection))


def create_user(connection: Connection, actor: str, draft: User) -> Effect[User]:
    """Add a user; raises Conflict for a taken name."""
    if users.by_name(connection, draft.name) is not None:
        raise Conflict(f"there is a user {draft.name!r} already", cure="`doorward users list` shows them.")
    user = users.insert(connection, draft)
    details = {"role": user.role.value, "email": user.email}
    audit.append(connection, actor, "user.create", f"user:{user.name}", details, draft.created)
    return Effect(result=user, users=_everybody(connection))


def _require_another_owner(connection: Connection, user: User, act: str) -> None:
    """Raise Conflict if without this person nobody would own the tailnet: only an owner makes owners."""
    if user.role is not Role.OWNER or user.suspended:
        return
    owners = [one for one in users.load_all(connection) if one.role is Role.OWNER and not one.suspended]
    if len(owners) == 1:
        raise Conflict(
            f"{user.name} is the only owner, and {act}",
            cure="Make somebody else an owner first: `doorward users role NAME owner`.",
        )


def update_user(
    connection: Connection, actor: str, user_id: int, changes: dict[str, Any], now: datetime
) -> Effect[User]:
    """Change some fields of a user."""
    user = users.by_id(connection, user_id)
    if user is None:
        raise NotFound("this user was deleted", cure="`doorward users list` shows the users there are.")
    if changes.get("role", user.role) is not Role.OWNER:
        _require_another_owner(connection, user, "keeps that role")
    changed = users.update(connection, msgspec.structs.replace(user, **changes))
    if changed.role is not user.role:
        # Whoever invited them could give them the role they had; with another the link would give what its maker cannot.
        signin.forget_invitations(connection, user_id)
    details = {**changes, "before": {name: getattr(user, name) for name in changes}}
    audit.append(connection, actor, "user.update", f"user:{user.name}", details, now)
    return Effect(result=changed, users=_everybody(connection))


def suspend_user(
    connection: Connection, actor: str, user_id: int, suspended: bool, now: datetime
) -> Effect[User]:
    """Shut a user out, or in again; one for whom it is so already stays as they are."""
    user = users.by_id(connection, user_id)
    if user is None:
        raise NotFound("this user was deleted", cure="`doorward users list` shows the users there are.")
    if user.suspended == suspended:
        return Effect(result=user)
    if suspended:
        _require_another_owner(connection, user, "is not suspended")
    changed = users.update(connection, msgspec.structs.replace(user, suspended=suspended))
    if suspended:
        signin.forget_invitations(
            connection, user_id
        )  # they would work again once the person is let in again
    action = "user.suspend" if suspended else "user.restore"
    details: dict[str, Any] = {}
    if suspended:
        details["sessions"] = signin.end_sessions(connection, now, user_id=user_id)
        if tokens := keys.revoke_api_tokens_of(connection, user_id, now):
            details["tokens"] = tokens
        if ended := apps.end_grants(connection, now, user_id=user_id):
            details["app_grants"] = ended  # refreshing is over, also once the person is let in again
    audit.append(connection, actor, action, f"user:{user.name}", details, now)
    return Effect(result=changed, users=_everybody(connection))


def delete_user(
    connection: Connection, actor: str, user: User, with_nodes: bool, now: datetime
) -> Effect[None]:
    """Remove a user, and all by which they, or a program of theirs, gets in.

    Raises Conflict while they have nodes, unless those are to go too, and for the only owner. Tagged nodes that they brought
    in stay, and are nobody's.
    """
    if (known := users.by_id(connection, user.id)) is not None:
        _require_another_owner(connection, known, "is not deleted")
    brought = [node for node in nodes.load_all(connection) if node.user_id == user.id]
    own = [node for node in brought if not node.tags]
    devices = [node for node in own if node.tab is None]  # tabs go with the browser's session
    if devices and not with_nodes:
        some = ", ".join(sorted(node.name for node in devices)[:5])
        raise Conflict(
            f"{user.name} still has {len(devices)} node{'s' * (len(devices) > 1)}: {some}",
            cure="Delete them first: `doorward nodes delete NODE`; or all of them at once: `--with-nodes`.",
        )
    reason = "its person was deleted"
    lifted = [
        number for node in own for number in delete_node(connection, actor, node.id, reason, now).cuts_gone
    ]
    freed = tuple(
        nodes.update(connection, msgspec.structs.replace(node, user_id=None)) for node in brought if node.tags
    )
    tabs.delete_keys_of(connection, user_id=user.id)
    held = {**signin.delete_all_of(connection, user.id), **apps.delete_all_of(connection, user.id, now)}
    gone = {name: count for name, count in held.items() if count}
    details: dict[str, Any] = {"auth_keys": keys.delete_auth_keys_of(connection, user.id), **gone}
    if tokens := keys.revoke_api_tokens_of(connection, user.id, now):
        details["tokens"] = tokens
    users.delete(connection, user.id)
    audit.append(connection, actor, "user.delete", f"user:{user.name}", details, now)
    return Effect(
        result=None,
        users=_everybody(connection),
        nodes=freed,
        removed=tuple(node.id for node in own),
        cuts_gone=tuple(lifted),
    )


def claim_own_node(connection: Connection, process: Process, stable_id: str) -> Effect[None]:
    """Note which own node a ``serve`` has that came back with its login, unless it is known or another's."""
    node = next((one for one in nodes.load_all(connection) if one.stable_id == stable_id), None)
    owners = {one.own_node: one.serve for one in processes.load_all(connection)}
    if node is not None and node.system and node.id not in owners:
        processes.give_own_node(connection, process.serve, node.id)
        feed.append(connection, process.boot, {ChangeKind.PROCESSES: ()})
    return Effect(result=None)


def create_auth_key(
    connection: Connection, actor: str, draft: AuthKey, process: Process | None = None
) -> Effect[AuthKey]:
    """Store a new auth key; for the own node of ``process``, if that is given."""
    key = keys.insert_auth_key(connection, draft)
    if process is not None and (row := processes.by_installation(connection, process.installation)):
        processes.update(connection, msgspec.structs.replace(row, own_key=key.id))
    details = {
        "prefix": key.prefix,
        "user": key.user_id,
        "tags": key.tags,
        "reusable": key.reusable,
        "ephemeral": key.ephemeral,
        "preapproved": key.preapproved,
        "expires": key.expires.isoformat(),
    }
    audit.append(connection, actor, "key.create", f"key:{key.id}", details, draft.created)
    return Effect(result=key)


def revoke_auth_key(connection: Connection, actor: str, key_id: int, now: datetime) -> Effect[AuthKey]:
    """Revoke a key; again is no error and changes nothing."""
    revoked = keys.revoke_auth_key(connection, key_id, now)
    key = keys.auth_key_by_id(connection, key_id)
    if key is not None and revoked:
        details = {
            "prefix": key.prefix,
            "before": {"expires": key.expires.isoformat(), "used": _plain(key.used)},
        }
        audit.append(connection, actor, "key.revoke", f"key:{key_id}", details, now)
    if key is None:
        raise NotFound(f"there is no auth key {key_id}", cure="`doorward keys list` shows them.")
    return Effect(result=key)


def create_api_token(connection: Connection, actor: str, draft: ApiToken) -> Effect[ApiToken]:
    """Store a new API token."""
    token = keys.insert_api_token(connection, draft)
    details: dict[str, Any] = {
        "prefix": token.prefix,
        "role": token.role.value,
        "description": token.description,
    }
    if token.user_id is not None:
        details["user"] = token.user_id
    audit.append(connection, actor, "token.create", f"token:{token.id}", details, draft.created)
    return Effect(result=token)


def revoke_api_token(connection: Connection, actor: str, token_id: int, now: datetime) -> Effect[ApiToken]:
    """Revoke a token; again is no error and changes nothing."""
    revoked = keys.revoke_api_token(connection, token_id, now)
    for token in keys.all_api_tokens(connection):
        if token.id == token_id:
            if revoked:
                details = {"prefix": token.prefix, "before": {"role": token.role}}
                audit.append(connection, actor, "token.revoke", f"token:{token_id}", details, now)
            return Effect(result=token)
    raise NotFound(f"there is no API token {token_id}", cure="`doorward tokens list` shows them.")


def _change_node(
    connection: Connection, actor: str, action: str, node: Node, changes: dict[str, Any], now: datetime
) -> Effect[Node]:
    """Store a changed node, with what changed in the audit log."""
    changed = nodes.update(connection, msgspec.structs.replace(node, **changes))
    details = {field: _plain(value) for field, value in changes.items()}
    details["before"] = {field: _plain(getattr(node, field)) for field in changes}
    audit.append(connection, actor, action, f"node:{node.stable_id}", details, now)
    return Effect(result=changed, nodes=(changed,))


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return [str(item) for item in value] if isinstance(value, tuple) else value


def _node(connection: Connection, node_id: int) -> Node:
    node = nodes.by_id(connection, node_id)
    if node is None:
        raise NotFound("this node was deleted", cure="`doorward nodes list` shows the nodes there are.")
    return node


def rename_node(connection: Connection, actor: str, node_id: int, name: str, now: datetime) -> Effect[Node]:
    """Give a node a free name; raises Conflict for a taken one."""
    node = _node(connection, node_id)
    other = nodes.by_name(connection, name)
    if other is not None and other.id != node_id:
        raise Conflict(
            f"another node is called {name}", cure="Choose another name, or rename that node first."
        )
    return _change_node(connection, actor, "node.rename", node, {"name": name, "renamed": True}, now)


def expire_node(connection: Connection, actor: str, node_id: int, now: datetime) -> Effect[Node]:
    """End a node's key now; one that has ended keeps its time."""
    node = _node(connection, node_id)
    if node.expired(now):
        return Effect(result=node)
    return _change_node(connection, actor, "node.expire", node, {"key_expiry": now}, now)


def delete_node(
    connection: Connection,
    actor: str,
    node_id: int,
    reason: str,
    now: datetime,
    over: TabOver = TabOver.REMOVED,
) -> Effect[None]:
    """Remove a node, and what is known of its host keys. Why a tab is ``over`` is kept for its page."""
    node = _node(connection, node_id)
    tabs.delete_keys_of(connection, node_id=node_id)
    if node.tab is not None and node.user_id is not None:
        over = TabOver.LOST if reason == AWAY else over
        why = {AWAY: "it was away for too long", "": "an administrator removed it"}.get(reason, reason)
        ended = TabEnd(
            id=node.id,
            user_id=node.user_id,
            session_id=node.tab.session_id,
            over=over,
            reason=why,
            at=now,
        )
        tabs.end(connection, ended)
    lifted = cuts.delete_of(connection, (node_id,))
    nodes.delete(connection, node_id)
    owner = None if node.user_id is None else users.by_id(connection, node.user_id)
    details: dict[str, Any] = {
        "name": node.name,
        "addresses": [str(address) for address in node.addresses],
        "before": {
            "user": None if owner is None else owner.name,
            "tags": node.tags,
            "key": str(node.node_key),
            "key_expiry": _plain(node.key_expiry),
            "routes": [str(prefix) for prefix in node.approved_routes],
        },
    }
    if reason:
        details["reason"] = reason
    action = "node.delete" if node.tab is None else "tab.close"
    audit.append(connection, actor, action, f"node:{node.stable_id}", details, now)
    return Effect(result=None, removed=(node_id,), cuts_gone=tuple(lifted))


def remove_away(connection: Connection, node_id: int, grace: timedelta, now: datetime) -> Effect[None]:
    """Remove an ephemeral node that is away, unless another process knows better or was faster."""
    node = nodes.by_id(connection, node_id)
    if node is None:
        return Effect(result=None, removed=(node_id,))
    due = [moment for moment, due in node_deadlines(node, grace) if due is Due.REMOVE]
    if not due or due[0] > now:
        return Effect(result=None)
    return delete_node(connection, "system", node_id, AWAY, now)


def set_tags(
    connection: Connection,
    actor: str,
    node_id: int,
    tags: tuple[str, ...],
    key_end: datetime | None,
    now: datetime,
) -> Effect[Node]:
    """Replace a node's tags. A tagged node's key does not end; untagged again, it ends at ``key_end``."""
    node = _node(connection, node_id)
    if not tags and node.user_id is None:
        raise Conflict(
            "without tags this node would belong to nobody",
            cure="Keep a tag, or delete the node and join it for a user.",
        )
    if tags == node.tags:
        return Effect(result=node)
    expiry = None if tags else node.key_expiry or key_end
    return _change_node(connection, actor, "node.tags", node, {"tags": tags, "key_expiry": expiry}, now)


def set_routes(
    connection: Connection,
    actor: str,
    node_id: int,
    approve: frozenset[Prefix],
    reject: frozenset[Prefix],
    now: datetime,
) -> Effect[Node]:
    """Add to, and take from, the routes a node may serve."""
    node = _node(connection, node_id)
    approved = tuple(sorted((frozenset(node.approved_routes) | approve) - reject, key=str))
    if approved == node.approved_routes:
        return Effect(result=node)
    return _change_node(connection, actor, "node.routes", node, {"approved_routes": approved}, now)


def prefixes(texts: Iterable[str]) -> frozenset[Prefix]:
    """Routes as a person writes them. An exit route of one family stands for both, as clients use them together."""
    found: set[Prefix] = set()
    for text in texts:
        try:
            prefix = ip_network(text.strip())
        except ValueError as error:
            raise BadInput(f"{text!r} is not a route: {error}", cure="Write it as 192.168.1.0/24.") from None
        if "%" in text:
            raise BadInput(f"{text!r} is not a route: it has a zone", cure="Leave out the part from % on.")
        found |= EXIT_ROUTES if prefix in EXIT_ROUTES else {prefix}
    return frozenset(found)


class PolicyChanged(Conflict):
    """A change was made for a version of the policy that is no longer in force (RFC 9110, section 13.1.1)."""

    status = 412
    problem = "policy-changed"

    def __init__(self, expected: int, found: PolicyVersion) -> None:
        super().__init__(
            f"version {found.id} of the policy is in force, set by {found.actor} at "
            f"{found.created:%Y-%m-%d %H:%M:%S} UTC; this change was made for version {expected}, and nothing was changed",
            cure=f"See what they did with `doorward policy history diff {expected} {found.id}`, and make the change again.",
        )


class PolicyDraft(msgspec.Struct, frozen=True, kw_only=True):
    """A policy that was found good, and what is to be remembered of it."""

    document: Document
    text: str
    comment: str = ""
    expected: int | None = None  # the version it was made for; None: whichever is in force
    restores: int | None = None  # the earlier version whose text it is
    widening: Widening | None = None  # what it approves by itself


def set_policy(
    connection: Connection, actor: str, draft: PolicyDraft, now: datetime
) -> Effect[PolicyVersion]:
    """Store a policy as the newest version, and approve the routes that it begins to approve by itself.

    A text that is in force already makes no version. Raises PolicyChanged.
    """
    found = policies.current(connection)
    assert found is not None, "a store has a policy from its first start on"
    if draft.expected is not None and draft.expected != found.id:
        raise PolicyChanged(draft.expected, found)
    if draft.text == found.text:
        return Effect(result=found)
    added, removed = count_changes(found.text, draft.text)
    version = policies.insert(
        connection,
        PolicyVersion(
            id=0,
            text=draft.text,
            actor=actor,
            created=now,
            comment=draft.comment,
            added=added,
            removed=removed,
        ),
    )
    details: dict[str, Any] = {
        "version": version.id,
        "sha256": hashlib.sha256(draft.text.encode()).hexdigest(),
        "added": added,
        "removed": removed,
        "before": {"version": found.id, "sha256": hashlib.sha256(found.text.encode()).hexdigest()},
    }
    if draft.comment:
        details["comment"] = draft.comment
    if draft.restores is not None:
        details["restores"] = draft.restores
    if pruned := policies.prune(connection):
        details["forgotten"] = pruned
    action = "policy.set" if draft.restores is None else "policy.rollback"
    audit.append(connection, actor, action, "policy", details, now)
    routers = () if draft.widening is None else widen(connection, draft.widening, now)
    return Effect(result=version, policy=(draft.document, draft.text), nodes=routers)


def set_dns(connection: Connection, actor: str, dns: DNS, now: datetime) -> Effect[DNS]:
    """Store the DNS settings."""
    before = stored.get(connection, DNS_SETTING, DNS) or DNS()
    stored.put(connection, DNS_SETTING, dns)
    details = {**msgspec.to_builtins(dns), "before": msgspec.to_builtins(before)}
    audit.append(connection, actor, "dns.set", "dns", details, now)
    return Effect(result=dns, dns=dns)
