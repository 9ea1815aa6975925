"""Apps that are known by the node they run on, and tokens that are bound to a node."""

from typing import Any

import httpx2
import pytest
from tests.support.browsing import DOOR
from tests.support.office import Office, Party
from tests.support.prover import Prover

from doorward.errors import BadInput, Conflict
from doorward.identity import verifier
from doorward.issuer.desk import PREFLIGHT
from doorward.issuer.nodes import HEADER, MEMBER, METHOD
from doorward.issuer.tokens import ACCESS_TYPE, read
from doorward.model import Node

OWN = {"grant_type": "client_credentials"}


async def tagged(office: Office, number: int = 7, *tags: str) -> Node:
    """A server of the tailnet, from which connections come from now on."""
    office.identity = await office.world.join(number, f"runner-{number}", None, *(tags or ("tag:ci",)))
    return office.identity


async def ask(party: Party, path: str = "/token", **more: Any) -> httpx2.Response:
    """As a program on a node does; ``headers`` are added, and None takes one out."""
    headers = {HEADER: "node"} | more.pop("headers", {})
    form = {"client_id": party.app.client_id} | (more or OWN)
    async with party.program() as client:
        given = {name: value for name, value in headers.items() if value is not None}
        return await client.post(path, data=form, headers=given)


async def said_in(office: Office, token: str) -> dict[str, Any]:
    return read(await office.issuer._desk.keys.ring(), token, ACCESS_TYPE)


async def runner(office: Office, *nodes: str, **fields: Any) -> Party:
    made = await office.app("runner", nodes=nodes or ("tag:ci",), redirect_uris=(), service=True, **fields)
    assert made.secret == ""
    assert not made.app.public
    return made


@pytest.fixture
async def office(office: Office) -> Office:
    await office.policy('{"tagOwners": {"tag:ci": [], "tag:web": []}}')
    return office


async def test_a_tagged_node_has_tokens_without_a_secret(office: Office) -> None:
    party, node = await runner(office), await tagged(office)
    said = await ask(party)
    assert said.status_code == 200, said.text
    claims = await said_in(office, said.json()["access_token"])
    assert (claims["sub"], claims["node"], claims["tags"]) == (party.app.client_id, node.name, ["tag:ci"])
    assert "cnf" not in claims
    (noted,) = await office.audited("app.token")
    assert noted.details["node"] == node.stable_id


async def test_its_stable_id_will_do(office: Office) -> None:
    node = await tagged(office)
    party = await runner(office, node.stable_id)
    assert (await ask(party)).status_code == 200
    await tagged(office, 8)
    assert (await ask(party)).status_code == 401


async def test_no_other_node_is_it(office: Office) -> None:
    party = await runner(office)
    for other in (
        await tagged(office, 8, "tag:web"),
        await office.person("ann", 9),  # a person's device, whatever runs there
        None,  # the public door, and whoever the tailnet does not know
    ):
        office.identity = other
        assert (await ask(party)).json()["error"] == "invalid_client"
    office.identity = await office.person("ann", 9)
    by_id = await office.app("mine", nodes=(office.identity.stable_id,), redirect_uris=(), service=True)
    assert (await ask(by_id)).json()["error"] == "invalid_client"


async def test_t9_a_router_speaks_for_nobody(office: Office) -> None:
    party = await runner(office)
    router = await office.world.join(7, "router", None, "tag:ci", RoutableIPs=["10.0.0.0/8"])
    office.identity = router
    assert (await ask(party)).status_code == 200
    await office.registry.set_routes("cli", router.id, approve=["10.0.0.0/8"])
    assert (await ask(party)).json()["error"] == "invalid_client"


async def test_a_node_that_is_shut_out_is_nobody(office: Office) -> None:
    party, node = await runner(office), await tagged(office)
    await office.registry.access.suspend_node("cli", node.id, suspended=True)
    assert (await ask(party)).json()["error"] == "invalid_client"


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": DOOR},
        {"origin": "null"},
        {"referer": f"{DOOR}/me"},
        {"sec-fetch-site": "same-origin"},
        {"sec-fetch-mode": "navigate"},
        {"sec-ch-ua": "x"},
        {"cookie": "a=b"},
        {HEADER: "yes"},
        {HEADER: None},
    ],
)
async def test_no_page_can_ask_in_a_node_s_name(office: Office, headers: dict[str, Any]) -> None:
    party = await runner(office)
    await tagged(office)
    said = await ask(party, headers=headers)
    assert (said.status_code, said.json()["error"]) == (401, "invalid_client")


async def test_browsers_are_given_no_leave_to_send_the_header(office: Office) -> None:
    assert HEADER not in str(PREFLIGHT).lower()
    async with (await runner(office)).program() as client:
        preflight = await client.options("/token")
    assert HEADER not in preflight.headers["access-control-allow-headers"].lower()


async def test_one_way_to_show_who_one_is(office: Office) -> None:
    party = await runner(office)
    await tagged(office)
    for more in ({"client_secret": "x"}, {"client_assertion": "x"}):
        assert (await ask(party, **OWN, **more)).json()["error"] == "invalid_request"
    two = await ask(party, headers={"authorization": "Basic eDp5"})
    assert two.json()["error"] == "invalid_request"
    # Neither is there a secret of it, nor is any other app known by a node.
    assert (await party.post("/token", **OWN)).status_code == 401
    assert (await party.post("/token", how="public", **OWN)).status_code == 401
    assert (await ask(await office.app("wiki", service=True))).json()["error"] == "invalid_client"
    with pytest.raises(Conflict, match="known by its node"):
        await office.apps.rotate("cli", "runner")


@pytest.mark.parametrize(
    "fields",
    [{"public": True}, {"keys_url": "https://a.example/k"}, {"nodes": ("ci",)}, {"nodes": ("tag:",)}],
)
async def test_what_cannot_be_known_by_a_node_is_not_made(office: Office, fields: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        await office.app("x", **{"nodes": ("tag:ci",)} | fields)


async def test_it_may_ask_about_tokens_and_exchange_them(office: Office) -> None:
    await office.person("ann")
    await office.policy(
        '{"tagOwners": {"tag:ci": []}, "grants": [{"src": ["*"], "dst": ["*"], "app": {"doorward.dev/cap/app": '
        '[{"resources": ["https://wiki.example/mcp"]}]}}]}'
    )
    here = "https://gateway.example"
    gateway = await runner(office, resources=(here,))
    client = await office.app(resources=(here,))
    await client.sign_in(resource=here)
    token = client.tokens["access_token"]
    await tagged(office)
    assert (await ask(gateway, "/introspect", token=token)).json()["active"] is True
    exchanged = await ask(
        gateway,
        grant_type="urn:ietf:params:oauth:grant-type:token-exchange",
        subject_token=token,
        subject_token_type="urn:ietf:params:oauth:token-type:access_token",
        resource="https://wiki.example/mcp",
    )
    claims = await said_in(office, exchanged.json()["access_token"])
    assert claims["act"] == {"sub": gateway.app.client_id}
    office.identity = None
    assert (await ask(gateway, "/introspect", token=token)).status_code == 401


# Tokens that are bound to a node -----------------------------------------------------------------------------------


async def test_t15_a_token_of_one_node_is_worth_nothing_on_another(office: Office) -> None:
    laptop = await office.person("ann")
    party = await office.app(binds=True)
    await party.sign_in()
    token = party.tokens["access_token"]
    assert (await said_in(office, token))["cnf"] == {MEMBER: laptop.stable_id}
    assert (await party.userinfo()).status_code == 200
    known = (await party.post("/introspect", token=token)).json()
    assert (known["active"], known["cnf"], known["token_type"]) == (
        True,
        {MEMBER: laptop.stable_id},
        "Bearer",
    )
    for thief in (await office.person("bob", 2), await office.person("ann", 3), None):
        office.identity = thief
        said = await party.userinfo()
        assert (said.status_code, said.json()["error"]) == (401, "invalid_token")
    office.identity = laptop
    await office.registry.access.suspend_node("cli", laptop.id, suspended=True)
    assert (await party.post("/introspect", token=token)).json() == {"active": False}


async def test_without_a_node_there_is_no_bound_token(office: Office) -> None:
    await office.person("ann")
    party = await office.app(binds=True)
    await party.send()
    office.identity = None
    said = await party.redeem()
    assert (said.status_code, said.json()["error"]) == (400, "invalid_request")


async def test_t14_a_public_app_s_code_is_good_where_it_was_given(office: Office) -> None:
    laptop = await office.person("ann")
    tool = await office.app("tool", public=True, redirect_uris=("http://127.0.0.1/cb",), binds=True)
    browser = tool.browser()
    await tool.send(browser, scope="openid offline_access")
    await tool.press(browser)
    phone = await office.person("ann", 2)
    assert (await tool.redeem()).json()["error"] == "invalid_grant"
    assert [one.details["why"] for one in await office.audited("app.refuse")] == ["another node"]
    office.identity = laptop
    assert (await tool.redeem()).status_code == 200  # and who was elsewhere has not spoilt it
    office.identity = phone
    assert (await tool.refresh()).json()["error"] == "invalid_grant"
    office.identity = laptop
    assert (await tool.refresh()).status_code == 200
    office.identity = phone
    assert (await tool.refresh()).json()["error"] == "invalid_grant"


async def test_a_key_and_a_node_both_count(office: Office) -> None:
    laptop = await office.person("ann")
    party, prover = await office.app(binds=True), Prover()
    now = office.world.clock.now()
    await party.send()
    await party.redeem(dpop=prover.proof(now, f"{DOOR}/token"))
    token = party.tokens["access_token"]
    assert (await said_in(office, token))["cnf"] == {"jkt": prover.jkt, MEMBER: laptop.stable_id}

    async def show() -> int:
        proof = prover.proof(now, f"{DOOR}/userinfo", "GET", token=token)
        async with party.program() as client:
            headers = {"authorization": f"DPoP {token}", "dpop": proof}
            return (await client.get("/userinfo", headers=headers)).status_code

    assert await show() == 200
    office.identity = await office.person("ann", 2)
    assert await show() == 401


async def test_it_is_told_to_who_reads_about_us(office: Office) -> None:
    async with (await office.app()).program() as client:
        told = (await client.get("/.well-known/oauth-authorization-server")).json()
    assert METHOD in told["token_endpoint_auth_methods_supported"]
    assert METHOD in told["introspection_endpoint_auth_methods_supported"]


def test_our_verifier_knows_the_member_by_the_same_name() -> None:
    assert MEMBER in vars(verifier).values()
