"""``client_credentials``: a token for the app itself, and for no person (RFC 6749 section 4.4).

Only for apps that an administrator has made with ``--service``. Its subject is the app, in a namespace of its own. It has of the
app's own scopes those that it asks for; no scope that is about a person is given.
"""

from typing import Any

from doorward.issuer.access import access_token
from doorward.issuer.desk import Desk, one
from doorward.issuer.dpop import Binding
from doorward.issuer.errors import AuthorizeError, TokenError
from doorward.issuer.request import Pairs, resources_of
from doorward.issuer.tokens import ACCESS
from doorward.model import App


async def own_token(desk: Desk, app: App, pairs: Pairs, binding: Binding) -> dict[str, Any]:
    """The answer. Raises TokenError."""
    if not app.service or app.public:
        raise TokenError("unauthorized_client", "this app may have no tokens of its own")
    scopes = tuple(dict.fromkeys(one(pairs, "scope").split()))
    if not set(scopes) <= set(app.scopes):
        raise TokenError(
            "invalid_scope", "an app by itself has no scopes but its own: doorward apps show lists them"
        )
    try:
        resources = resources_of(pairs, app.resources)
    except AuthorizeError as error:
        raise TokenError(error.code, error.message) from None
    token = await access_token(
        desk,
        app,
        scopes=scopes,
        resources=resources,
        extra={**_of_node(desk, binding), **binding.claims},
    )
    await desk.note(
        None, app, "app.token", resources=list(resources), scopes=list(scopes), node=binding.caller
    )
    answer = {
        "access_token": token,
        "token_type": binding.token_type,
        "expires_in": int(ACCESS.total_seconds()),
    }
    return answer | ({"scope": " ".join(scopes)} if scopes else {})


def _of_node(desk: Desk, binding: Binding) -> dict[str, Any]:
    """What is told of the node by which the app has shown who it is."""
    node = desk.registry.snapshot.node_by_stable_id(binding.caller) if binding.caller else None
    return {} if node is None else {"node": node.name, "tags": list(node.tags)}
