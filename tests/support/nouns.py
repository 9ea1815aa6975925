"""Users, nodes, keys, registrations and sessions for tests: valid, distinct by their number, not stored yet."""

import hashlib
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from doorward.model import ApiToken, AuthKey, Node, Registration, Session, Tab, TabTarget, User
from doorward.protocol.keys import DiscoPublic, MachinePublic, NodePublic
from doorward.protocol.tailcfg.hostinfo import Hostinfo

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
SOON = NOW + timedelta(hours=1)


def raw(kind: str, number: int) -> bytes:
    return hashlib.sha256(f"{kind} {number}".encode()).digest()


def machine_key(number: int) -> MachinePublic:
    return MachinePublic(raw("machine", number))


def node_key(number: int) -> NodePublic:
    return NodePublic(raw("node", number))


def disco_key(number: int) -> DiscoPublic:
    return DiscoPublic(raw("disco", number))


def user(number: int = 1, **fields: Any) -> User:
    return User(**{"id": 0, "name": f"user{number}@example.com", "created": NOW, **fields})


def node(number: int, user_id: int | None, **fields: Any) -> Node:
    values = {
        "id": 0,
        "stable_id": f"n{number}",
        "machine_key": machine_key(number),
        "node_key": node_key(number),
        "user_id": user_id,
        "name": f"node-{number}",
        "ipv4": IPv4Address("100.64.0.0") + number,
        "ipv6": IPv6Address("fd7a:115c:a1e0::") + number,
        "created": NOW,
    }
    return Node(**{**values, **fields})


def tab(session_id: int = 1, *targets: int, account: str = "root", grace: int = 900) -> Tab:
    wanted = tuple(TabTarget(node_id=target, account=account, ssh=True) for target in targets)
    return Tab(session_id=session_id, targets=wanted, grace=grace)


def session(user_id: int = 1, at: datetime = NOW, **fields: Any) -> Session:
    """Begun and proven at that time, for a day."""
    values = {
        "id": 0,
        "user_id": user_id,
        "secret_hash": b"",
        "origin": "https://door.example.com",
        "created": at,
        "seen": at,
        "expires": at + timedelta(days=1),
        "proven": at,
        "method": "passkey:1",
        "address": "192.0.2.1",
        "agent": "a browser",
    }
    return Session(**{**values, **fields})


def auth_key(number: int = 1, **fields: Any) -> AuthKey:
    values = {
        "id": 0,
        "prefix": f"key{number}",
        "secret_hash": raw("auth", number),
        "created": NOW,
        "expires": SOON,
    }
    return AuthKey(**{**values, **fields})


def api_token(number: int = 1, **fields: Any) -> ApiToken:
    values = {"id": 0, "prefix": f"token{number}", "secret_hash": raw("token", number), "created": NOW}
    return ApiToken(**{**values, **fields})


def registration(number: int = 1, **fields: Any) -> Registration:
    values = {
        "id": 0,
        "code_hash": raw("code", number),
        "machine_key": machine_key(number),
        "node_key": node_key(number),
        "hostinfo": Hostinfo(Hostname=f"host{number}", OS="linux"),
        "cap_version": 140,
        "ephemeral": False,
        "created": NOW,
        "expires": SOON,
    }
    return Registration(**{**values, **fields})
