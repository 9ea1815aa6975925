"""MCP: servers and clients by the ``mcp`` SDK, with our issuer between them."""

import json
import ssl
from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from joserfc.jwk import ECKey
from tests.support.clients import StockClient
from tests.support.house import House, Program, ProgramError
from tests.support.idtokens import jwk, jwks, signing_key
from tests.support.meeting import BACK, LOCAL, Files, agent, call, come_back, files, tool
from tests.support.server import free_port

pytestmark = [
    pytest.mark.interop,
    pytest.mark.heavy,
    pytest.mark.timeout(300),
    pytest.mark.client("mcp", "pypi:interop"),
]

by_introspection = pytest.mark.parametrize("checks", ["introspection", "keys"])


@pytest.fixture(scope="module")
async def servers(house: House) -> AsyncIterator[dict[str, Files]]:
    """One that asks the issuer about each token, and one that checks signatures by itself."""
    async with (
        files(house, "asks") as asks,
        files(house, "checks", checks="keys") as checks,
    ):
        yield {"introspection": asks, "keys": checks}


@pytest.fixture(scope="module")
async def client(house: House) -> AsyncIterator[Program]:
    """One client for all: what is opened is a new one each time."""
    async with agent(house, "client") as program:
        yield program


async def refused(house: House, client: Program, server: Files) -> None:
    """The server takes the client's token for none."""
    with pytest.raises(ProgramError):
        await call(house, client, "whoami")
    assert f"POST {server.resource} 401" in await client.do("requests")


@by_introspection
@pytest.mark.proves("silent", "pkce")
async def test_a_tool_is_called_without_a_click(
    house: House, servers: dict[str, Files], client: Program, checks: str
) -> None:
    server = servers[checks]
    app = await tool(house, client, server, f"silent-{checks}")
    await server.versions()
    said = json.loads(await call(house, client, "whoami"))
    assert (said["client_id"], said["scope"]) == (app.client_id, "files:read")
    assert (said["aud"], said["iss"]) == (server.resource, house.issuer)
    # The whole way: challenge, the resource's metadata, the issuer's, the token; and no detour.
    assert (await client.do("requests"))[:4] == [
        f"POST {server.resource} 401",
        f"GET {server.resource.removesuffix('/mcp')}/.well-known/oauth-protected-resource/mcp 200",
        f"GET {house.issuer}/.well-known/oauth-authorization-server 200",
        f"POST {house.issuer}/token 200",
    ]
    assert await server.versions() == ["2026-07-28"]


@pytest.mark.parametrize("version", ["2025-06-18", "2025-11-25"])
@pytest.mark.proves("more")
async def test_the_same_in_the_versions_before(
    house: House, servers: dict[str, Files], client: Program, version: str
) -> None:
    server = servers["introspection"]
    app = await tool(house, client, server, f"version-{version}", mode=version)
    await server.versions()
    said = json.loads(await call(house, client, "whoami"))
    assert (said["client_id"], said["aud"]) == (app.client_id, server.resource)
    assert await server.versions() == [version]


@pytest.mark.proves("click", "deny")
async def test_a_program_on_the_device_is_asked_about_once(
    house: House, servers: dict[str, Files], client: Program
) -> None:
    server = servers["introspection"]
    app = await house.app("local", "--public", "--redirect", LOCAL, "--resource", server.resource)
    for press in ("no", "yes", ""):
        back = LOCAL.replace("/callback", f":{free_port()}/callback")
        await client.do("open", url=server.resource, redirect=back, client_id=app.client_id)
        if press == "no":
            with pytest.raises(ProgramError, match="access_denied"):
                await call(house, client, "whoami", press=press)
        else:
            said = json.loads(await call(house, client, "whoami", press=press))
            assert said["client_id"] == app.client_id


@pytest.mark.proves("more")
async def test_a_tool_that_takes_more_has_the_client_ask_for_more(
    house: House, servers: dict[str, Files], client: Program
) -> None:
    server = servers["introspection"]
    await tool(house, client, server, "more")
    await call(house, client, "whoami")
    event = await client.do("call", tool="write")
    asked = parse_qs(urlsplit(event["go"]).query)
    assert set(asked["scope"][0].split()) == {"files:read", "files:write"}
    assert (asked["resource"], "prompt" in asked) == ([server.resource], False)
    found = await come_back(house, client, event["go"])
    both = {"files:read", "files:write"}
    assert set(found["text"].split()) == set((await client.do("tokens"))["scope"].split()) == both


@pytest.mark.proves("refresh", "replay")
async def test_a_token_that_is_over_is_refreshed_without_a_browser(
    house: House, servers: dict[str, Files], client: Program
) -> None:
    server = servers["introspection"]
    app = await tool(house, client, server, "refresh")
    await call(house, client, "whoami")
    first = await client.do("tokens")
    await client.do("expire")
    said = json.loads((await client.do("call", tool="whoami"))["text"])
    second = await client.do("tokens")
    assert first["refresh_token"] != second["refresh_token"]
    assert first["access_token"] != second["access_token"]
    assert said["scope"] == second["scope"] == first["scope"]
    # Who shows the first one now has stolen it, or was stolen from: the client has to send its person again.
    async with httpx2.AsyncClient(
        verify=ssl.create_default_context(cafile=str(house.authority)),
        proxy=f"http://localhost:{house.laptop.http_port}",
        trust_env=False,
    ) as thief:
        form = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
        stolen = await thief.post(f"{house.issuer}/token", data=form, auth=(app.client_id, app.secret))
    assert stolen.json()["error"] == "invalid_grant"
    await client.do("expire")
    event = await client.do("call", tool="whoami")
    assert event["go"].startswith(f"{house.issuer}/authorize?")
    assert "text" in await come_back(house, client, event["go"])


@pytest.mark.proves("policy")
async def test_the_policy_decides_what_a_person_may_do_there(
    house: House, servers: dict[str, Files], client: Program
) -> None:
    server = servers["introspection"]
    await tool(house, client, server, "policy")
    entry = {"apps": ["policy"], "scopes": ["files:read"]}
    grant = {"src": ["alice"], "dst": ["*"], "app": {"doorward.dev/cap/app": [entry]}}
    async with house.policy(grant):
        await call(house, client, "whoami")
        with pytest.raises(ProgramError):  # it asks for more, as it is told to, and gets no more
            await call(house, client, "write")
        held = (await client.do("tokens"))["access_token"]
    async with house.policy({**grant, "src": ["nobody@example.com"]}):
        await client.do("open", url=server.resource, token=held)
        await refused(house, client, server)


@by_introspection
@pytest.mark.proves("audience")
async def test_a_token_for_another_server_is_refused(
    house: House, servers: dict[str, Files], client: Program, checks: str
) -> None:
    (other,) = (each for name, each in servers.items() if name != checks)
    await tool(house, client, other, f"other-{checks}")
    await call(house, client, "whoami")
    token = (await client.do("tokens"))["access_token"]
    await client.do("open", url=other.resource, token=token)
    await call(house, client, "whoami")
    await client.do("open", url=servers[checks].resource, token=token)
    await refused(house, client, servers[checks])


@pytest.mark.proves("audience")
async def test_an_app_gets_no_token_for_a_server_that_is_not_its_own(
    house: House, servers: dict[str, Files], client: Program
) -> None:
    elsewhere = "https://elsewhere.example.com/mcp"
    app = await house.app("not-its-own", "--redirect", BACK, "--resource", elsewhere)
    shown = {"client_id": app.client_id, "secret": app.secret}
    await client.do("open", url=servers["keys"].resource, redirect=BACK, **shown)
    with pytest.raises(ProgramError, match="invalid_target"):
        await call(house, client, "whoami")


@pytest.mark.parametrize("iss", ["https://evil.example.com", ""])
@pytest.mark.proves("iss")
async def test_an_answer_of_another_issuer_is_refused(
    house: House, servers: dict[str, Files], client: Program, iss: str
) -> None:
    await tool(house, client, servers["keys"], f"iss-{'wrong' if iss else 'none'}")
    event = await client.do("call", tool="whoami")
    async with house.visitor() as browser:
        arrived = await browser.go(event["go"], ends_at=BACK)
    assert arrived.answer["iss"] == house.issuer
    told = f"{BACK}?code={arrived.answer['code']}&state={arrived.answer['state']}"
    with pytest.raises(ProgramError, match="iss"):
        await client.do("back", url=f"{told}&iss={iss}" if iss else told)


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post", "private_key_jwt"])
@pytest.mark.proves("more")
async def test_a_program_has_tokens_of_its_own(
    house: House, servers: dict[str, Files], client: Program, method: str
) -> None:
    server, name = servers["keys"], f"job-{method.replace('_', '-')}"
    options = ["--service", "--resource", server.resource, "--scope", "files:read", "--scope", "files:write"]
    if method == "private_key_jwt":
        place = house.server.folder / "keys.json"
        place.write_bytes(jwks(jwk("ES256")))
        app = await house.app(name, *options, "--keys", str(place))
        key = signing_key("ES256", 0)
        assert isinstance(key, ECKey)
        how = {"kind": "key", "pem": key.as_pem(private=True).decode()}
    else:
        app = await house.app(name, *options)
        how = {"kind": "service", "secret": app.secret, "method": method}
    await client.do("open", url=server.resource, client_id=app.client_id, issuer=house.issuer, **how)
    said = json.loads(await call(house, client, "whoami"))
    assert (said["sub"], said["client_id"]) == (app.client_id, app.client_id)
    assert said["scope"] == "files:read"
    assert set((await call(house, client, "write")).split()) == {"files:read", "files:write"}


@pytest.mark.proves("tagged")
async def test_a_tagged_device_calls_no_tool_as_a_person(
    house: House, servers: dict[str, Files], client: Program
) -> None:
    await tool(house, client, servers["keys"], "tagged")
    event = await client.do("call", tool="whoami")
    async with StockClient("robot") as robot:
        await robot.up(house.server.url, await house.server.key("--tag", "tag:robot"))
        async with house.visitor(on=robot) as browser:
            arrived = await browser.go(event["go"], ends_at=BACK)
    assert arrived.answer["error"] == "access_denied"
    with pytest.raises(ProgramError, match="access_denied"):
        await client.do("back", url=arrived.url)


@pytest.mark.proves("more")
async def test_a_gateway_asks_the_next_server_for_the_person(
    house: House, servers: dict[str, Files], client: Program
) -> None:
    gateway, deep = servers["introspection"], servers["keys"]
    await gateway.program.do("upstream", resource=deep.resource)
    app = await tool(house, client, gateway, "gateway")
    with pytest.raises(ProgramError, match="invalid_target"):  # the policy has to say so
        await call(house, client, "beyond")
    entries = [{"apps": ["gateway"]}, {"apps": [gateway.app.name], "resources": [deep.resource]}]
    grant = {"src": ["alice"], "dst": ["*"], "app": {"doorward.dev/cap/app": entries}}
    async with house.policy(grant):
        first = json.loads(await call(house, client, "whoami"))
        said = json.loads(await call(house, client, "beyond"))
    assert (said["sub"], said["aud"]) == (first["sub"], deep.resource)
    assert said["client_id"] == gateway.app.client_id != app.client_id
    assert said["act"] == {"sub": gateway.app.client_id}
    assert said["exp"] <= first["exp"]
