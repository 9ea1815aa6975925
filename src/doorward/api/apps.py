"""Apps in which people sign in: list, show, create, give another secret, approve of, delete."""

from datetime import timedelta

from doorward.api import app_types as types
from doorward.api.access import Permission
from doorward.api.context import Call
from doorward.api.types import Number
from doorward.api.users import find_user
from doorward.asgi import operation
from doorward.errors import BadInput, Conflict, NotFound
from doorward.login.apps import Wanted
from doorward.login.tsidp import LARGEST, read_clients
from doorward.model import App


def _answer(call: Call, app: App) -> types.App:
    owner = None if app.owner_id is None else call.snapshot.users.get(app.owner_id)
    return types.App(
        id=app.id,
        name=app.name,
        client_id=app.client_id,
        issuer=call.context.issuer,
        redirect_uris=app.redirect_uris,
        resources=app.resources,
        scopes=app.scopes,
        public=app.public,
        asks=app.asks,
        service=app.service,
        device=app.device,
        dpop=app.dpop,
        nodes=app.nodes,
        opaque=app.opaque,
        binds=app.binds,
        algorithm=app.algorithm,  # type: ignore[arg-type] # one of those, as it was made
        created=app.created,
        actor=app.actor,
        keys=tuple(str(one.get("kid", "")) for one in app.keys),
        keys_url=app.keys_url,
        pushed_only=app.pushed_only,
        shared=app.shared,
        kind="made" if app.brought is None else "document" if app.is_document else "registered",
        title=app.title,
        owner="" if owner is None else owner.name,
        approved=() if app.brought is None else app.brought.approved,
        signed_out_uris=app.signed_out_uris,
        logout_url=app.logout_url,
    )


@operation("GET", "/apps", needs=Permission.READ)
async def list_apps(call: Call) -> list[types.App]:
    """List the apps, oldest first, without their secrets."""
    return [_answer(call, app) for app in await call.context.apps.list()]


@operation("GET", "/apps/{name}", needs=Permission.READ, raises=[NotFound])
async def get_app(call: Call, name: str) -> types.App:
    """Show an app, by its name or client id."""
    return _answer(call, await call.context.apps.find(name))


@operation("POST", "/apps", needs=Permission.APPS, status=201, raises=[BadInput, Conflict])
async def create_app(call: Call, body: types.NewApp) -> types.MadeApp:
    """Make an app. Its secret is in this answer and nowhere else."""
    wanted = Wanted(
        name=body.name,
        redirect_uris=body.redirect_uris,
        resources=body.resources,
        scopes=body.scopes,
        public=body.public,
        asks=body.asks,
        service=body.service,
        device=body.device,
        dpop=body.dpop,
        nodes=body.nodes,
        opaque=body.opaque,
        binds=body.binds,
        algorithm=body.algorithm,
        keys=body.keys,
        keys_url=body.keys_url,
        pushed_only=body.pushed_only,
        shared=body.shared,
        signed_out_uris=body.signed_out_uris,
        logout_url=body.logout_url,
    )
    app, secret = await call.context.apps.create(call.actor, wanted)
    return types.MadeApp(app=_answer(call, app), secret=secret)


@operation("POST", "/app-imports", needs=Permission.APPS, body_limit=2 * LARGEST, raises=[BadInput])
async def import_apps(call: Call, body: types.NewAppImport) -> types.AppImport:
    """Take over the clients of a tsidp: their client ids and secrets stay good. All that can be are made at once.

    Those that are here already are not changed; those that cannot be apps here are named with the reason.
    """
    moved = await call.context.apps.bring(call.actor, read_clients(body.clients), dry_run=body.dry_run)
    made = tuple(
        types.ImportedApp(
            client_id=one.client_id, name=one.name, outcome=one.outcome, reason=one.reason, asks=one.asks
        )
        for one in moved
    )
    return types.AppImport(apps=made, dry_run=body.dry_run)


@operation("POST", "/apps/{name}/secret", needs=Permission.APPS, raises=[NotFound, Conflict])
async def rotate_app(call: Call, name: str) -> types.MadeApp:
    """Give an app another secret. The one before is worth nothing from now on."""
    app, secret = await call.context.apps.rotate(call.actor, name)
    return types.MadeApp(app=_answer(call, app), secret=secret)


@operation("POST", "/app-invitations", needs=Permission.APPS, status=201, raises=[BadInput])
async def invite_apps(call: Call, body: types.NewAppInvitation) -> types.AppInvitation:
    """Let programs register apps by themselves, with a secret that is in this answer and nowhere else."""
    lifetime = timedelta(seconds=body.seconds)
    made, secret = await call.context.apps.invite(call.actor, body.uses, lifetime)
    address = f"{call.context.issuer}/register"
    return types.AppInvitation(secret=secret, uses=made.uses, expires=made.expires, address=address)


@operation("DELETE", "/app-invitations", needs=Permission.APPS)
async def end_app_invitations(call: Call) -> types.EndedInvitations:
    """Make all invitations to register apps worth nothing. Apps that were registered stay."""
    return types.EndedInvitations(count=await call.context.apps.end_invitations(call.actor))


@operation("POST", "/app-approvals", needs=Permission.APPS, raises=[BadInput, Conflict, NotFound])
async def approve_app(call: Call, body: types.AppApproval) -> types.App:
    """Say of an app that came by itself that people need not be asked, or take that back.

    It counts for the hosts where it is answered now. An app that describes itself at an address can be approved of before it comes.
    """
    return _answer(call, await call.context.apps.approve(call.actor, body.app, approved=body.approved))


@operation("DELETE", "/apps/{name}", needs=Permission.APPS, raises=[NotFound])
async def delete_app(call: Call, name: str) -> types.App:
    """Delete an app: nobody signs in there any more, and all that it was given is worth nothing."""
    return _answer(call, await call.context.apps.delete(call.actor, name))


@operation("GET", "/app-sessions", needs=Permission.READ, raises=[NotFound])
async def list_app_sessions(call: Call, query: types.AppSessionFilter) -> list[types.AppSession]:
    """List who is signed in in which app, as far as doorward knows: whoever signed in last comes last."""
    user = None if query.user is None else find_user(call.snapshot, query.user)
    found = await call.context.apps.uses(query.app, None if user is None else user.id)
    people, nodes = call.snapshot.users, call.snapshot.nodes
    return [
        types.AppSession(
            id=use.id,
            app=app.name,
            user=people[use.user_id].name,
            node=nodes[use.node_id].name if use.node_id is not None and use.node_id in nodes else None,
            signed_in=use.first,
            last=use.last,
        )
        for app, use in found
        if use.user_id in people
    ]


@operation("DELETE", "/users/{name}/app-sessions/{number}", needs=Permission.SESSIONS, raises=[NotFound])
async def end_app_session(call: Call, name: str, number: Number) -> types.App:
    """Sign a person out of an app. It is told, where it listens; what it was given is worth nothing from now on."""
    user = find_user(call.snapshot, name)
    call.principal.require_over(user)
    return _answer(call, await call.context.apps.end_use(call.actor, user, number))


OPERATIONS = (
    list_apps,
    get_app,
    create_app,
    import_apps,
    rotate_app,
    approve_app,
    invite_apps,
    end_app_invitations,
    delete_app,
    list_app_sessions,
    end_app_session,
)
