"""The web layer's promises: typed in and out, problems with a place, and the guards."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime

import httpx2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Message, Receive, Scope, Send

from doorward import asgi
from doorward.asgi import (
    ByPath,
    NumberRequests,
    Operation,
    RateExceeded,
    RateLimit,
    SecurityHeaders,
    StripIdentityHeaders,
    operation,
    refuse_cross_origin,
)
from doorward.errors import Conflict, DoorwardError, NotPermitted, Unauthenticated
from doorward.protocol.proxyheaders import IDENTITY_HEADERS, is_identity_header
from doorward.telemetry import ORIGIN, Origin


class Thing(msgspec.Struct, forbid_unknown_fields=True):
    size: int
    names: list[str] = []


class Filter(msgspec.Struct, forbid_unknown_fields=True):
    limit: int = 10
    every: bool = False


@operation("POST", "/things/{shelf}", status=201)
async def add_thing(call: str, shelf: int, body: Thing) -> Thing:
    """Add a thing.

    To the shelf.
    """
    return Thing(size=body.size + shelf, names=[*body.names, call])


@operation("GET", "/things/{shelf}")
async def list_things(call: str, shelf: str, query: Filter) -> dict[str, str]:
    """List things."""
    return {"shelf": shelf, "limit": str(query.limit), "every": str(query.every)}


@operation("DELETE", "/things/{shelf}", status=204)
async def drop_things(call: str, shelf: str) -> None:
    """Drop all."""
    if shelf == "full":
        raise Conflict("the shelf is full", cure="Empty it.", detail="private detail")
    if shelf == "broken":
        raise ZeroDivisionError("secret inner words")


class Versioned(msgspec.Struct):
    version: int

    @property
    def etag(self) -> str:
        return str(self.version)


@operation("PUT", "/versioned")
async def change_versioned(call: str, if_match: str | None) -> Versioned:
    """Change it; answers with the version that the change was for, or 0."""
    return Versioned(version=int(if_match or 0))


async def enter(request: Request, needed: Operation) -> str:
    who = request.headers.get("x-who", "")
    if not who:
        raise Unauthenticated("nobody is named", cure="Say who.")
    return who


APP = Starlette(
    routes=asgi.routes([add_thing, list_things, drop_things, change_versioned], prefix="/api", enter=enter)
)


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(APP), base_url="http://door.test", headers={"X-Who": "ann"}
    ) as made:
        yield made


async def test_a_typed_request_gets_a_typed_answer(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/api/things/3", json={"size": 4, "names": ["a"]})
    assert (answer.status_code, answer.json()) == (201, {"size": 7, "names": ["a", "ann"]})
    assert answer.headers["cache-control"] == "no-store"
    answer = await client.get("/api/things/x%20y?limit=5&every=true")
    assert answer.json() == {"shelf": "x y", "limit": "5", "every": "True"}
    answer = await client.delete("/api/things/x")
    assert (answer.status_code, answer.content) == (204, b"")


@pytest.mark.parametrize(
    ("body", "place", "words"),
    [
        (b'{"size": "4"}', "$.size", "expected `int`, got `str`"),
        (b'{"size": 4, "names": ["a", 5]}', "$.names[1]", "expected `str`"),
        (b'{"size": 4, "colour": "red"}', "", "unknown field `colour`"),
        (b"{}", "", "required field `size`"),
        (b"{", "", "is not JSON"),
        (b'{"size": 4, "names": ["\xff"]}', "", "is not JSON"),
    ],
)
async def test_a_bad_body_is_refused_with_its_place(
    client: httpx2.AsyncClient, body: bytes, place: str, words: str
) -> None:
    answer = await client.post("/api/things/3", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json().get("place", "") == place
    assert words in answer.json()["title"]
    assert answer.json()["type"] == "bad-input"


async def test_a_bad_path_or_query_is_refused(client: httpx2.AsyncClient) -> None:
    assert (await client.post("/api/things/three", json={"size": 1})).status_code == 400
    assert (await client.get("/api/things/3?limit=many")).json()["place"] == "$.limit"
    assert "unknown field `colour`" in (await client.get("/api/things/3?colour=red")).json()["title"]
    assert (await client.get("/api/things/3?limit=1&limit=2")).json()["place"] == "limit"
    assert (await client.delete("/api/things/3?force=1")).json()["place"] == "force"


@pytest.mark.parametrize(
    ("headers", "version"),
    [({}, 0), ({"If-Match": "*"}, 0), ({"If-Match": ' "7" '}, 7), ({"If-Match": '"7"'}, 7)],
)
async def test_versions_travel_as_entity_tags(
    client: httpx2.AsyncClient, headers: dict[str, str], version: int
) -> None:
    answer = await client.put("/api/versioned", headers=headers)
    assert (answer.json(), answer.headers["etag"]) == ({"version": version}, f'"{version}"')
    assert "etag" not in (await client.get("/api/things/x")).headers


@pytest.mark.parametrize("header", ["7", 'W/"7"', '"7", "8"', '"7', '"7"x', '"a b"', "", '"7"*'])
async def test_what_is_not_one_strong_entity_tag_is_refused(client: httpx2.AsyncClient, header: str) -> None:
    answer = await client.put("/api/versioned", headers={"If-Match": header})
    assert (answer.status_code, answer.json()["place"]) == (400, "If-Match")
    assert answer.json()["cure"]


async def test_a_body_must_be_declared_and_short(client: httpx2.AsyncClient) -> None:
    answer = await client.post(
        "/api/things/3", content=b'{"size": 4}', headers={"Content-Type": "text/plain"}
    )
    assert answer.status_code == 415
    long = b'{"size": 4' + b" " * asgi.DEFAULT_BODY_LIMIT + b"}"
    headers = {"Content-Type": "application/json"}
    assert (await client.post("/api/things/3", content=long, headers=headers)).status_code == 413

    async def pieces() -> AsyncIterator[bytes]:  # chunked: no length is announced
        yield long[:-1]
        yield long[-1:]

    assert (await client.post("/api/things/3", content=pieces(), headers=headers)).status_code == 413


async def test_what_is_not_there_is_a_problem_too(client: httpx2.AsyncClient) -> None:
    answer = await client.put("/api/things/3", json={})
    assert (answer.status_code, answer.headers["allow"]) == (405, "DELETE, GET, POST")
    answer = await client.get("/api/nothing")
    assert (answer.status_code, answer.json()["type"]) == (404, "not-found")


async def test_errors_show_their_public_half_only(client: httpx2.AsyncClient) -> None:
    answer = await client.delete("/api/things/full")
    assert answer.json() == {
        "type": "conflict",
        "title": "the shelf is full",
        "status": 409,
        "cure": "Empty it.",
        "request": answer.headers["x-request-id"],
    }
    assert re.fullmatch("[0-9a-f]{12}", answer.headers["x-request-id"])
    again = await client.delete("/api/things/full")
    assert again.headers["x-request-id"] != answer.headers["x-request-id"]
    answer = await client.delete("/api/things/broken")
    assert answer.status_code == 500
    assert f"reference {answer.headers['x-request-id']}" in answer.json()["title"]
    assert "inner" not in answer.text
    answer = await client.delete("/api/things/x", headers={"X-Who": ""})
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer realm="doorward"')


async def test_every_answer_has_the_number_of_its_request_and_the_log_has_it_too() -> None:
    seen: list[object] = []

    async def page(request: Request) -> HTMLResponse:
        seen.append(ORIGIN.get())
        return HTMLResponse("x", headers={"X-Request-Id": "mine"} if request.query_params else None)

    async def noting(request: Request, needed: Operation) -> str:
        seen.append(ORIGIN.get())
        return await enter(request, needed)

    routes = asgi.routes([drop_things], prefix="/api", enter=noting)
    app = NumberRequests(Starlette(routes=[Route("/page", page), *routes]))
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app, client=("192.0.2.7", 1)), base_url="http://a.test"
    ) as client:
        answers = [await client.get("/page"), await client.delete("/api/things/full")]
        assert (await client.get("/page?own=1")).headers["x-request-id"] == "mine"
    assert seen[:2] == [Origin("192.0.2.7", answer.headers["x-request-id"]) for answer in answers]
    assert answers[1].json()["request"] == answers[1].headers["x-request-id"]
    assert ORIGIN.get() is None


async def test_an_asker_who_leaves_mid_body_gets_no_answer() -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/things/3",
        "root_path": "",
        "query_string": b"",
        "headers": [(b"x-who", b"ann"), (b"content-type", b"application/json")],
    }
    await APP(scope, receive, send)
    assert sent == []


def test_path_and_annotations_must_agree() -> None:
    async def wrong(call: str, shelve: str) -> None:
        """Take a wrong name."""

    with pytest.raises(TypeError, match="shelf"):
        operation("GET", "/things/{shelf}")(wrong)


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", {"sec-fetch-site": "cross-site"}),
        ("POST", {}),
        ("POST", {"sec-fetch-site": "same-origin", "origin": "https://door.test"}),
        ("POST", {"sec-fetch-site": "none"}),
        ("POST", {"origin": "https://Door.test:8443", "host": "door.test:8443"}),
        ("POST", {"origin": "https://good.test", "sec-fetch-site": "cross-site"}),
    ],
)
def test_writes_of_our_own_pages_and_of_programs_pass(method: str, headers: dict[str, str]) -> None:
    refuse_cross_origin(method, headers, trusted=["https://good.test"])


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "origin": "https://other.door.test"},
        {"sec-fetch-site": "nonsense"},
        {"origin": "https://evil.test", "host": "door.test"},
        {"origin": "null", "host": "door.test"},
        {"origin": "https://door.test.evil.test", "host": "door.test"},
        {"origin": "https://door.test:1", "host": "door.test"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site", "origin": "https://door.test", "host": "door.test"},
    ],
)
def test_writes_from_elsewhere_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(NotPermitted):
        refuse_cross_origin("POST", headers)


CONSOLE = "https://console.test"


@pytest.fixture
async def crossed() -> AsyncIterator[httpx2.AsyncClient]:
    """An API whose versioned part may be used from another origin."""
    app = Starlette(
        routes=asgi.routes(
            [add_thing, list_things, drop_things, change_versioned],
            prefix="/api",
            enter=enter,
            crossing=lambda needed: [CONSOLE] if needed.path == "/versioned" else (),
        )
    )
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app), base_url="http://door.test", headers={"X-Who": "ann"}
    ) as made:
        yield made


async def test_a_page_of_a_named_origin_may_ask_and_read(crossed: httpx2.AsyncClient) -> None:
    asked = {"Origin": CONSOLE, "Access-Control-Request-Method": "PUT"}
    leave = await crossed.options("/api/versioned", headers=asked)
    assert leave.status_code == 204
    assert leave.headers["access-control-allow-methods"] == "PUT"
    assert "content-type" in leave.headers["access-control-allow-headers"]
    answer = await crossed.put("/api/versioned", headers={"Origin": CONSOLE, "Sec-Fetch-Site": "same-site"})
    assert answer.status_code == 200
    refused = await crossed.put("/api/versioned", headers={"Origin": CONSOLE, "X-Who": ""})
    assert refused.status_code == 401
    for one in (leave, answer, refused):  # a refusal is to be read as well
        assert one.headers["access-control-allow-origin"] == CONSOLE
        assert one.headers["access-control-allow-credentials"] == "true"
        assert one.headers["vary"] == "Origin"


@pytest.mark.parametrize(
    "origin", ["https://evil.test", "null", "", "*", "http://console.test", f"{CONSOLE}:443"]
)
async def test_no_other_page_may(crossed: httpx2.AsyncClient, origin: str) -> None:
    asked = {"Origin": origin, "Access-Control-Request-Method": "PUT"}
    leave = await crossed.options("/api/versioned", headers=asked)
    assert leave.status_code == 405
    answer = await crossed.put("/api/versioned", headers={"Origin": origin, "Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403
    for one in (leave, answer):
        assert "access-control-allow-origin" not in one.headers
        assert one.headers["vary"] == "Origin"  # a cache must not give it to somebody else


async def test_what_is_not_meant_to_be_crossed_is_not(crossed: httpx2.AsyncClient) -> None:
    asked = {"Origin": CONSOLE, "Access-Control-Request-Method": "DELETE"}
    for answer in (
        await crossed.options("/api/things/x", headers=asked),
        await crossed.options("/api/versioned", headers=asked),
        await crossed.delete("/api/things/x", headers={"Origin": CONSOLE, "Sec-Fetch-Site": "same-site"}),
    ):
        assert answer.status_code in {403, 405}
        assert "access-control-allow-methods" not in answer.headers
    answer = await crossed.get("/api/things/x?limit=5", headers={"Origin": CONSOLE})
    assert "access-control-allow-origin" not in answer.headers


async def test_a_cross_origin_write_never_reaches_the_handler(client: httpx2.AsyncClient) -> None:
    answer = await client.delete("/api/things/x", headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403


class MovedClock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)

    def monotonic(self) -> float:
        return self.seconds


def test_a_bucket_empties_and_fills() -> None:
    clock = MovedClock()
    limit = RateLimit(rate=2, burst=3, clock=clock)
    for _ in range(3):
        limit.take("a")
    with pytest.raises(RateExceeded) as caught:
        limit.take("a")
    assert caught.value.retry_after == 1
    limit.take("b")  # its own bucket
    clock.seconds += 0.5
    limit.check("a")
    limit.take("a")
    with pytest.raises(RateExceeded):
        limit.take("a")
    assert asgi.problem(caught.value).headers["retry-after"] == "1"


@given(st.lists(st.floats(min_value=0, max_value=5), max_size=60))
def test_never_more_than_burst_and_rate_allow(pauses: list[float]) -> None:
    clock = MovedClock()
    limit = RateLimit(rate=3, burst=4, clock=clock)
    taken = 0
    for pause in pauses:
        clock.seconds += pause
        try:
            limit.take("a")
        except RateExceeded:
            continue
        taken += 1
    assert taken <= 4 + 3 * clock.seconds + 1e-6


def test_buckets_are_bounded_and_the_idle_go_first() -> None:
    limit = RateLimit(rate=1, burst=1, clock=MovedClock(), keys=2)
    for key in "abc":
        limit.take(key)
    limit.take("a")  # forgotten, so full again
    with pytest.raises(RateExceeded):
        limit.take("c")


async def test_identity_headers_from_outside_are_stripped() -> None:
    async def echo(request: Request) -> JSONResponse:
        return JSONResponse(sorted(request.headers))

    app = StripIdentityHeaders(Starlette(routes=[Route("/", echo)]))
    claims = [name + ("login" if name.endswith("-") else "") for name in IDENTITY_HEADERS]
    given_headers = {
        **dict.fromkeys(claims, "owner"),
        "Tailscale_User_Login": "owner",
        "X-Tailscale-Handshake": "kept",
        "Authorization": "Bearer kept",
        "X-Forwarded-For": "192.0.2.1",
    }
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://door.test") as client:
        left = (await client.get("/", headers=given_headers)).json()
    assert set(left) >= {"authorization", "x-tailscale-handshake", "x-forwarded-for", "host"}
    assert not [name for name in left if is_identity_header(name.encode())]


async def test_pages_carry_the_security_headers_and_keep_their_own() -> None:
    async def page(request: Request) -> HTMLResponse:
        return HTMLResponse("hello", headers={"Referrer-Policy": "same-origin"})

    async def data(request: Request) -> JSONResponse:
        return JSONResponse([])

    app = SecurityHeaders(Starlette(routes=[Route("/", page), Route("/data", data)]))
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://door.test") as client:
        headers = (await client.get("/")).headers
        plain = (await client.get("/data")).headers
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert (headers["x-frame-options"], headers["referrer-policy"]) == ("DENY", "same-origin")
    assert "content-security-policy" not in plain
    assert plain["x-content-type-options"] == "nosniff"


async def test_other_scopes_pass_the_middleware_untouched() -> None:
    seen: list[str] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    async def nothing(*_: object) -> Message:
        return {}

    await SecurityHeaders(StripIdentityHeaders(inner))({"type": "lifespan"}, nothing, nothing)  # type: ignore[arg-type]
    assert seen == ["lifespan"]


def test_every_problem_has_type_title_and_status() -> None:
    def every(kind: type[DoorwardError]) -> set[type[DoorwardError]]:
        return {kind}.union(*(every(child) for child in kind.__subclasses__()))

    for kind in every(DoorwardError):
        assert kind.problem
        assert 400 <= kind.status < 600, kind


async def test_routes_with_a_table_answer_as_without() -> None:
    def says(text: str) -> Callable[[Request], Awaitable[Response]]:
        async def answer(_: Request) -> Response:
            return PlainTextResponse(text)

        return answer

    routes = [
        Route("/one", says("one"), methods=["GET"]),
        Route("/one", says("one, posted"), methods=["POST"]),
        Route("/taken/{rest:path}", says("all of it")),
        Route("/taken/by", says("never")),
        Mount("/below", routes=[Route("/here", says("below"))]),
        Route("/slash/", says("slash")),
        Route("/named/{name}", says("any")),
    ]
    asked = [
        *(
            ("GET", path)
            for path in ("/one", "/taken/by", "/taken", "/below/here", "/slash", "/slash/", "/named/x", "/x")
        ),
        *((method, "/one") for method in ("POST", "PUT", "HEAD")),
    ]
    plain, table = Starlette(routes=routes), Starlette()
    table.router = ByPath(routes)
    told = []
    for app in (plain, table):
        async with httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=app), base_url="http://localhost"
        ) as client:
            answers = [await client.request(method, path) for method, path in asked]
        told.append(
            [
                (one.status_code, one.text, one.headers.get("location", "").removeprefix("http://localhost"))
                for one in answers
            ]
        )
    assert told[0] == told[1]
    assert [one[1] for one in told[1]][:2] == ["one", "all of it"]
    assert [one[0] for one in told[1]][4] == 307


@pytest.mark.parametrize(
    ("path", "status", "location"),
    [
        ("/one/?a=b%26c", 307, "/one?a=b%26c"),
        ("/one//", 307, "/one"),
        ("/named/x%20%3Fy/", 307, "/named/x%20%3Fy"),
        ("/slash", 307, "/slash/"),
        ("//one/", 404, ""),
        ("//evil.example/", 404, ""),
        ("/other/", 404, ""),
    ],
)
async def test_a_slash_too_many_leads_on_by_the_path_alone(path: str, status: int, location: str) -> None:
    async def says(_: Request) -> Response:
        return PlainTextResponse("here")

    router = ByPath([Route("/one", says), Route("/slash/", says), Route("/named/{name}", says)])
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=router), base_url="http://localhost"
    ) as client:
        answer = await client.get(f"http://localhost{path}")
    assert (answer.status_code, answer.headers.get("location", "")) == (status, location)
