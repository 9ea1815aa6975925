"""The door under a path: what is taken off, what gets it again, and what is not ours."""

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route, Router, WebSocketRoute
from starlette.websockets import WebSocket

from doorward.asgi import ByPath
from doorward.errors import BadInput
from doorward.login.doors import Doors
from doorward.login.prefix import Prefixed, at, check_prefix, not_here

DOOR = "https://intranet.example.com/tailnet"
LOCAL = "http://localhost:8080"
TEMPLATES = Path(str(files("doorward.login").joinpath("templates")))


async def _told(request: Request) -> Response:
    raw = request.scope["raw_path"].decode()
    return JSONResponse({"path": request.url.path, "raw": raw, "link": at("/me")})


async def _leads(request: Request) -> Response:
    return RedirectResponse(request.query_params["to"], 303)


async def _known(_: Request) -> Response:
    return Response("a key")


async def _socket(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text(f"{socket.url.path} {at('/x')}")
    await socket.close()


def client(door: str = DOOR, base: str = "https://intranet.example.com") -> httpx2.AsyncClient:
    doors = Doors(door, 8080)
    known = Route("/key", _known)
    inner = Starlette(
        routes=[
            known,
            Route("/leads", _leads),
            WebSocketRoute("/live", _socket),
            Route("/{rest:path}", _told),
        ]
    )
    app = Prefixed(inner, doors=doors, outside=Router([known, not_here(doors)]))
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url=base)


async def _tell(asking: httpx2.AsyncClient, path: str) -> Any:
    async with asking:
        answer = await asking.get(path)
        assert answer.status_code == 200, answer.text
        return json.loads(answer.text)


@pytest.mark.parametrize(
    ("path", "inner"),
    [
        ("/tailnet", "/"),
        ("/tailnet/", "/"),
        ("/tailnet/me", "/me"),
        ("/tailnet/tailnet/me", "/tailnet/me"),  # once, and no more
        ("/tailnet//me", "//me"),
        ("/.well-known/oauth-authorization-server/tailnet", "/.well-known/oauth-authorization-server"),
        ("/.well-known/openid-configuration/tailnet", "/.well-known/openid-configuration"),
        (
            "/.well-known/oauth-protected-resource/tailnet/userinfo",
            "/.well-known/oauth-protected-resource/userinfo",
        ),
    ],
)
async def test_the_prefix_is_taken_off_once(path: str, inner: str) -> None:
    told = await _tell(client(), path)
    assert told == {"path": inner, "raw": inner, "link": "/tailnet/me"}


async def test_what_a_path_holds_stays_as_it_was_written() -> None:
    told = await _tell(client(), "/tailnet/a%20b%2Fc%C3%A9")
    assert (told["path"], told["raw"]) == ("/a b/cé", "/a%20b/c%C3%A9")


@pytest.mark.parametrize(
    "path", ["/me", "/tailnets/me", "/tailne", "/Tailnet/me", "/.well-known/jwks.json/tailnet"]
)
async def test_what_is_beside_it_is_somebody_else_s(path: str) -> None:
    async with client() as asking:
        answer = await asking.get(path)
        assert answer.status_code == 404
        assert DOOR in answer.text
        assert (await asking.post(path)).status_code == 404


async def test_programs_find_what_they_know_by_its_path_and_people_the_pages() -> None:
    async with client() as asking:
        assert (await asking.get("/key")).text == "a key"
        assert (await asking.get("/")).headers["location"] == "/tailnet/"


@pytest.mark.parametrize("base", [LOCAL, "http://192.0.2.1:8080", "https://control.example.com"])
async def test_other_names_have_no_prefix(base: str) -> None:
    assert await _tell(client(base=base), "/me") == {"path": "/me", "raw": "/me", "link": "/me"}


async def test_on_this_machine_a_prefix_is_a_path_like_any_other() -> None:
    assert (await _tell(client(base=LOCAL), "/tailnet/me"))["path"] == "/tailnet/me"


async def test_under_a_wrong_name_the_pages_get_to_say_so() -> None:
    # They know why it is wrong, and what is right; "not found" would say neither.
    assert (await _tell(client(base="https://wrong.example.com"), "/tailnet/me"))["path"] == "/me"


@pytest.mark.parametrize(
    ("to", "location"),
    [
        ("/me", "/tailnet/me"),
        ("/", "/tailnet/"),
        ("/signin?next=/me", "/tailnet/signin?next=/me"),
        ("/tailnet/me?x=1", "/tailnet/me?x=1"),  # somebody knew it already
        ("/tailnets", "/tailnet/tailnets"),
        ("https://app.example.com/back?code=1", "https://app.example.com/back?code=1"),
        ("//evil.example.com/", "//evil.example.com/"),
        ("?again", "?again"),
    ],
)
async def test_redirects_lead_back_under_it(to: str, location: str) -> None:
    async with client() as asking:
        answer = await asking.get("/tailnet/leads", params={"to": to})
        assert answer.headers["location"] == location
    async with client(base=LOCAL) as asking:
        assert (await asking.get("/leads", params={"to": to})).headers["location"] == to


async def test_a_slash_at_the_end_leads_nobody_to_a_neighbour() -> None:
    doors = Doors(DOOR, 8080)
    app = Prefixed(ByPath([Route("/machines", _told)]), doors=doors, outside=Router([not_here(doors)]))
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app), base_url="https://intranet.example.com"
    ) as asking:
        answer = await asking.get("/tailnet/machines/?tag=a")
    assert (answer.status_code, answer.headers["location"]) == (307, "/tailnet/machines?tag=a")


async def test_a_websocket_is_under_it_too() -> None:
    doors = Doors(DOOR)
    app = Prefixed(Router([WebSocketRoute("/live", _socket)]), doors=doors, outside=Router([not_here(doors)]))
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "websocket",
        "path": "/tailnet/live",
        "raw_path": b"/tailnet/live",
        "query_string": b"",
        "headers": [(b"host", b"intranet.example.com")],
        "scheme": "wss",
        "subprotocols": [],
    }
    await app(scope, receive, send)
    assert sent[1]["text"] == "/live /tailnet/x"
    assert at("/x") == "/x"  # it is over with the request


async def test_a_door_without_a_path_is_left_alone() -> None:
    asking = client("https://intranet.example.com")
    assert await _tell(asking, "/me") == {"path": "/me", "raw": "/me", "link": "/me"}


@pytest.mark.parametrize("template", sorted(TEMPLATES.glob("*.html")), ids=lambda file: file.name)
def test_no_page_links_past_the_prefix(template: Path) -> None:
    assert re.findall(r"""(?:href|action|src)=["']/[^"']*""", template.read_text()) == []


def test_a_prefix_that_begins_like_a_path_of_ours_is_refused() -> None:
    routes = [Route("/me", _told), Route("/check/{link}", _told)]
    for prefix in ("", "/tailnet", "/mehr", "/tailnet/me"):
        check_prefix(prefix, routes)
    for prefix in ("/me", "/check", "/check/x"):
        with pytest.raises(BadInput, match="doorward serves") as refused:
            check_prefix(prefix, routes)
        assert refused.value.cure
