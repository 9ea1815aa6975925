"""People: list, create, change a role, suspend, delete."""

from collections import Counter

from doorward.api import types
from doorward.api.access import Permission
from doorward.api.context import Call
from doorward.asgi import operation
from doorward.errors import BadInput, Conflict, NotFound
from doorward.login.means import Held
from doorward.model import Role, User
from doorward.tailnet.snapshot import Snapshot


def find_user(snapshot: Snapshot, name: str) -> User:
    """The user with this login name. Raises NotFound with those there are close by."""
    user = snapshot.user_by_name(name)
    if user is None:
        raise NotFound(f"there is no user {name!r}", cure="`doorward users list` shows the users there are.")
    return user


def _answer(user: User, nodes: int, held: Held | None = None) -> types.User:
    has = held or Held()
    return types.User(
        id=user.id,
        name=user.name,
        display_name=user.display_name,
        email=user.email,
        role=user.role.value,
        created=user.created,
        suspended=user.suspended,
        nodes=nodes,
        groups=user.groups,
        passkeys=has.passkeys,
        identities=has.identities,
        recovery_codes=has.recovery_codes,
        sessions=has.sessions,
        invited=has.invited,
    )


async def _shown(call: Call, user: User) -> types.User:
    held = await call.context.means.held(user)
    return _answer(user, _nodes_of(call.snapshot)[user.id], held.get(user.id))


def _nodes_of(snapshot: Snapshot) -> Counter[int | None]:
    return Counter(
        node.user_id
        for node in snapshot.nodes.values()
        if not node.tags and not node.system and node.tab is None
    )


@operation("GET", "/users", needs=Permission.READ)
async def list_users(call: Call) -> list[types.User]:
    """List the people, by name."""
    held = await call.context.means.held()
    snapshot = call.snapshot
    owned = _nodes_of(snapshot)
    people = sorted(snapshot.users.values(), key=lambda user: user.name)
    return [_answer(user, owned[user.id], held.get(user.id)) for user in people]


@operation("POST", "/users", needs=Permission.USERS, status=201, raises=[BadInput, Conflict])
async def create_user(call: Call, body: types.NewUser) -> types.User:
    """Create a person."""
    role = Role(body.role)
    call.principal.require_rank(role)
    user = await call.registry.create_user(
        call.actor, body.name, email=body.email, display_name=body.display_name, role=role
    )
    return _answer(user, 0)


@operation("GET", "/users/{name}", needs=Permission.READ, raises=[NotFound])
async def get_user(call: Call, name: str) -> types.User:
    """Show a person."""
    return await _shown(call, find_user(call.snapshot, name))


@operation("PATCH", "/users/{name}", needs=Permission.USERS, raises=[BadInput, NotFound, Conflict])
async def change_user(call: Call, name: str, body: types.UserChange) -> types.User:
    """Give a person another role, suspend or restore them.

    A suspended person's nodes are cut off within a second and stay so until they are restored; nothing is deleted. The
    only owner stays one, and is not suspended.
    """
    user = find_user(call.snapshot, name)
    call.principal.require_rank(user.role)
    if body.role is None and body.suspended is None:
        raise BadInput("nothing is to be changed", cure="Send a role, or suspended, or both.")
    if body.role is not None:
        call.principal.require_rank(Role(body.role))
        user = await call.registry.set_role(call.actor, name, Role(body.role))
    if body.suspended is not None:
        user = await call.registry.suspend_user(call.actor, name, suspended=body.suspended)
    return await _shown(call, user)


@operation("DELETE", "/users/{name}", needs=Permission.USERS, status=204, raises=[NotFound, Conflict])
async def delete_user(call: Call, name: str, query: types.UserDeletion) -> None:
    """Delete a person who has no nodes any more."""
    call.principal.require_rank(find_user(call.snapshot, name).role)
    await call.registry.delete_user(call.actor, name, with_nodes=query.with_nodes)


OPERATIONS = (list_users, create_user, get_user, change_user, delete_user)
