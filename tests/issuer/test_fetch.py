"""What the issuer asks of others, and all that it must not be talked into asking."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from tests.support.certificates import tls_contexts
from tests.support.office import Office
from tests.support.waiting import until
from tests.support.website import HOST, Reply, Web, ok, redirect, web

from doorward.asgi import RateExceeded
from doorward.errors import BadInput, DoorwardError, NotPermitted, RemoteProtocolError, Unavailable
from doorward.issuer.fetch import AGAIN, MOST, Fetch, Reach, Rules, check_address, trusting
from doorward.transport import fetch as transport
from doorward.transport.fetch import Address, Answer, Fetcher

JSON = "content-type: application/json"


def read(body: bytes) -> Any:
    """JSON, or an error of ours."""
    try:
        return json.loads(body)
    except ValueError:
        raise RemoteProtocolError("no JSON") from None


class Wire(Fetcher):
    """A network whose answers are written down beforehand, the last of them for good."""

    def __init__(self, *answers: Answer | DoorwardError) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str, dict[str, str], bytes | None]] = []

    async def close(self) -> None:
        pass

    async def request(
        self, method: str, url: str, *, limit: int, headers: Any = None, body: bytes | None = None
    ) -> Answer:
        self.asked.append((method, url, dict(headers), body))
        await asyncio.sleep(0)
        said = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(said, DoorwardError):
            raise said
        return said


def answer(body: bytes, status: int = 200, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, {"content-type": "application/json"} | named, body)


URL = "https://app.example.com/client.json"


@pytest.fixture
def fetch(office: Office) -> Callable[[Wire], Fetch]:
    return lambda wire: Fetch(office.registry, office.world.clock, open_fetcher=lambda _: wire)


# Where it goes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://app.example.com/",
        "ftp://app.example.com/",
        "file:///etc/passwd",
        "//app.example.com/",
        "https://",
        "https:///path",
        "https://ann@app.example.com/",
        "https://ann:word@app.example.com/",
        "https://@app.example.com/",
        "https://app.example.com/#part",
        "https://app.example.com/#",
        "https://app.example.com:x/",
        "https://app.example.com:70000/",
        "https://[::1/",
        "https://app.example.com\\@127.0.0.1/",
        "https://app.example.com/\n",
        "https://app.example.com/a b",
        "https://äpp.example.com/",
        "https://app.example.com/" + "a" * 2000,
    ],
)
async def test_what_is_no_plain_https_address_is_never_asked(fetch: Any, url: str) -> None:
    wire = Wire(answer(b"{}"))
    for reach in Reach:
        with pytest.raises(BadInput):
            await fetch(wire).get(url, read, limit=100, reach=reach)
        with pytest.raises(BadInput):
            await fetch(wire).post(url, {}, reach=reach)
    assert wire.asked == []


def test_a_host_is_told_in_lower_case() -> None:
    assert check_address("https://App.Example.COM:8443/x?y=z") == "app.example.com"


@pytest.mark.parametrize("reach", list(Reach))
@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "localhost", "0.0.0.0", "[::]"),
        *("[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]"),
        *("[2002:7f00:1::]", "10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "[fe80::1]"),
        *("100.100.100.100", "100.64.0.1", "[fd7a:115c:a1e0::53]", "[fec0::1]", "198.18.0.1", "224.0.0.1"),
    ],
)
async def test_no_special_address_in_any_spelling(office: Office, host: str, reach: Reach) -> None:
    """The real fetcher, before it connects anywhere."""
    await office.person("ann")  # whose device has such an address, and yet it is not by its name
    asks = Fetch(office.registry, office.world.clock)
    with pytest.raises((NotPermitted, BadInput)):  # a spelling that no client takes is as good
        await asks.get(f"https://{host}/", read, limit=100, reach=reach)
    with pytest.raises((NotPermitted, BadInput)):
        await asks.post(f"https://{host}/", {"logout_token": "x"}, reach=reach)


@asynccontextmanager
async def site(
    office: Office, reply: Reply, addresses: Callable[[str], list[str]], **settings: Any
) -> AsyncIterator[tuple[Fetch, Web]]:
    """A real server with a certificate for ``localhost``, and the real fetcher, whose name server is the test's."""
    server, client = tls_contexts()

    async def resolve(host: str, port: int) -> list[Address]:
        return [ip_address(one) for one in addresses(host)]

    async with web(reply, tls=server) as there:
        yield (
            Fetch(
                office.registry,
                office.world.clock,
                open_fetcher=trusting(client),
                resolve=resolve,
                **settings,
            ),
            there,
        )


LOOPBACK = (ip_network("127.0.0.0/8"),)


async def test_a_network_of_the_settings_is_for_an_administrators_word_alone(office: Office) -> None:
    async with site(office, lambda *_: ok(b'{"a": 1}', JSON), lambda _: [HOST], networks=LOOPBACK) as (
        asks,
        there,
    ):
        url = there.url("/x", "localhost", "https")
        assert await asks.get(url, read, limit=100, reach=Reach.GIVEN) == {"a": 1}
        with pytest.raises(NotPermitted):  # and what was read for one is not told to the other
            await asks.get(url, read, limit=100)
        with pytest.raises(NotPermitted):
            await asks.post(url, {})
        said = await asks.post(url, {"logout_token": "a b"}, reach=Reach.GIVEN)
        assert said.status == 200
    line, headers, body = there.seen[1]
    assert (line, body) == ("POST /x HTTP/1.1", b"logout_token=a+b")
    assert headers["host"] == f"localhost:{there.port}"
    assert len(there.seen) == 2


async def test_a_name_that_changes_its_address_leads_where_it_was_checked(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: good at the first look, inside at the second."""
    monkeypatch.setattr(transport, "is_public", lambda address: address == ip_address(HOST))
    answers = iter([[HOST], ["10.0.0.1"], ["10.0.0.1"]])
    async with site(office, lambda *_: ok(b"{}", JSON), lambda _: next(answers)) as (asks, there):
        url = there.url("/x", "localhost", "https")
        assert await asks.get(url, read, limit=100) == {}
        office.world.clock.advance(90_000)
        with pytest.raises(NotPermitted):
            await asks.get(url, read, limit=100)
    assert len(there.seen) == 1
    assert next(answers) == ["10.0.0.1"]  # once for each question


async def test_redirects_are_not_followed_anywhere(office: Office) -> None:
    async with site(
        office, lambda *_: redirect("https://localhost/elsewhere"), lambda _: [HOST], networks=LOOPBACK
    ) as (asks, there):
        url = there.url("/x", "localhost", "https")
        with pytest.raises(RemoteProtocolError, match="redirects"):
            await asks.get(url, read, limit=100, reach=Reach.GIVEN)
        assert (await asks.post(url, {}, reach=Reach.GIVEN)).status == 302
    assert len(there.seen) == 2


async def test_the_certificate_is_for_the_name_and_not_for_the_address(office: Office) -> None:
    async with site(office, lambda *_: ok(b"{}", JSON), lambda _: [HOST], networks=LOOPBACK) as (asks, there):
        with pytest.raises(Unavailable, match=r"(?i)certificate"):
            await asks.get(there.url("/", "wiki.test", "https"), read, limit=100, reach=Reach.GIVEN)
    assert there.seen == []


async def test_a_huge_answer_and_none_at_all(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    endless = f"HTTP/1.1 200 OK\r\n{JSON}\r\n\r\n".encode() + b" " * (1 << 20)

    def reply(target: str, _: dict[str, str]) -> bytes | None:
        return endless if "huge" in target else None

    async with site(office, reply, lambda _: [HOST], networks=LOOPBACK) as (asks, there):
        with pytest.raises(RemoteProtocolError, match="more than 5120 bytes"):
            await asks.get(there.url("/huge", "localhost", "https"), read, limit=5120, reach=Reach.GIVEN)
        monkeypatch.setattr("doorward.issuer.fetch.SECONDS", 0.2)
        with pytest.raises(Unavailable, match="within"):
            await asks.get(there.url("/slow", "localhost", "https"), read, limit=5120, reach=Reach.GIVEN)


# Inside the tailnet -------------------------------------------------------------------------------------------------


def rules_of(office: Office, reach: Reach) -> Rules:
    return Fetch(office.registry, office.world.clock)._rules(reach)


async def test_a_node_is_asked_by_its_name_at_its_own_address_alone(office: Office) -> None:
    node = await office.person("ann")
    other = await office.person("bob", 2)
    rules = rules_of(office, Reach.GIVEN)
    name = f"{node.name}.tailnet.internal"
    # Whatever a name server says: it is not asked.
    assert await rules.resolve(name, 443) == [*node.addresses]
    assert await rules.resolve(f"{name.upper()}.", 443) == [*node.addresses]
    assert all(rules.also(name, address) for address in node.addresses)
    assert not any(rules.also(name, address) for address in other.addresses)
    for address in ("100.100.100.100", "127.0.0.1", "169.254.1.1", "192.168.1.1", "fd7a:115c:a1e0::53"):
        assert not rules.also(name, ip_address(address))
    for foreign in ("evil.example.com", f"x.{name}", "ann-1", str(node.addresses[0])):
        assert not any(rules.also(foreign, address) for address in node.addresses)
    strangers = rules_of(office, Reach.OPEN)
    assert strangers.resolve is transport.resolve
    assert not any(strangers.also(name, address) for address in node.addresses)


async def test_a_node_that_is_shut_out_or_ours_is_not_asked(office: Office) -> None:
    node = await office.person("ann")
    name = f"{node.name}.tailnet.internal"
    rules = rules_of(office, Reach.GIVEN)
    assert rules.also(name, node.addresses[0])
    await office.registry.suspend_user("cli", "ann", suspended=True)
    assert not rules.also(name, node.addresses[0])


# What is kept -------------------------------------------------------------------------------------------------------


async def test_an_answer_is_kept_as_long_as_its_server_says_within_bounds(office: Office, fetch: Any) -> None:
    clock = office.world.clock
    for said, seconds in (
        ("", 3600),
        ("public, max-age=600", 600),
        ("max-age=1", 60),
        ("max-age=999999999", 86400),
        ("no-store", 60),
        ("no-cache, max-age=600", 60),
        ("s-maxage=5", 3600),
        ("max-age=x", 3600),
    ):
        wire = Wire(answer(b"{}", cache_control=said))
        asks = fetch(wire)
        await asks.get(URL, read, limit=100)
        clock.advance(seconds - 1)
        await asks.get(URL, read, limit=100)
        assert len(wire.asked) == 1, said
        clock.advance(1)
        await asks.get(URL, read, limit=100)
        assert len(wire.asked) == 2, said


async def test_an_etag_saves_the_body(office: Office, fetch: Any) -> None:
    wire = Wire(
        answer(b'{"n": 1}', etag='"v1"'), Answer(304, {"etag": '"v1"'}, b""), answer(b'{"n": 2}', etag='"v2"')
    )
    asks = fetch(wire)
    found = []
    for _ in range(3):
        found.append(await asks.get(URL, read, limit=100))
        office.world.clock.advance(3600)
    assert found == [{"n": 1}, {"n": 1}, {"n": 2}]
    assert [headers.get("if-none-match") for _, _, headers, _ in wire.asked] == [None, '"v1"', '"v1"']


async def test_a_304_that_nobody_asked_for_is_no_answer(fetch: Any) -> None:
    with pytest.raises(RemoteProtocolError, match="304"):
        await fetch(Wire(Answer(304, {}, b""))).get(URL, read, limit=100)


@pytest.mark.parametrize(
    "bad",
    [
        answer(b"{}", 404),
        answer(b"{}", 201),
        answer(b"{}", 301, location="https://app.example.com/new"),
        answer(b"not json"),
        answer(b"{}", content_type="text/html"),
        answer(b"{}", content_type=""),
        answer(b"{}", content_type="text/plain; charset=application/json"),
        Unavailable("app.example.com gave no answer"),
    ],
)
async def test_what_cannot_be_taken_is_not_kept_and_not_asked_for_at_once(
    office: Office, fetch: Any, bad: Answer | DoorwardError
) -> None:
    wire = Wire(bad, answer(b'{"good": 1}'))
    asks = fetch(wire)
    with pytest.raises(DoorwardError):
        await asks.get(URL, read, limit=100)
    with pytest.raises(Unavailable, match="a moment ago"):
        await asks.get(URL, read, limit=100)
    assert len(wire.asked) == 1
    office.world.clock.advance(AGAIN)
    assert await asks.get(URL, read, limit=100) == {"good": 1}


async def test_anew_is_not_without_end_and_keeps_what_was_good(office: Office, fetch: Any) -> None:
    wire = Wire(answer(b"1"), answer(b"2"), answer(b"{}", 500), answer(b"3"))
    asks = fetch(wire)
    assert await asks.get(URL, read, limit=100) == 1
    assert await asks.get(URL, read, limit=100, anew=True) == 1
    office.world.clock.advance(AGAIN)
    assert await asks.get(URL, read, limit=100, anew=True) == 2
    office.world.clock.advance(AGAIN)
    assert await asks.get(URL, read, limit=100, anew=True) == 2  # it answers nonsense now
    assert len(wire.asked) == 3


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "Application/JSON", "application/jwk-set+json"]
)
async def test_json_has_several_names(fetch: Any, kind: str) -> None:
    assert await fetch(Wire(answer(b"{}", content_type=kind))).get(URL, read, limit=100) == {}


async def test_who_comes_meanwhile_waits_for_the_same_answer(fetch: Any) -> None:
    wire = Wire(answer(b"{}"))
    asks = fetch(wire)
    async with asyncio.TaskGroup() as group:
        for _ in range(10):
            group.create_task(asks.get(URL, read, limit=100))
    assert len(wire.asked) == 1


async def test_one_host_is_not_asked_without_end(fetch: Any) -> None:
    wire = Wire(answer(b"{}"))
    asks = fetch(wire)
    for number in range(30):
        await asks.get(f"{URL}?{number}", read, limit=100)
    with pytest.raises(RateExceeded):
        await asks.get(f"{URL}?30", read, limit=100)
    await asks.get("https://other.example.com/", read, limit=100)


async def test_strangers_do_not_take_all_the_room(fetch: Any) -> None:
    class Slow(Wire):
        async def request(self, *args: Any, **kwargs: Any) -> Answer:
            await go.wait()
            return await super().request(*args, **kwargs)

    go = asyncio.Event()
    asks = fetch(Slow(answer(b"{}")))
    async with asyncio.TaskGroup() as group:
        for number in range(16):
            group.create_task(asks.get(f"https://{number}.example.com/", read, limit=100))
        await until(asks._room.locked)
        with pytest.raises(Unavailable, match="too many"):
            await asks.get("https://app.example.com/", read, limit=100)
        named = group.create_task(asks.get("https://wiki.example.com/", read, limit=100, reach=Reach.GIVEN))
        go.set()
    assert named.result() == {}


async def test_what_is_kept_is_bounded(office: Office, fetch: Any) -> None:
    asks = fetch(Wire(answer(b"{}")))
    for number in range(MOST + 10):
        await asks.get(f"https://{number}.example.com/", read, limit=100)
    assert len(asks._kept) == MOST
