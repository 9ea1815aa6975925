"""The package as a program sees it: light to import, and the guide's examples as they stand there."""

import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.support import idtokens
from tests.support.browsing import DOOR
from tests.support.clock import FakeClock
from tests.support.office import Office, Party
from tests.support.prover import Prover
from tests.support.world import World, open_world

from doorward import identity
from doorward.errors import BadInput
from doorward.login.idtoken import read_keys
from doorward.model import Provider
from doorward.transport.fetch import Answer

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "identity.md"
# What a program may have to install for the parts of doorward.identity that check tokens and ask the host's daemon.
EXAMPLE = {"issuer": "https://door.example.com", "client_id": "app-...", "secret": "dwapp-..."}
LIGHT = {"backports", "cryptography", "doorward", "httpx2", "idna", "joserfc", "msgspec", "typing_extensions"}


def example(part: str) -> str:
    """The guide's program that has this in it."""
    found = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    (one,) = [each for each in found if part in each]
    return str(one)


def room_of(part: str, **replaced: str) -> dict[str, Any]:
    """What it defines, when it is run."""
    text = example(part)
    for name, value in replaced.items():
        text = text.replace(f'"{EXAMPLE[name]}"', f'"{value}"')
    room: dict[str, Any] = {}
    exec(compile(text, "identity.md", "exec"), room)
    return room


def test_it_is_imported_without_the_server_s_dependencies() -> None:
    ask = "import json, sys; import doorward.identity; print(json.dumps(sorted(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True, timeout=30)
    loaded = {name.split(".")[0] for name in json.loads(said.stdout) if not name.startswith("_")}
    assert loaded - sys.stdlib_module_names - {"sitecustomize", "usercustomize"} <= LIGHT
    parts = {name.split(".")[1] for name in json.loads(said.stdout) if name.startswith("doorward.")}
    assert not parts & {
        "server",
        "store",
        "tailnet",
        "api",
        "issuer",
        "control",
        "relay",
        "asgi",
        "telemetry",
    }


@pytest.mark.parametrize("name", ["", "a b", "-a", "../a", "ä", "a.b"])
async def test_a_name_is_one(name: str) -> None:
    with pytest.raises(BadInput):
        async with identity.node(name):
            pass


async def test_the_guide_s_first_example_checks_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    room = room_of("async def greet")
    issuer = "https://door.example.com"

    async def fetch(address: str) -> bytes:
        if address.endswith("/openid-configuration"):
            return json.dumps({"issuer": issuer, "jwks_uri": f"{issuer}/keys"}).encode()
        return idtokens.jwks(idtokens.jwk("ES256"))

    monkeypatch.setattr(room["verifier"], "_fetch", fetch)
    monkeypatch.setattr(room["verifier"], "_clock", clock)
    said = idtokens.claims(
        int(clock.now().timestamp()), iss=issuer, aud="https://api.example.com", scope="openid"
    )
    assert await room["greet"](idtokens.signed(said, header={"typ": "at+jwt"})) == "Hello s1"
    with pytest.raises(identity.TokenError):
        await room["greet"](idtokens.signed(said))


# With an issuer ----------------------------------------------------------------------------------------------------


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(tmp_path) as made:
        yield made


@pytest.fixture
async def office(world: World) -> Office:
    made = Office(world)
    await made.person("ann")
    return made


def through(office: Office) -> Any:
    """How a program asks the issuer."""

    async def ask(method: str, address: str, headers: Any, body: bytes | None) -> Answer:
        async with office.browser().client as client:
            client.headers.pop("sec-fetch-site")
            said = await client.request(method, address, headers=headers, content=body)
            return Answer(said.status_code, {}, said.content)

    return ask


def believing(office: Office, audience: str) -> identity.Verifier:
    async def fetch(address: str) -> bytes:
        answer: Answer = await through(office)("GET", address, {}, None)
        return answer.body

    return identity.Verifier(DOOR, audience, fetch=fetch, clock=office.world.clock)


async def call(
    app: Any, token: str = "", method: str = "GET", path: str = "/mcp", **headers: str
) -> httpx2.Response:
    if token:
        headers["authorization"] = f"Bearer {token}"
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="https://api.example.com") as client:
        return await client.request(method, path, headers=headers)


def challenged(answer: httpx2.Response) -> dict[str, str]:
    """What a client reads out of a refusal."""
    return dict(re.findall(r'(\w+)="([^"]*)"', answer.headers["www-authenticate"]))


async def test_a_client_finds_its_way_in_and_steps_up(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No token, metadata, sign-in, too few scopes, sign-in with the union, in; then a better proof."""
    room = room_of("demand(scope", issuer=DOOR)
    app, resource = room["app"], room["resource"]
    for name, mine in (
        ("files:read", "openid"),
        ("files:write", "email"),
    ):  # scopes that there are without more
        app._needs = tuple(
            each._replace(scopes=[mine if scope == name else scope for scope in each.scopes])
            for each in app._needs
        )
    inner = room["demand"]
    named = {"files:read": "openid", "files:write": "email"}
    monkeypatch.setitem(room, "demand", lambda scope, *scopes: inner(scope, *(named[one] for one in scopes)))
    monkeypatch.setattr(app, "_verifier", believing(office, resource.address))
    monkeypatch.setattr(app, "_clock", office.world.clock)
    party = await office.app(resources=(resource.address,))
    told = challenged(await call(app))
    assert "error" not in told
    where = told["resource_metadata"]
    metadata = (await call(app, path=where.removeprefix("https://api.example.com"))).json()
    assert metadata["authorization_servers"] == [DOOR]
    scopes = set(told["scope"].split())
    await party.sign_in(scope=" ".join(scopes), resource=metadata["resource"])
    good = await call(app, party.tokens["access_token"])
    assert good.status_code == 200
    refused = await call(app, party.tokens["access_token"], "DELETE")
    assert refused.status_code == 403
    told = challenged(refused)
    assert (told["error"], told["resource_metadata"]) == ("insufficient_scope", where)
    scopes |= set(told["scope"].split())
    await party.sign_in(scope=" ".join(sorted(scopes, reverse=True)), resource=metadata["resource"])
    assert (await call(app, party.tokens["access_token"], "DELETE")).status_code == 200
    refused = await call(app, party.tokens["access_token"], path="/mcp/admin/x")
    assert refused.status_code == 401
    told = challenged(refused)
    assert (told["error"], told["acr_values"]) == (
        "insufficient_user_authentication",
        "urn:doorward:acr:passkey",
    )
    assert told["max_age"] == "900"
    browser = await office.resident("ann")
    office.world.clock.advance(901)  # the passkey was shown too long ago by then
    await party.send(
        browser,
        scope="openid email",
        resource=metadata["resource"],
        acr_values=told["acr_values"],
        max_age=told["max_age"],
    )
    await party.prove(browser)
    assert (await party.redeem()).status_code == 200
    assert (await call(app, party.tokens["access_token"], path="/mcp/admin/x")).status_code == 200


async def test_a_gateway_calls_the_next_server_for_its_caller(office: Office) -> None:
    """The guide's exchange, between two real servers: the wiki knows the person, and who acts for them."""
    gateway_url, wiki_url = "https://api.example.com/mcp", "https://wiki.example.com/mcp"
    client = await office.app("client", resources=(gateway_url,))
    gateway: Party = await office.app("gateway", resources=(gateway_url,))
    entries = [{"apps": ["client"]}, {"apps": ["gateway"], "resources": [wiki_url]}]
    grant = {"src": ["ann"], "dst": ["*"], "app": {"doorward.dev/cap/app": entries}}
    await office.policy(json.dumps({"grants": [grant]}))
    room = room_of("client.exchange")
    room["client"] = identity.Client(
        DOOR, gateway.app.client_id, secret=gateway.secret, ask=through(office), clock=office.world.clock
    )

    async def wiki(scope: Any, receive: Any, send: Any) -> None:
        who = identity.caller(scope)
        assert who is not None
        body = json.dumps([who.subject, who.actors, who.claims["aud"]]).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    def guarded(app: Any, address: str) -> Any:
        made = identity.Resource(address, issuer=DOOR)
        return identity.IdentityMiddleware(
            app, verifier=believing(office, address), resource=made, clock=office.world.clock
        )

    behind = guarded(wiki, wiki_url)

    scopes: list[Any] = []

    async def front(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        answer = await call(behind, await room["for_the_wiki"](scope))
        await send({"type": "http.response.start", "status": answer.status_code, "headers": []})
        await send({"type": "http.response.body", "body": answer.content})

    claims = await client.sign_in(resource=gateway_url)
    token = client.tokens["access_token"]
    for _ in range(2):
        said = await call(guarded(front, gateway_url), token)
        assert said.json() == [claims["sub"], [gateway.app.client_id], wiki_url]
    assert len(await office.audited("app.exchange")) == 1  # the second time it was kept
    assert (await call(behind, token)).status_code == 401  # never the token that the gateway was called with
    await office.policy(json.dumps({"grants": [grant | {"app": {"doorward.dev/cap/app": entries[:1]}}]}))
    office.world.clock.advance(300)  # what was kept is over
    assert await room["for_the_wiki"](scopes[0]) == "no: invalid_request"


async def test_one_doorward_s_word_is_brought_to_another(
    office: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guide's example, with two real issuers."""
    api = "https://api.example/mcp"
    (tmp_path / "abroad").mkdir()
    async with open_world(tmp_path / "abroad") as abroad:
        there = Office(abroad, "https://as.example")
        await there.registry.create_user("cli", "anna")
        server = await there.app("visitor", resources=(api,), scopes=("files:read",))
        home = Provider(id=0, name="home", issuer=DOOR, client_id="x", created=abroad.clock.now())
        await there.registry.outside.add("cli", home)
        entry = {"apps": ["visitor"], "assertions": ["home"]}
        grant = {"src": ["anna"], "dst": ["*"], "app": {"doorward.dev/cap/app": [entry]}}
        await there.policy(json.dumps({"grants": [grant]}))

        async def home_keys(provider: Provider, anew: bool) -> Any:
            answer: Answer = await through(office)("GET", f"{DOOR}/.well-known/jwks.json", {}, None)
            return read_keys(provider.name, answer.body)

        monkeypatch.setattr(there.issuer._desk, "provider_keys", home_keys)
        agent = await office.app("agent")
        place: dict[str, Any] = {
            "issuer": "https://as.example",
            "resource": api,
            "client_id": server.app.client_id,
        }
        mine = {"apps": ["agent"], "elsewhere": [place | {"scopes": ["files:read"]}]}
        app = {"doorward.dev/cap/app": [mine]}
        await office.policy(json.dumps({"grants": [{"src": ["ann"], "dst": ["*"], "app": app}]}))
        claims = await agent.sign_in()
        await there.registry.outside.link("cli", "anna", "home", claims["sub"])
        room = room_of("here.word(")
        room["here"] = identity.Client(
            DOOR, agent.app.client_id, secret=agent.secret, ask=through(office), clock=office.world.clock
        )
        room["there"] = identity.Client(
            "https://as.example",
            server.app.client_id,
            secret=server.secret,
            ask=through(there),
            clock=abroad.clock,
        )
        token = await room["for_the_other_server"](agent.tokens["id_token"])
        told = (await server.post("/introspect", token=token)).json()
        assert (told["username"], told["aud"], told["scope"]) == ("anna", api, "files:read")


async def test_a_program_on_a_tagged_node_needs_no_secret(office: Office) -> None:
    """And its token is good from that node alone, where a server can tell."""
    address = "https://api.example.com/mcp"
    await office.policy('{"tagOwners": {"tag:ci": []}}')
    made = await office.app(
        "runner", nodes=("tag:ci",), redirect_uris=(), service=True, resources=(address,), binds=True
    )
    office.identity = await office.world.join(7, "runner-7", None, "tag:ci")
    client = identity.Client(
        DOOR, made.app.client_id, node=True, ask=through(office), clock=office.world.clock
    )
    token = (await client.own_token(address)).access_token
    verifier = believing(office, address)
    assert (await verifier.verify(token, node=office.identity.stable_id)).subject == made.app.client_id
    for elsewhere in ("", "another"):
        with pytest.raises(identity.TokenError, match="cnf"):
            await verifier.verify(token, node=elsewhere)


async def test_a_token_bound_to_a_key_is_good_with_that_key_alone(office: Office) -> None:
    """From our issuer to our middleware: by signature, and by asking."""
    address, prover, thief = "https://api.example.com/mcp", Prover(), Prover()
    party = await office.app(resources=(address,))
    server = await office.app("server", resources=(address,))
    await party.send(resource=address)
    now = office.world.clock.now()
    assert (await party.redeem(dpop=prover.proof(now, f"{DOOR}/token"))).json()["token_type"] == "DPoP"
    token = party.tokens["access_token"]
    client = identity.Client(
        DOOR, server.app.client_id, secret=server.secret, ask=through(office), clock=office.world.clock
    )
    introspector = identity.Introspector(client, address, clock=office.world.clock)

    async def files(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    for verifier in (believing(office, address), introspector):
        app = identity.IdentityMiddleware(
            files,
            verifier=verifier,
            resource=identity.Resource(address, issuer=DOOR),
            clock=office.world.clock,
        )
        assert (await call(app, token)).status_code == 401
        for key, status in ((thief, 401), (prover, 200)):
            proof = key.proof(now, address, method="GET", token=token)
            assert (await call(app, authorization=f"DPoP {token}", dpop=proof)).status_code == status


def test_the_guide_s_example_of_asking_the_issuer() -> None:
    room = room_of("Introspector(")
    assert repr(room["client"]) == "Client('https://door.example.com', 'app-...')"
    assert isinstance(room["verifier"], identity.Introspector)
