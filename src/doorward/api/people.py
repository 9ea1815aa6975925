"""How people come in: invitations, passkeys, sessions. An administrator sees them and takes them away.

Whoever makes a link for somebody could open it and be that person, so nobody invites above themselves.
"""

from datetime import timedelta

from doorward.api import types
from doorward.api.access import ADMINISTRATOR, Permission
from doorward.api.context import Call
from doorward.api.users import find_user
from doorward.asgi import operation
from doorward.errors import BadInput, Conflict, NotFound, NotPermitted
from doorward.login.doors import place_of
from doorward.login.invitations import FIRST_LIFETIME, LIFETIME, link
from doorward.login.links import PATH, make_link
from doorward.model import Role, Session


@operation("POST", "/invitations", needs=Permission.INVITE, status=201, raises=[BadInput, NotFound, Conflict])
async def invite(call: Call, body: types.NewInvitation) -> types.MadeInvitation:
    """Make a link by which a person comes in and gets a passkey. It works once, and is in this answer and nowhere else."""
    user = None if body.user is None else find_user(call.snapshot, body.user)
    call.principal.require_rank(Role.OWNER if user is None else user.role)
    lifetime = FIRST_LIFETIME if user is None else LIFETIME
    if body.expires_in is not None:
        lifetime = timedelta(seconds=body.expires_in)
    made, code = await call.context.invitations.invite(call.actor, user, lifetime=lifetime)
    ways = call.context.ways
    if user is not None:  # who is invited by name sits elsewhere, and only the first owner at our own machine
        ways = sorted(ways, key=lambda way: way.is_here)
    return types.MadeInvitation(
        user=None if user is None else user.name,
        expires=made.expires,
        links=tuple(types.Link(url=link(way.address, code), where=way.where) for way in ways),
    )


@operation(
    "POST", "/sign-in-links", needs=Permission.INVITE, status=201, raises=[NotPermitted, NotFound, Conflict]
)
async def make_sign_in_link(call: Call, body: types.NewSignInLink) -> types.MadeInvitation:
    """Make a link that signs a browser on doorward's own machine in. It works once, within an hour, and is in this answer alone.

    Only the socket in the data directory may: whoever has that is every user already.
    """
    if call.principal != ADMINISTRATOR:
        raise NotPermitted(
            "a link that signs in is made on doorward's own machine alone",
            cure="Run `doorward users sign-in NAME` there, or invite them: `doorward users invite NAME`.",
        )
    user = find_user(call.snapshot, body.user)
    here = next((way for way in call.context.ways if way.is_here), None)
    if here is None:
        raise Conflict(
            "there is no door on this machine alone",
            cure="`listen` on 127.0.0.1 without a certificate gives http://localhost:PORT.",
        )
    made, code = await make_link(call.registry, call.actor, user, place_of(here.address))
    shown = types.Link(url=f"{here.address}{PATH}{code}", where=here.where)
    return types.MadeInvitation(user=user.name, expires=made.expires, links=(shown,))


@operation("DELETE", "/users/{name}/invitation", needs=Permission.INVITE, status=204, raises=[NotFound])
async def withdraw_invitation(call: Call, name: str) -> None:
    """Withdraw a person's invitation: its link is worth nothing from now on."""
    user = find_user(call.snapshot, name)
    call.principal.require_over(user)
    await call.context.means.withdraw_invitation(call.actor, user)


@operation("GET", "/users/{name}/passkeys", needs=Permission.READ, raises=[NotFound])
async def list_passkeys(call: Call, name: str) -> list[types.Passkey]:
    """List a person's passkeys, oldest first."""
    found = await call.context.means.passkeys(find_user(call.snapshot, name))
    return [
        types.Passkey(id=each.id, name=each.name, place=each.place, created=each.created, used=each.used)
        for each in found
    ]


@operation("DELETE", "/users/{name}/passkeys/{number}", needs=Permission.FACTORS, raises=[NotFound])
async def delete_passkey(call: Call, name: str, number: types.Number) -> types.SignedOut:
    """Delete a person's passkey, and end the sessions that it was last used for."""
    user = find_user(call.snapshot, name)
    call.principal.require_over(user)
    return types.SignedOut(sessions=await call.context.means.delete_passkey(call.actor, user, number))


def _session(session: Session, user: str) -> types.Session:
    return types.Session(
        id=session.id,
        user=user,
        created=session.created,
        seen=session.seen,
        expires=session.expires,
        proven=session.proven,
        method=session.method,
        address=session.address,
        agent=session.agent,
        door=session.origin,
    )


@operation("GET", "/sessions", needs=Permission.READ)
async def list_all_sessions(call: Call) -> list[types.Session]:
    """List the browsers in which somebody is signed in, oldest first."""
    found = await call.context.means.sessions()
    people = call.snapshot.users
    return [_session(each, people[each.user_id].name) for each in found if each.user_id in people]


@operation("GET", "/users/{name}/sessions", needs=Permission.READ, raises=[NotFound])
async def list_sessions(call: Call, name: str) -> list[types.Session]:
    """List the browsers in which a person is signed in, oldest first."""
    user = find_user(call.snapshot, name)
    return [_session(each, user.name) for each in await call.context.means.sessions(user)]


@operation("DELETE", "/users/{name}/sessions", needs=Permission.SESSIONS, raises=[NotFound])
async def sign_out(call: Call, name: str) -> types.SignedOut:
    """Sign a person out everywhere. Their devices stay in the tailnet."""
    user = find_user(call.snapshot, name)
    call.principal.require_over(user)
    return types.SignedOut(sessions=await call.context.means.sign_out(call.actor, user))


@operation("DELETE", "/users/{name}/sessions/{number}", needs=Permission.SESSIONS, raises=[NotFound])
async def end_session(call: Call, name: str, number: types.Number) -> types.SignedOut:
    """Sign a person out in one browser."""
    user = find_user(call.snapshot, name)
    call.principal.require_over(user)
    return types.SignedOut(sessions=await call.context.means.sign_out(call.actor, user, number))


OPERATIONS = (
    invite,
    make_sign_in_link,
    withdraw_invitation,
    list_passkeys,
    delete_passkey,
    list_all_sessions,
    list_sessions,
    sign_out,
    end_session,
)
