"""``doorward apps``."""

from collections.abc import Callable
from pathlib import Path

from cyclopts import App

from doorward.api import app_types as types
from doorward.cli import output
from doorward.cli.app_presets import PRESETS, Name, Values, plain, program_url, redirects
from doorward.cli.app_presets import signed_out as signed_out_of
from doorward.cli.connection import Flag, Target, api_path, read_text
from doorward.cli.times import relative
from doorward.errors import BadInput, NotFound

app = App(
    name="apps",
    help="""Programs in which people sign in by doorward, with OpenID Connect or OAuth.

    Inside the tailnet they are signed in without a click, as whom the network knows; elsewhere they sign in on a page. The
    policy says who may use which app, and as what.
    """,
)


@app.command(name="list")
def list_apps(*, json: Flag = False, target: Target | None = None) -> None:
    """List the apps, oldest first.

    Example: `doorward apps list`

    Args:
        json: Print a list of objects instead of a table.
        target: Which server.
    """
    found = (target or Target()).call("GET", "/apps", list[types.App])
    if json:
        output.as_json(found)
        return
    output.table(
        ("NAME", "CLIENT ID", "KIND", "ANSWERED AT"),
        ((each.name, each.client_id, _kind(each), " ".join(each.redirect_uris)) for each in found),
        empty="There are no apps. Make one with `doorward apps create NAME --redirect ADDRESS`.",
    )


def _kind(each: types.App) -> str:
    kind = "public" if each.public else "confidential"
    signs = bool(each.keys or each.keys_url)
    if each.kind != "made":
        kind = f"{'describes itself' if each.kind == 'document' else 'registered itself'}, {kind}"
    asks = each.asks and not each.approved
    words = {
        "pushed": each.pushed_only,
        "asks": asks,
        "approved": bool(each.approved),
        "shared": each.shared,
        "service": each.service,
        "device": each.device,
        "signs": signs,
        "dpop": each.dpop,
        "by node": bool(each.nodes),
        "binds": each.binds,
        "opaque": each.opaque,
    }
    marks = [word for word, on in words.items() if on]
    return ", ".join((kind, *marks))


@app.command(name="show")
def show_app(name: str, /, *, json: Flag = False, target: Target | None = None) -> None:
    """Show an app, without its secret.

    Example: `doorward apps show grafana`

    Args:
        name: Its name or client id.
        json: Print an object.
        target: Which server.
    """
    found = (target or Target()).call("GET", api_path("apps", _name(target, name)), types.App)
    if json:
        output.as_json(found)
        return
    output.line(f"{found.name}: {_kind(found)}, signed with {found.algorithm}, made by {found.actor}")
    output.line(f"issuer:     {found.issuer}")
    output.line(f"client id:  {found.client_id}")
    if found.kind != "made":
        output.line(f"calls itself: {found.title}")
    if found.owner:
        output.line(f"registered by: {found.owner}")
    for host in found.approved:
        output.line(f"approved at: {host}")
    for uri in found.redirect_uris:
        output.line(f"answer to:  {uri}")
    for uri in found.resources:
        output.line(f"tokens for: {uri}")
    for word in found.scopes:
        output.line(f"scope:      {word}")
    for kid in found.keys:
        output.line(f"key:        {kid or '(without a name)'}")
    for known in found.nodes:
        output.line(f"runs on:    {known}")
    if found.keys_url:
        output.line(f"keys at:    {found.keys_url}")
    for uri in found.signed_out_uris:
        output.line(f"signed out: {uri}")
    if found.logout_url:
        output.line(f"is told at: {found.logout_url}")


@app.command(name="create")
def create_app(
    name: str,
    /,
    *,
    redirect: list[str] | None = None,
    resource: list[str] | None = None,
    scope: list[str] | None = None,
    preset: Name | None = None,
    url: str = "",
    public: Flag = False,
    ask: Flag = False,
    service: Flag = False,
    device: Flag = False,
    dpop: Flag = False,
    par: Flag = False,
    shared: Flag = False,
    node: list[str] | None = None,
    bind_node: Flag = False,
    opaque: Flag = False,
    algorithm: types.SigningAlgorithm = "RS256",
    keys: Path | None = None,
    keys_url: str = "",
    signed_out: list[str] | None = None,
    logout_url: str = "",
    json: Flag = False,
    target: Target | None = None,
) -> None:
    """Make an app, and print what to set in it: its secret is shown this once.

    Example: `doorward apps create grafana --preset grafana --url https://grafana.example.com`

    Args:
        name: What the policy calls it.
        redirect: Where it may have people sent back to; more than one with more of these.
        resource: What its tokens may be for, beside itself, as a program of that address calls it.
        scope: A word of its own that tokens for these may hold, such as files:read. Apps that name the resource may ask for it.
        preset: Print the settings of this program, and know where it wants people back.
        url: The program's address, for the preset.
        public: It cannot keep a secret: a program on people's machines, or in a browser.
        ask: Ask each person before their first sign-in.
        service: It may have tokens of its own, for no person.
        device: People may sign in there with a code that they type on another device: a program in a terminal, a screen,
            a browser outside the tailnet.
        dpop: Its tokens are bound to a key that it makes (RFC 9449): it shows a proof of it with each request.
        par: It leaves each request at /par before it sends a browser; no other one counts (RFC 9126).
        shared: Apps that come by themselves, MCP clients for instance, may have tokens for its resources.
        node: It runs on this tagged node, and is known by that in place of a secret: tag:NAME, or the node's stable id.
        bind_node: Its tokens are good on the node alone that asks for them, and a public app's codes where they were given.
        opaque: Its access tokens say nothing by themselves: a server that gets one asks what it is (RFC 7662).
        algorithm: What its tokens are signed with.
        keys: A file with its public keys, as a JWK Set: it signs with them and has no secret (private_key_jwt).
        keys_url: The https address where it publishes them, in place of a file.
        signed_out: Where it may have people sent back to who sign out; more than one with more of these.
        logout_url: The https address at which it is told that somebody has signed out, at one of its own hosts.
        json: Print an object.
        target: Which server.
    """
    known = None if preset is None else PRESETS[preset]
    back, resources, left = list(redirect or ()), list(resource or ()), list(signed_out or ())
    if known is not None:
        url = program_url(url)
        back += redirects(known, url)
        left += signed_out_of(known, url)
        resources += [url] if known.is_resource else []
        public, shared = public or known.public, shared or known.is_resource
    body = types.NewApp(
        name=name,
        redirect_uris=tuple(dict.fromkeys(back)),
        resources=tuple(dict.fromkeys(resources)),
        scopes=tuple(dict.fromkeys(scope or ())),
        public=public,
        asks=ask,
        service=service,
        device=device,
        dpop=dpop,
        pushed_only=par,
        shared=shared,
        nodes=tuple(node or ()),
        binds=bind_node,
        opaque=opaque,
        algorithm=algorithm,
        keys="" if keys is None else read_text(keys),
        keys_url=keys_url,
        signed_out_uris=tuple(dict.fromkeys(left)),
        logout_url=logout_url,
    )
    made = (target or Target()).call("POST", "/apps", types.MadeApp, body=body)
    _hand_over(made, json=json, settings=plain if known is None else known.settings, url=url)


@app.command(name="import")
def import_apps(
    file: Path, /, *, dry_run: Flag = False, json: Flag = False, target: Target | None = None
) -> None:
    """Take over the clients of a tsidp. Their client ids and secrets stay good, so that programs need the new issuer alone.

    What is here already is not changed, so the same file may be imported again. Clients that cannot be apps here are named with
    the reason, and the status is 1. Those that had registered themselves ask each person before their first sign-in.

    Example: `doorward apps import oidc-funnel-clients.json --dry-run`

    Args:
        file: The file oidc-funnel-clients.json of tsidp's state directory, or - for what is piped in.
        dry_run: Say what would become of each, and change nothing.
        json: Print an object.
        target: Which server.
    """
    body = types.NewAppImport(clients=read_text(file), dry_run=dry_run)
    found = (target or Target()).call("POST", "/app-imports", types.AppImport, body=body)
    if json:
        output.as_json(found)
    else:
        new = "would be imported" if dry_run else "imported"
        words = {"imported": new, "there": "is here already", "refused": "refused"}
        output.table(
            ("CLIENT ID", "NAME", "OUTCOME"),
            (
                (each.client_id, each.name or "-", words[each.outcome] + (", asks" if each.asks else ""))
                for each in found.apps
            ),
            empty="There are no clients in the file.",
        )
        for each in found.apps:
            if each.reason:
                output.line(f"{each.client_id}: {each.reason}")
    if refused := sum(each.outcome == "refused" for each in found.apps):
        raise BadInput(
            f"{refused} of {len(found.apps)} clients cannot be imported",
            cure="Mend them in the file and import it again, or make them with `doorward apps create`.",
        )


@app.command(name="sessions")
def list_sessions(
    name: str | None = None,
    /,
    *,
    user: str | None = None,
    json: Flag = False,
    target: Target | None = None,
) -> None:
    """List who is signed in in which app, as far as doorward knows: programs keep sessions of their own.

    Example: `doorward apps sessions grafana`

    Args:
        name: An app's name or client id. Without it all.
        user: Of one person alone.
        json: Print a list of objects instead of a table.
        target: Which server.
    """
    query = {"app": name, "user": user}
    found = (target or Target()).call("GET", "/app-sessions", list[types.AppSession], query=query)
    if json:
        output.as_json(found)
        return
    output.table(
        ("ID", "APP", "USER", "ON", "SIGNED IN", "LAST"),
        (
            (
                str(each.id),
                each.app,
                each.user,
                each.node or "-",
                relative(each.signed_in),
                relative(each.last),
            )
            for each in found
        ),
        empty="Nobody is signed in in an app." if name is None else f"Nobody is signed in in {name}.",
    )


@app.command(name="sign-out")
def sign_out(user: str, number: int, /, *, json: Flag = False, target: Target | None = None) -> None:
    """Sign a person out of an app, on one device or in one browser. An app that listens for it is told.

    On a device they are signed in again at the next visit: who may use an app is the policy's to say.

    Example: `doorward apps sign-out ann 12`

    Args:
        user: Login name.
        number: The number of the session in `doorward apps sessions`.
        json: Print the app as an object.
        target: Which server.
    """
    path = api_path("users", user, "app-sessions", str(number))
    ended = (target or Target()).call("DELETE", path, types.App)
    if json:
        output.as_json(ended)
        return
    output.line(f"Signed {user} out of {ended.name}.")


@app.command(name="rotate")
def rotate_app(name: str, /, *, json: Flag = False, target: Target | None = None) -> None:
    """Give an app another secret, and print it: the one before is worth nothing from now on.

    Example: `doorward apps rotate grafana`

    Args:
        name: Its name or client id.
        json: Print an object.
        target: Which server.
    """
    made = (target or Target()).call("POST", api_path("apps", name, "secret"), types.MadeApp)
    _hand_over(made, json=json)


@app.command(name="invite")
def invite_apps(
    *,
    uses: int = 1,
    days: float = 1.0,
    take_back: Flag = False,
    json: Flag = False,
    target: Target | None = None,
) -> None:
    """Let programs register apps by themselves (RFC 7591), with a secret that is printed once.

    What they register asks each person; `doorward apps approve` ends that.

    Example: `doorward apps invite --uses 5`

    Args:
        uses: How many apps.
        days: For how long.
        take_back: Make all such secrets worth nothing instead.
        json: Print an object.
        target: Which server.
    """
    if take_back:
        ended = (target or Target()).call("DELETE", "/app-invitations", types.EndedInvitations)
        if json:
            output.as_json(ended)
        else:
            output.line(f"{ended.count} invitations are worth nothing now.")
        return
    body = types.NewAppInvitation(uses=uses, seconds=round(days * 86_400))
    made = (target or Target()).call("POST", "/app-invitations", types.AppInvitation, body=body)
    if json:
        output.as_json(made)
        return
    output.line(f"register at:           {made.address}")
    output.line(f"initial access token:  {made.secret}")


@app.command(name="approve")
def approve_app(
    name: str, /, *, take_back: Flag = False, json: Flag = False, target: Target | None = None
) -> None:
    """Say of an app that came by itself that people need not be asked before they sign in there, or take that back.

    It counts for the hosts where the app is answered now. An app that describes itself at an address may be approved of before
    anybody has used it, by that address.

    Example: `doorward apps approve https://wiki.example.com/client.json`

    Args:
        name: Its name or client id.
        take_back: From now on people are asked again.
        json: Print an object.
        target: Which server.
    """
    body = types.AppApproval(app=name, approved=not take_back)
    found = (target or Target()).call("POST", "/app-approvals", types.App, body=body)
    if json:
        output.as_json(found)
    elif take_back:
        output.line(f"People are asked again before they sign in to {found.title} ({found.name}).")
    else:
        hosts = ", ".join(found.approved)
        output.line(f"People are not asked before they sign in to {found.title} ({found.name}) at {hosts}.")


@app.command(name="delete")
def delete_app(name: str, /, *, target: Target | None = None) -> None:
    """Delete an app: nobody signs in there any more, and what it was given is worth nothing.

    Example: `doorward apps delete grafana`

    Args:
        name: Its name or client id.
        target: Which server.
    """
    gone = (target or Target()).call("DELETE", api_path("apps", _name(target, name)), types.App)
    output.line(f"Deleted the app {gone.name}.")


def _name(target: Target | None, name: str) -> str:
    """The name of an app whose client id may be an address, which is no part of another one."""
    if "/" not in name:
        return name
    found = (target or Target()).call("GET", "/apps", list[types.App])
    for each in found:
        if each.client_id == name:
            return each.name
    raise NotFound(f"there is no app {name[:60]!r}", cure="`doorward apps list` shows those there are.")


def _hand_over(
    made: types.MadeApp, *, json: bool, settings: Callable[[Values], str] = plain, url: str = ""
) -> None:
    if json:
        output.as_json(made)
        return
    signs = bool(made.app.keys or made.app.keys_url)
    shown = "(none; the program signs with its key: private_key_jwt)" if signs else made.secret
    if made.app.nodes:
        shown = '(none; the program asks from its node, with the header "Doorward-Client: node")'
    values = Values(made.app.name, url, made.app.issuer, made.app.client_id, shown, made.app.scopes)
    for line in settings(values).rstrip().splitlines():
        output.line(line)
