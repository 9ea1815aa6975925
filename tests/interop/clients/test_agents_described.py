"""MCP: clients that nobody has made here. They say at an https address what they are, and that is their client id; or they register."""

import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.house import House, ProgramError, open_house
from tests.support.meeting import agent, call, files
from tests.support.programs import require_client
from tests.support.relay import make_leaf
from tests.support.server import Server, free_port
from tests.support.website import Web, ok, web

pytestmark = [
    pytest.mark.interop,
    pytest.mark.heavy,
    pytest.mark.timeout(300),
    pytest.mark.client("mcp", "pypi:interop"),
]

PATH = "/client.json"


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Web]:
    """Where the client's maker says what it is."""
    folder, leaf = tmp_path_factory.mktemp("site"), make_leaf()
    (folder / "cert").write_bytes(leaf.pem)
    (folder / "key").write_bytes(leaf.key_pem)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "cert", folder / "key")

    def reply(_target: str, headers: dict[str, str]) -> bytes:
        said = {
            "client_id": f"https://{headers['host']}{PATH}",
            "client_name": "An agent",
            "redirect_uris": ["http://127.0.0.1/callback"],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
        }
        return ok(json.dumps(said).encode(), "content-type: application/json")

    async with web(reply, tls=tls) as served:
        yield served


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whom to trust for the site."""
    place = tmp_path_factory.mktemp("authority") / "site.pem"
    place.write_bytes(make_leaf().pem)
    return place


@pytest.fixture(scope="module")
async def house(authority: Path) -> AsyncIterator[House]:
    """One that asks the site: its host and its authority are in the settings."""
    require_client()
    environ = {
        "DOORWARD_APPS_NETWORKS": "127.0.0.1",
        "DOORWARD_APPS_AUTHORITY": str(authority),
        "DOORWARD_APPS_DOCUMENT_HOSTS": "localhost",
    }
    async with Server(environ=environ) as server, open_house(server) as opened:
        yield opened


@pytest.mark.proves("click", "pkce", "refresh", "more")
async def test_it_is_asked_about_once_by_what_its_maker_says(house: House, site: Web) -> None:
    name = site.url(PATH, "localhost", "https")
    async with files(house, "files", "--shared") as server, agent(house, "client") as client:
        for press in ("yes", ""):
            back = f"http://127.0.0.1:{free_port()}/callback"
            await client.do("open", url=server.resource, redirect=back, document=name)
            said = json.loads(await call(house, client, "whoami", press=press))
            assert (said["client_id"], said["aud"]) == (name, server.resource)
        await client.do("expire")
        assert "text" in await client.do("call", tool="whoami")
        assert site.seen


@pytest.mark.proves("click", "refresh", "more")
async def test_it_registers_itself_where_the_policy_lets_its_person(house: House) -> None:
    back = f"http://127.0.0.1:{free_port()}/callback"
    async with files(house, "registry", "--shared") as server, agent(house, "client") as client:
        # By default nobody may, and the issuer's metadata say nothing of it.
        await client.do("open", url=server.resource, redirect=back)
        with pytest.raises(ProgramError, match=r"[Rr]egist"):
            await client.do("call", tool="whoami")
        may = {"src": ["alice"], "dst": ["*"], "app": {"doorward.dev/cap/register-apps": [{}]}}
        async with house.policy(may):
            await client.do("open", url=server.resource, redirect=back)
            said = json.loads(await call(house, client, "whoami", press="yes"))
            assert f"POST {house.issuer}/register 201" in await client.do("requests")
            client_id = (await client.do("tokens"))["client_id"]
            assert client_id.startswith("app-")
            assert (said["client_id"], said["aud"]) == (client_id, server.resource)
            # What was registered with the same words is the same app, which its person has said yes to.
            await client.do("open", url=server.resource, redirect=back)
            again = json.loads(await call(house, client, "whoami"))
            assert again["client_id"] == client_id
        known = {one["client_id"]: one for one in await house.server.json("apps", "list")}
        assert known[client_id]["asks"] is True
        # Whose registration the policy does not allow any more keeps the app that there is.
        await client.do("expire")
        assert "text" in await client.do("call", tool="whoami")
