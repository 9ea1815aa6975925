"""What an app is told of a person: by scope (OpenID Connect Core section 5.4), and by what the policy gives.

Made anew for every token from the tailnet as it is then. In the code flow the ID token says who it is and what the policy adds;
name, address and groups are told by userinfo (section 5.4), as the conformance profile wants it.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Literal, NamedTuple

from doorward.issuer.decision import POSTURE, Level
from doorward.issuer.wanted import SCOPE_OF, scopes_of
from doorward.model import App, AppGrant, User
from doorward.policy.apps import Entitlement, entitlement, groups_of
from doorward.tailnet.snapshot import Snapshot, advertised
from doorward.telemetry import log

SCOPES = ("openid", "profile", "email", "groups", "device", "offline_access")
_WORDS = {
    "openid": "know that it is you",
    "profile": "know your name",
    "email": "know your e-mail address",
    "groups": "know which groups you are in",
    "device": "know which device of yours it is, and its addresses",
    "offline_access": "stay signed in while you are away",
}
CLAIMS = (
    *("sub", "iss", "aud", "exp", "iat", "auth_time", "acr", "amr", "sid", "at_hash", "nonce"),
    *("name", "preferred_username", "email", "groups", "roles", "node", "nid", "addresses", "tailnet"),
)

_log = log("issuer")


class Standing(NamedTuple):
    """A person as an app may know them at this moment."""

    user: User
    entitlement: Entitlement
    groups: tuple[str, ...]


def standing(snapshot: Snapshot, app: App, user_id: int, node_id: int | None) -> Standing | None:
    """How a person stands with an app; None for one who may not use it, or is not there any more.

    ``node_id`` is the device that vouches for them, which has to be theirs still; None where a browser does.
    """
    user = snapshot.users.get(user_id)
    if user is None or user.suspended:
        return None
    found = entitlement(snapshot.policy, app.name, user.id, node_id, app.client_id)
    if found.problems:
        _log.warning("the policy says of apps what cannot be", app=app.name, problems=found.problems)
    if not found.allowed:
        return None
    groups = {*groups_of(snapshot.policy, user.id), *found.groups}
    return Standing(user, found, tuple(sorted(groups)))


def grant_standing(snapshot: Snapshot, app: App, grant: AppGrant, now: datetime) -> Standing | None:
    """The same for what a person gave an app earlier: the device that vouched then must do so still."""
    if grant.node_id is not None:
        node = snapshot.nodes.get(grant.node_id)
        if node is None or node.expired(now) or snapshot.suspended(node):
            return None
        if node.tags or node.user_id != grant.user_id:
            return None
        if routes_for_others(snapshot, node.id):
            return None
    if grant.acr.startswith(POSTURE) and not posture_met(snapshot, [grant.acr], grant.node_id):
        return None
    return standing(snapshot, app, grant.user_id, device_of(grant))


def device_of(grant: AppGrant) -> int | None:
    """The device on which the person is, as the app sees them: what the policy says of devices counts for this one.

    Who said yes to a browser elsewhere is not on the device on which they did, though it has to be theirs still.
    """
    return None if grant.acr == Level.REMOTE else grant.node_id


def posture_met(snapshot: Snapshot, wanted: Iterable[str], node_id: int | None) -> str:
    """Of ``acr`` values that ask for a posture the first that a device meets; empty where it meets none, or there is no device."""
    member = None if node_id is None else snapshot.policy.roster.members.get(node_id)
    if member is None:
        return ""
    return next((one for one in wanted if f"posture:{one.removeprefix(POSTURE)}" in member.postures), "")


def routes_for_others(snapshot: Snapshot, node_id: int) -> bool:
    """True for a node that carries others' traffic: behind its address may be anybody."""
    node = snapshot.nodes[node_id]
    return bool(advertised(node) & frozenset(node.approved_routes))


def in_words(scopes: Iterable[str]) -> list[str]:
    """What an app may do with these, as the page that asks says it."""
    return [_WORDS.get(one, f"use {one}") for one in scopes]


def granted(scopes: Iterable[str], who: Entitlement) -> tuple[str, ...]:
    """Of scopes that there are those that the policy allows, each once; openid always may be."""
    wanted = dict.fromkeys(scopes)
    return tuple(one for one in wanted if who.scopes is None or one == "openid" or one in who.scopes)


def of_id_token(who: Standing) -> dict[str, Any]:
    """What the policy adds."""
    return {**who.entitlement.claims, **_roles(who)}


def of_access_token(who: Standing, scopes: Iterable[str]) -> dict[str, Any]:
    """The same, and the groups, for who does not ask back (RFC 9068 section 2.2.3.1)."""
    groups = {"groups": list(who.groups)} if "groups" in set(scopes) else {}
    return {**who.entitlement.claims, **_roles(who), **groups}


def of_userinfo(who: Standing, scopes: Iterable[str]) -> dict[str, Any]:
    """All that the scopes are for."""
    held, user = set(scopes), who.user
    found: dict[str, Any] = {**who.entitlement.userinfo, **_roles(who)}
    if "profile" in held:
        found["name"] = user.display_name or user.name
        found["preferred_username"] = user.name.partition("@")[0]
    if "email" in held and (address := user.email or (user.name if "@" in user.name else "")):
        # Without email_verified: nobody has proven it to us, and an app must not take our word for a proof.
        found["email"] = address
    if "groups" in held:
        found["groups"] = list(who.groups)
    return found


def of_wanted(
    snapshot: Snapshot, who: Standing, grant: AppGrant, place: Literal["id_token", "userinfo"]
) -> dict[str, Any]:
    """Claims that the app has asked for by name, for one place: those whose scopes the policy allows."""
    names = [one.removeprefix(f"{place}:") for one in grant.claims if one.startswith(f"{place}:")]
    scopes = granted(scopes_of(names), who.entitlement)
    told = {**of_userinfo(who, scopes), **of_device(snapshot, grant.node_id, scopes)}
    return {name: told[name] for name in names if name in told and SCOPE_OF[name] in scopes}


def of_device(snapshot: Snapshot, node_id: int | None, scopes: Iterable[str]) -> dict[str, Any]:
    """What the scope ``device`` is for: the device that vouched for a person, with the names that tsidp has for it.

    Nothing where a browser did: wherever that ran, nobody has proven it.
    """
    node = None if node_id is None else snapshot.nodes.get(node_id)
    if node is None or "device" not in set(scopes):
        return {}
    return {
        "node": snapshot.fqdn(node),
        "nid": node.id,
        "addresses": [f"{node.ipv4}/32", f"{node.ipv6}/128"],
        "tailnet": snapshot.settings.domain,
    }


def _roles(who: Standing) -> dict[str, Any]:
    return {"roles": list(who.entitlement.roles)} if who.entitlement.roles else {}
