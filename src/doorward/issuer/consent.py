"""The page that asks whether an app may know somebody, and the page that posts an answer to an app."""

import base64
import hashlib
from typing import Any

import msgspec
from starlette.responses import Response

from doorward.asgi import PAGE_POLICY
from doorward.issuer.claims import in_words
from doorward.issuer.decision import Reason
from doorward.issuer.request import Asked
from doorward.login import pages
from doorward.login.asking import Waiting
from doorward.login.pages import Door, Side
from doorward.login.redirects import is_local, origin_of, shown_host
from doorward.model import App, Asking, Node, User

_SUBMIT = "document.forms[0].submit()"
_SUBMIT_HASH = base64.b64encode(hashlib.sha256(_SUBMIT.encode()).digest()).decode()


def page(
    *,
    tailnet: str,
    app: App,
    asked: Asked,
    user: User,
    node: Node | None,
    scopes: tuple[str, ...],
    asking: int,
    reason: Reason,
    doubtful: bool = False,
    owner: str = "",
) -> Response:
    """The page: who, from which device, to which app, what it learns and where the answer goes."""
    return pages.page(
        "app.html",
        tailnet=tailnet,
        door=Door.AJAR,
        label="an app asks",
        script="steady.js",
        before=pages.person_side(user.name, user.id, "" if node is None else f"on {node.name}"),
        behind=Side(pages.tailnet_side(tailnet).picture, app.title, "the app"),
        user=user,
        app=app,
        node=node,
        host=shown_host(asked.redirect_uri),
        local=is_local(asked.redirect_uri),
        learns=in_words(scopes),
        resources=asked.resources,
        asking=asking,
        hint=asked.login_hint if reason is Reason.OTHER_PERSON else "",
        other=reason is Reason.OTHER_PERSON,
        origin=shown_host(app.client_id) if app.is_document else "",
        doubtful=doubtful,
        owner=owner,
    )


def asks(app: App, uri: str) -> bool:
    """True where each person is asked; of an app that came by itself an administrator approves at certain hosts."""
    return app.asks if app.brought is None else shown_host(uri) not in app.brought.approved


def waiting(asking: Asking) -> dict[str, Any]:
    """What waits for an answer to the page."""
    found = msgspec.json.decode(asking.argument, type=Waiting).of
    assert isinstance(found, dict)
    return found


def form_post(tailnet: str, uri: str, answer: list[tuple[str, str]], *, by_itself: bool = True) -> Response:
    """The answer as a form that sends itself (OAuth 2.0 Form Post Response Mode), or by its button without scripts."""
    policy = PAGE_POLICY.replace("form-action 'self'", f"form-action {origin_of(uri)}")
    return pages.page(
        "post.html",
        tailnet=tailnet,
        door=Door.OPEN,
        label="goes on",
        uri=uri,
        answer=answer,
        host=shown_host(uri),
        submit=_SUBMIT if by_itself else "",
        headers={"Content-Security-Policy": f"{policy}; script-src 'sha256-{_SUBMIT_HASH}'"},
    )
