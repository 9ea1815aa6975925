"""The hardened HTTP client, against servers on loopback that do what servers should not."""

import socket
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from tests.support.certificates import tls_contexts
from tests.support.website import HOST, ok, redirect, web

from doorward.errors import BadInput, NotPermitted, RemoteProtocolError, Unavailable
from doorward.transport import fetch
from doorward.transport.fetch import Address, Fetcher, is_public, resolve


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def local(**arguments: Any) -> Fetcher:
    return Fetcher(allow_private=True, **arguments)


async def test_a_body_up_to_its_limit() -> None:
    async with web(lambda *_: ok(b"12345")) as site, local() as fetcher:
        assert await fetcher.get(site.url("/a?b=1"), limit=5) == b"12345"
        line, headers, _ = site.seen[0]
        assert line == "GET /a?b=1 HTTP/1.1"
        assert headers["host"] == f"{HOST}:{site.port}"
        assert headers["accept-encoding"] == "identity"
        with pytest.raises(RemoteProtocolError, match="more than 4 bytes"):
            await fetcher.get(site.url(), limit=4)


async def test_a_body_without_a_length_stops_at_the_limit_too() -> None:
    endless = b"HTTP/1.1 200 OK\r\n\r\n" + bytes(1 << 20)
    async with web(lambda *_: endless) as site, local() as fetcher:
        with pytest.raises(RemoteProtocolError, match="more than 1000 bytes"):
            await fetcher.get(site.url(), limit=1000)


async def test_a_post_carries_its_body_and_follows_nothing() -> None:
    async with web(lambda *_: redirect("/elsewhere")) as site, local() as fetcher:
        answer = await fetcher.request("POST", site.url(), limit=10, body=b"hi", headers={"x-a": "1"})
        assert (answer.status, answer.headers["location"]) == (302, "/elsewhere")
        assert site.seen[0][2] == b"hi"
        assert site.seen[0][1]["x-a"] == "1"
        assert len(site.seen) == 1


async def test_a_status_other_than_200_is_no_body() -> None:
    async with web(lambda *_: b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n") as site, local() as fetcher:
        with pytest.raises(RemoteProtocolError, match="status 404"):
            await fetcher.get(site.url(), limit=10)


async def test_compressed_bodies_are_refused() -> None:
    async with web(lambda *_: ok(b"x", "content-encoding: gzip")) as site, local() as fetcher:
        with pytest.raises(RemoteProtocolError, match="gzip"):
            await fetcher.get(site.url(), limit=10)


async def test_redirects_are_followed_so_many_times() -> None:
    def reply(path: str, _: dict[str, str]) -> bytes:
        count = int(path[1:])
        return redirect(f"/{count - 1}") if count else ok(b"there")

    async with web(reply) as site, local(redirects=2) as fetcher:
        assert await fetcher.get(site.url("/2"), limit=10) == b"there"
        with pytest.raises(RemoteProtocolError, match="more than 2 times"):
            await fetcher.get(site.url("/3"), limit=10)


@pytest.mark.parametrize(
    "location",
    ["https://x/", "ftp://x/", "file:///etc/passwd", "http://user:word@x/", "http://[", "//", ":x"],
)
async def test_a_redirect_elsewhere_than_http_is_not_followed(location: str) -> None:
    async with web(lambda *_: redirect(location)) as site, local() as fetcher:
        with pytest.raises(RemoteProtocolError, match="redirects"):
            await fetcher.get(site.url(), limit=10)


async def test_headers_go_only_to_the_origin_they_were_meant_for() -> None:
    async with web(lambda *_: ok(b"end")) as other:
        async with (
            web(lambda path, _: redirect("/2" if path == "/1" else other.url())) as site,
            local() as fetcher,
        ):
            assert await fetcher.get(site.url("/1"), limit=10, headers={"authorization": "secret"}) == b"end"
        assert [headers.get("authorization") for _, headers, _ in site.seen] == ["secret", "secret"]
        assert "authorization" not in other.seen[0][1]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://localhost/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://[::1]/",
        "http://[::ffff:10.0.0.1]/",
        "http://169.254.169.254/latest/meta-data",
        "http://100.64.0.1/",
        "http://0.0.0.0/",
    ],
)
async def test_a_private_address_in_any_spelling_is_refused(url: str) -> None:
    async with Fetcher() as fetcher:
        with pytest.raises(NotPermitted):
            await fetcher.get(url, limit=10)


async def test_a_public_name_may_not_redirect_to_a_private_address(monkeypatch: pytest.MonkeyPatch) -> None:
    # The loopback server plays the public one.
    monkeypatch.setattr(fetch, "is_public", lambda address: address == ip_address(HOST))
    asked: list[str] = []

    async def answer(host: str, port: int) -> list[Address]:
        asked.append(host)
        return [ip_address(HOST if host == "public.test" else "10.0.0.1")]

    async with web(lambda *_: redirect("http://internal.test/")) as site, Fetcher(resolve=answer) as fetcher:
        with pytest.raises(NotPermitted, match=r"internal\.test"):
            await fetcher.get(site.url(host="public.test"), limit=10)
    assert asked == ["public.test", "internal.test"]


async def test_the_connection_goes_to_the_address_that_was_checked() -> None:
    calls = 0

    async def rebinding(host: str, port: int) -> list[Address]:
        nonlocal calls
        calls += 1
        return [ip_address(HOST)] if calls == 1 else [ip_address("192.0.2.1")]

    async with web(lambda *_: ok(b"x")) as site, local(resolve=rebinding) as fetcher:
        assert await fetcher.get(site.url(host="rebind.test"), limit=10) == b"x"
        assert site.seen[0][1]["host"] == f"rebind.test:{site.port}"
    assert calls == 1


async def test_the_next_address_is_tried_when_one_refuses() -> None:
    async def two(host: str, port: int) -> list[Address]:
        return [ip_address("127.0.0.2"), ip_address(HOST)]

    async with web(lambda *_: ok(b"x")) as site, local(resolve=two) as fetcher:
        assert await fetcher.get(site.url(host="two.test"), limit=10) == b"x"


async def test_https_verifies_the_name_and_not_the_address() -> None:
    server, client = tls_contexts()

    async def answer(host: str, port: int) -> list[Address]:
        return [ip_address(HOST)]

    async with web(lambda *_: ok(b"x"), tls=server) as site:
        async with local(resolve=answer, ssl_context=client) as fetcher:
            assert await fetcher.get(site.url(host="localhost", scheme="https"), limit=10) == b"x"
            # The same address again, under a name that the certificate does not hold.
            with pytest.raises(Unavailable, match=r"(?i)certificate"):
                await fetcher.get(site.url(host="other.test", scheme="https"), limit=10)
        async with local(resolve=answer) as fetcher:
            with pytest.raises(Unavailable, match=r"(?i)certificate"):
                await fetcher.get(site.url(host="localhost", scheme="https"), limit=10)


@pytest.mark.parametrize(
    "said", [None, b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort"]
)
async def test_no_whole_answer_is_unavailable(said: bytes | None) -> None:
    async with web(lambda *_: said) as site, local(seconds=0.2) as fetcher:
        with pytest.raises(Unavailable):
            await fetcher.get(site.url(), limit=100)


async def test_nobody_there_is_unavailable() -> None:
    with socket.socket() as held:
        held.bind((HOST, 0))  # bound and not listening: refuses
        async with local() as fetcher:
            with pytest.raises(Unavailable, match="cannot be reached"):
                await fetcher.get(f"http://{HOST}:{held.getsockname()[1]}/", limit=10)

    async def none(host: str, port: int) -> list[Address]:
        raise OSError("no such name")

    async with local(resolve=none) as fetcher:
        with pytest.raises(Unavailable, match="has no address"):
            await fetcher.get("http://none.test/", limit=10)


@pytest.mark.parametrize(
    "url",
    ["", "x", "ftp://x/", "file:///etc/passwd", "http://", "http://user:word@x/", "http://[", "http://x:y/"],
)
async def test_what_is_no_address_is_bad_input_and_shows_no_password(url: str) -> None:
    async with Fetcher() as fetcher:
        with pytest.raises(BadInput) as caught:
            await fetcher.get(url, limit=10)
    assert "word@" not in caught.value.sentence()


async def test_a_unix_socket_is_asked_whatever_the_host(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with web(lambda *_: ok(b"x"), unix=path) as site, Fetcher(unix_socket=path) as fetcher:
        assert await fetcher.get("http://doorward/api", limit=10) == b"x"
        assert site.seen[0][1]["host"] == "doorward"


async def test_the_environments_proxy_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://192.0.2.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://192.0.2.1:1")
    async with web(lambda *_: ok(b"x")) as site, local() as fetcher:
        assert await fetcher.get(site.url(), limit=10) == b"x"


async def test_addresses_besides_the_open_ones_go_with_their_host() -> None:
    async def everything(host: str, port: int) -> list[Address]:
        return [ip_address(HOST)]

    seen: list[tuple[str, Address]] = []

    def also(host: str, address: Address) -> bool:
        seen.append((host, address))
        return host == "wiki.test"

    async with web(lambda *_: ok(b"x")) as site, Fetcher(also=also, resolve=everything) as fetcher:
        assert await fetcher.get(site.url(host="wiki.test"), limit=10) == b"x"
        with pytest.raises(NotPermitted):
            await fetcher.get(site.url(host="other.test"), limit=10)
    assert seen == [("wiki.test", ip_address(HOST)), ("other.test", ip_address(HOST))]


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("fec0::1", False),  # site-local, which no list of ranges has any more
        ("::7f00:1", False),  # IPv4-compatible
        ("4000::1", False),  # given to nobody
        ("1.1.1.1", True),
        ("2606:4700::1111", True),
        ("10.1.2.3", False),
        ("100.127.255.255", False),
        ("224.0.0.1", False),
        ("fe80::1", False),
        ("fd7a:115c:a1e0::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:1.1.1.1", True),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::101:101", True),
        ("2002:7f00:1::", False),
        ("2001:0:0:0:0:0:80ff:fffe", False),
    ],
)
def test_what_is_of_the_open_internet(address: str, public: bool) -> None:
    assert is_public(ip_address(address)) is public


async def test_the_system_resolves_localhost() -> None:
    assert ip_address(HOST) in await resolve("localhost", 80)
