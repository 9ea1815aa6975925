"""Who may act for a person with a token that is for somebody else (``may_act``)."""

import json
from typing import Any

import httpx2
import pytest
from tests.support.office import Office, Party

from doorward.issuer.grants.token_exchange import ACCESS_TOKEN, TOKEN_EXCHANGE
from doorward.issuer.tokens import ACCESS_TYPE, read
from doorward.policy.apps import APP, entitlement

WIKI = "https://wiki.example/mcp"
CHAT: dict[str, Any] = {"apps": ["chat"]}
NAMED = CHAT | {"may_act": "agent"}
ALLOWED: dict[str, Any] = {"apps": ["agent"], "resources": [WIKI]}


async def rule(office: Office, *entries: dict[str, Any]) -> None:
    await office.policy(json.dumps({"grants": [{"src": ["ann"], "dst": ["*"], "app": {APP: [*entries]}}]}))


async def exchange(agent: Party, token: str) -> httpx2.Response:
    form = {"subject_token": token, "subject_token_type": ACCESS_TOKEN, "resource": WIKI}
    return await agent.post("/token", grant_type=TOKEN_EXCHANGE, **form)


async def said_in(office: Office, token: str) -> dict[str, Any]:
    return read(await office.issuer._desk.keys.ring(), token, ACCESS_TYPE)


@pytest.fixture
async def agent(office: Office) -> Party:
    return await office.app("agent")


@pytest.fixture
async def chat(office: Office, agent: Party) -> Party:
    """With a person's token for the app itself, which says that the agent may act."""
    await office.person("ann")
    made = await office.app("chat")
    await rule(office, NAMED, ALLOWED)
    await made.sign_in(scope="openid email offline_access")
    assert agent.app.name == NAMED["may_act"]
    return made


async def test_an_agent_goes_on_with_a_token_that_names_it(office: Office, chat: Party, agent: Party) -> None:
    token = chat.tokens["access_token"]
    first = await said_in(office, token)
    assert first["may_act"] == {"sub": agent.app.client_id}
    assert "may_act" not in await chat.claims()
    said = await exchange(agent, token)
    assert said.status_code == 200, said.text
    claims = await said_in(office, said.json()["access_token"])
    assert (claims["act"], claims["aud"], claims["sub"]) == ({"sub": agent.app.client_id}, WIKI, first["sub"])
    assert "may_act" not in claims  # of what the agent has, the policy says nothing
    await chat.refresh()
    assert (await exchange(agent, chat.tokens["access_token"])).status_code == 200


async def test_nobody_else_may(office: Office, chat: Party) -> None:
    other = await office.app("other")
    await rule(office, NAMED, ALLOWED | {"apps": ["agent", "other"]})
    said = await exchange(other, chat.tokens["access_token"])
    assert (said.status_code, said.json()["error"]) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("entries", "error"),
    [
        ((CHAT, ALLOWED), "invalid_request"),  # not named any more, whatever the token says
        ((CHAT | {"may_act": "other"}, ALLOWED), "invalid_request"),
        ((NAMED, {"apps": ["agent"]}), "invalid_target"),  # named, and there is nothing that it may have
        ((ALLOWED,), "invalid_request"),  # nobody uses the app any more
    ],
)
async def test_t13_the_policy_is_asked_again(
    office: Office, chat: Party, agent: Party, entries: tuple[dict[str, Any], ...], error: str
) -> None:
    await rule(office, *entries)
    assert (await exchange(agent, chat.tokens["access_token"])).json()["error"] == error


async def test_a_token_from_before_names_nobody(office: Office, chat: Party, agent: Party) -> None:
    await rule(office, CHAT, ALLOWED)
    await chat.refresh()
    token = chat.tokens["access_token"]
    assert "may_act" not in await said_in(office, token)
    await rule(office, NAMED, ALLOWED)
    assert (await exchange(agent, token)).json()["error"] == "invalid_request"


async def test_an_app_that_is_not_there_may_nothing(office: Office, chat: Party, agent: Party) -> None:
    await office.apps.delete("cli", "agent")
    await chat.refresh()
    assert "may_act" not in await said_in(office, chat.tokens["access_token"])
    await office.app("agent")  # another one of that name
    said = await exchange(agent, chat.tokens["access_token"])
    assert said.json()["error"] == "invalid_client"


async def test_two_names_are_none_and_the_policy_s_problem(office: Office) -> None:
    await office.person("ann")
    await rule(office, NAMED, CHAT | {"may_act": "other"})
    snapshot = office.registry.snapshot
    (ann,) = snapshot.users
    found = entitlement(snapshot.policy, "chat", ann, None)
    assert found.may_act == ""
    assert found.problems == ("may_act is several apps: agent, other",)
