"""What the service answers outside Noise, and how it refuses inside."""

import httpx2
import msgspec
import pytest
from tests.support.served_control import SERVER_KEY, Served, machine, node
from tests.support.world import CAPVER

from doorward.engine.controlconn import fetch_server_key
from doorward.errors import TooMany
from doorward.protocol.tailcfg.map import MapRequest


async def test_the_key(served: Served) -> None:
    assert await fetch_server_key(served.url) == SERVER_KEY.public()
    async with httpx2.AsyncClient(base_url=served.url, trust_env=False) as client:
        for path in ("/key", "/key?v=142", "/key?v=x"):
            answer = await client.get(path)
            assert answer.status_code == 200
            assert answer.headers["access-control-allow-origin"] == "*"
            assert answer.json() == {
                "publicKey": str(SERVER_KEY.public()),
                "legacyPublicKey": "mkey:" + "0" * 64,
            }
        assert (await client.post("/key")).status_code == 405


@pytest.mark.parametrize(
    "path", ["/machine/register", "/machine/map", "/machine/whoami", "/machine/answer/x"]
)
async def test_nothing_of_the_inside_is_outside(served: Served, path: str) -> None:
    async with httpx2.AsyncClient(base_url=served.url, trust_env=False) as client:
        assert (await client.post(path, content=b"{}")).status_code == 404
        assert (await client.get(path)).status_code == 404


async def test_the_machine_key_is_the_one_that_noise_has_proven(served: Served) -> None:
    for number in (1, 2):
        status, text, _ = await (await served.link(number)).ask("/machine/whoami", method="GET")
        assert (status, text) == (200, f"{machine(number).public()}\n".encode())


async def test_one_machine_may_have_several_connections(served: Served) -> None:
    first, second = await served.link(1), await served.link(1)
    await first.join(1)
    assert await second.report(1) == (200, b"")
    first.h2.close()
    assert await second.report(1) == (200, b"")


async def test_a_mistake_of_ours_says_nothing_of_itself(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = await served.link(1)
    await link.join(1)

    async def fail(*_: object) -> None:
        raise RuntimeError("a secret")

    with monkeypatch.context() as patch:
        patch.setattr(served.world.registry.observations, "report", fail)
        status, text = await link.report(1)
        assert (status, b"secret" in text) == (500, False)
        assert b"log" in text
    assert await link.report(1) == (200, b"")


async def test_who_comes_too_often_is_told_when_to_come_again(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = await served.link(1)
    await link.join(1)

    async def full(*_: object) -> None:
        raise TooMany("too many changes wait", cure="Try again in a moment.")

    monkeypatch.setattr(served.world.registry.observations, "report", full)
    body = MapRequest(Version=CAPVER, NodeKey=node(1).public(), OmitPeers=True)
    status, text, response = await link.ask("/machine/map", body)
    assert (status, text) == (429, b"too many changes wait. Try again in a moment.\n")
    assert response.get("retry-after") == "5"


async def test_many_requests_at_once_on_one_connection(served: Served) -> None:
    link = await served.link(1)
    await link.join(1)
    streams = [await link.stream(1) for _ in range(5)]
    assert (await streams[-1].next())["Node"]["ID"] == 1
    for number in range(50):
        assert await link.report(1, Endpoints=[f"192.0.2.1:{number + 1}"]) == (200, b"")
    for stream in streams[:-1]:
        assert len(await stream.ended()) <= 1
    assert msgspec.json.encode(await streams[-1].next())
