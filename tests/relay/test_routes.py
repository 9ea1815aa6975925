"""The relay's plain HTTP: probes, the captive-portal check, and what other relays ask."""

from collections.abc import Iterator

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient
from tests.support.relay import node_key

from doorward.protocol.keys import NodePublic
from doorward.relay.routes import MAX_VERIFY_BODY, relay_routes

ALICE, BOB = node_key(1).public(), node_key(2).public()


async def admit(key: NodePublic, source: str) -> bool:
    return key == ALICE and source == "192.0.2.7"


@pytest.fixture
def http() -> Iterator[TestClient]:
    with TestClient(Starlette(routes=relay_routes(admit))) as client:
        yield client


@pytest.mark.parametrize("path", ["/derp/probe", "/derp/latency-check"])
def test_any_page_may_probe(http: TestClient, path: str) -> None:
    for method in ("GET", "HEAD"):
        answer = http.request(method, path)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "*"
    assert http.post(path).status_code == 405


def test_derp_needs_an_upgrade(http: TestClient) -> None:
    answer = http.get("/derp")
    assert answer.status_code == 426
    assert answer.headers["upgrade"] == "DERP"


@pytest.mark.parametrize(
    ("challenge", "response"),
    [
        ("ts_relay.example.com", "response ts_relay.example.com"),
        ("a" * 64, "response " + "a" * 64),
        ("a" * 65, None),
        ("<script>", None),
        ("", None),
    ],
)
def test_generate_204_proves_that_it_is_us(http: TestClient, challenge: str, response: str | None) -> None:
    answer = http.get("/generate_204", headers={"X-Tailscale-Challenge": challenge})
    assert answer.status_code == 204
    assert answer.content == b""
    assert answer.headers["cache-control"].startswith("no-cache, no-store")
    assert answer.headers.get("x-tailscale-response") == response


def test_robots_stay_out(http: TestClient) -> None:
    assert "Disallow: /" in http.get("/robots.txt").text


def test_verify_answers_for_the_node_table(http: TestClient) -> None:
    for key, source, allowed in (
        (ALICE, "192.0.2.7", True),
        (ALICE, "192.0.2.8", False),
        (BOB, "192.0.2.7", False),
    ):
        answer = http.post("/verify", json={"NodePublic": str(key), "Source": source})
        assert answer.status_code == 200
        assert answer.json() == {"Allow": allowed}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b"{}", 400),
        (b'{"NodePublic":"\xff"}', 400),
        (b'{"NodePublic":"mkey:' + b"0" * 64 + b'"}', 400),
        (b'{"NodePublic":"nodekey:12"}', 400),
        (b" " * (MAX_VERIFY_BODY + 1), 413),
    ],
)
def test_verify_refuses_what_it_cannot_read(http: TestClient, body: bytes, status: int) -> None:
    assert http.post("/verify", content=body).status_code == status
    assert http.get("/verify").status_code == 405
