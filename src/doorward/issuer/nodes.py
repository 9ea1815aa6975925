"""What the node at the other end of a connection is good for where a program asks: to show which app it is, and to be bound to.

An app on a tagged node needs no secret: the tailnet knows which node asks. That is authority which goes along with every request from
that node, also with one that a page there has its browser send; so it counts only for a request that no page can send: without what
browsers add, and with a header that a page may not add unasked, and for which we never give leave (``desk.PREFLIGHT``). A connection
from outside the tailnet has no node, so none of this is at the public door.

A token that is bound to a node is worth nothing elsewhere, wherever somebody looks: here, or at a server that can tell which node asks.
"""

from starlette.requests import Request

from doorward.issuer.claims import routes_for_others
from doorward.issuer.desk import Desk
from doorward.issuer.errors import TokenError
from doorward.model import App, Node

METHOD = "urn:doorward:client-auth:node"  # the authentication method: ours, no standard
HEADER = "doorward-client"  # has to be there, and say "node"
MEMBER = (
    "https://doorward.dev/cnf/node"  # of cnf (RFC 7800 section 3.1): the node's stable id; ours, no standard
)
_OF_BROWSERS = ("origin", "referer", "cookie")  # and all that begins with sec-


async def node_of(desk: Desk, request: Request) -> Node | None:
    """The node that a request comes from; none where nobody vouches: it is expired or shut out, or carries others' traffic."""
    node = (await desk.askings.sessions.visitor(request)).node
    if node is None or routes_for_others(desk.registry.snapshot, node.id):
        return None
    return node


def by_node(request: Request) -> bool:
    """True for a request whose app shows who it is by the node it runs on."""
    return HEADER in request.headers


async def app_of(desk: Desk, request: Request, client_id: str) -> App:
    """The app that asks from one of its nodes. Raises TokenError with invalid_client."""
    names = [name.lower() for name in request.headers]
    if any(name in _OF_BROWSERS or name.startswith("sec-") for name in names):
        raise _refused("a browser has sent this")
    if request.headers.getlist(HEADER) != ["node"]:
        raise _refused(f"the header {HEADER} says node")
    app, node = await desk.app(client_id), await node_of(desk, request)
    if app is None or not app.nodes or node is None or not _may(app, node):
        raise _refused("this app is not known, or has not this node")
    return app


def _may(app: App, node: Node) -> bool:
    """Only a tagged one: a person's device is full of programs that are nobody's app."""
    return bool(node.tags) and bool({node.stable_id, *node.tags} & set(app.nodes))


async def bound_node(desk: Desk, request: Request) -> str:
    """The stable id of the node that tokens for a request are bound to. Raises TokenError where there is none."""
    node = await node_of(desk, request)
    if node is None:
        raise TokenError(
            "invalid_request", "this app's tokens are bound to a node, and no node asks for them that vouches"
        )
    return node.stable_id


def vouches(desk: Desk, stable_id: str) -> bool:
    """True for a node that a token may still be bound to."""
    snapshot = desk.registry.snapshot
    node = snapshot.node_by_stable_id(stable_id)
    return node is not None and not node.expired(desk.now()) and not snapshot.suspended(node)


def _refused(why: str) -> TokenError:
    return TokenError("invalid_client", why, status=401)
