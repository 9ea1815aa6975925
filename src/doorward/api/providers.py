"""Outside OpenID providers, and whose account at which of them is whose here.

A client secret goes in and never comes out: an answer says only whether there is one.
"""

from typing import Any

from doorward.api import types
from doorward.api.access import Permission
from doorward.api.context import Call
from doorward.api.users import find_user
from doorward.asgi import operation
from doorward.errors import BadInput, Conflict, NotFound
from doorward.login.upstream import CALLBACK
from doorward.model import Identity, Provider
from doorward.tailnet.outside import group_domains


def _redirect_uris(call: Call, provider: Provider) -> tuple[str, ...]:
    """What the provider has to know: a browser comes back to the door that it left."""
    return tuple(f"{way.address}{CALLBACK}{provider.name}" for way in call.context.ways)


def _answer(call: Call, provider: Provider) -> types.Provider:
    return types.Provider(
        name=provider.name,
        issuer=provider.issuer,
        client_id=provider.client_id,
        has_secret=bool(provider.client_secret),
        scopes=provider.scopes,
        domains=provider.domains,
        users=provider.users,
        groups=provider.groups,
        groups_claim=provider.groups_claim,
        group_domains=group_domains(provider),
        redirect_uris=_redirect_uris(call, provider),
        created=provider.created,
    )


@operation("GET", "/providers", needs=Permission.READ)
async def list_providers(call: Call) -> list[types.Provider]:
    """List the outside providers, oldest first, without their secrets."""
    return [_answer(call, each) for each in await call.registry.outside.providers()]


@operation("GET", "/providers/{name}", needs=Permission.READ, raises=[NotFound])
async def get_provider(call: Call, name: str) -> types.Provider:
    """Show an outside provider, without its secret."""
    return _answer(call, await call.registry.outside.provider(name))


@operation("POST", "/providers", needs=Permission.PROVIDERS, status=201, raises=[BadInput, Conflict])
async def add_provider(call: Call, body: types.NewProvider) -> types.Provider:
    """Let people sign in at another provider. It is not asked anything yet."""
    given = {name: getattr(body, name) for name in body.__struct_fields__}
    given["client_secret"] = call.context.upstream.sealer.seal(body.client_secret, body.issuer)
    draft = Provider(id=0, created=call.context.clock.now(), **given)
    return _answer(call, await call.registry.outside.add(call.actor, draft))


@operation("PATCH", "/providers/{name}", needs=Permission.PROVIDERS, raises=[BadInput, NotFound])
async def change_provider(call: Call, name: str, body: types.ProviderChange) -> types.Provider:
    """Change a provider. Who has come in by it stays; the rules are looked at when somebody new comes."""
    changes: dict[str, Any] = {
        field: value for field in body.__struct_fields__ if (value := getattr(body, field)) is not None
    }
    if not changes:
        raise BadInput(
            "nothing is to be changed", cure="Send a client_id, a client_secret, domains or the like."
        )
    if body.client_secret is not None:
        issuer = (await call.registry.outside.provider(name)).issuer
        changes["client_secret"] = call.context.upstream.sealer.seal(body.client_secret, issuer)
    return _answer(call, await call.registry.outside.change(call.actor, name, changes))


@operation("DELETE", "/providers/{name}", needs=Permission.PROVIDERS, raises=[NotFound])
async def remove_provider(call: Call, name: str) -> types.RemovedProvider:
    """Forget a provider, whose accounts there are whose, and the sessions begun by it. The people stay."""
    return types.RemovedProvider(identities=await call.registry.outside.remove(call.actor, name))


@operation("POST", "/providers/{name}/test", needs=Permission.PROVIDERS, raises=[NotFound])
async def examine_provider(call: Call, name: str) -> list[types.Finding]:
    """Ask a provider what it is asked when somebody signs in, and say what is wrong."""
    provider = await call.registry.outside.provider(name)
    found = await call.context.upstream.examine(provider, redirect_uris=_redirect_uris(call, provider))
    return [types.Finding(**each._asdict()) for each in found]


def _identity(identity: Identity, names: dict[int, str]) -> types.Identity:
    return types.Identity(
        provider=names.get(identity.provider_id, "?"),
        subject=identity.subject,
        email=identity.email,
        groups=identity.groups,
        created=identity.created,
        used=identity.used,
    )


async def _names(call: Call) -> dict[int, str]:
    return {each.id: each.name for each in await call.registry.outside.providers()}


@operation("GET", "/users/{name}/identities", needs=Permission.READ, raises=[NotFound])
async def list_identities(call: Call, name: str) -> list[types.Identity]:
    """List the accounts at outside providers by which a person signs in."""
    found = await call.registry.outside.identities(find_user(call.snapshot, name))
    names = await _names(call)
    return [_identity(each, names) for each in found]


@operation(
    "POST",
    "/users/{name}/identities",
    needs=Permission.INVITE,
    status=201,
    raises=[BadInput, NotFound, Conflict],
)
async def link_identity(call: Call, name: str, body: types.NewIdentity) -> types.Identity:
    """Say that an account at an outside provider is this person's: who has it signs in as them."""
    call.principal.require_rank(find_user(call.snapshot, name).role)
    made = await call.registry.outside.link(call.actor, name, body.provider, body.subject)
    return _identity(made, await _names(call))


@operation("DELETE", "/users/{name}/identities/{provider}", needs=Permission.FACTORS, raises=[NotFound])
async def unlink_identities(call: Call, name: str, provider: str) -> types.RemovedProvider:
    """A person's accounts at a provider are theirs no more; the sessions begun by them end."""
    call.principal.require_over(find_user(call.snapshot, name))
    return types.RemovedProvider(identities=await call.registry.outside.unlink(call.actor, name, provider))


OPERATIONS = (
    list_providers,
    get_provider,
    add_provider,
    change_provider,
    remove_provider,
    examine_provider,
    list_identities,
    link_identity,
    unlink_identities,
)
