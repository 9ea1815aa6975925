"""An app on a tagged node is known by its connection, and what it gets is good there alone."""

import json
from typing import Any

import pytest
from tests.interop.test_door import ask_door
from tests.support.clients import StockClient
from tests.support.fetching import Answer
from tests.support.machines import machines
from tests.support.server import Server

pytestmark = pytest.mark.interop


async def ask(server: Server, client: StockClient, app: dict[str, Any], *options: str) -> Answer:
    """What its program asks; no secret, no key."""
    form = ("--data-urlencode", "grant_type=client_credentials", "--data", f"client_id={app['client_id']}")
    return await ask_door(server, client, "/token", "--header", "Doorward-Client: node", *form, *options)


async def test_a_runner_has_tokens_and_a_laptop_has_none(server: Server) -> None:
    await server.set_policy(
        '{"tagOwners": {"tag:ci": []}, "grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}]}'
    )
    options = ("--service", "--node", "tag:ci", "--bind-node", "--json")
    made = json.loads((await server.run("apps", "create", "runner", *options)).stdout)
    assert made["secret"] == ""
    async with machines(server, "laptop") as (laptop,), StockClient("runner") as runner:
        await runner.up(server.url, await server.key("--tag", "tag:ci"))
        said = await ask(server, runner, made["app"])
        assert said.status == 200, said.text
        token = said.json()["access_token"]
        about = ("--header", "Doorward-Client: node", "--data", f"client_id={made['app']['client_id']}")
        told = (await ask_door(server, runner, "/introspect", *about, "--data", f"token={token}")).json()
        own = (await runner.status())["Self"]["ID"]
        assert (told["active"], told["tags"]) == (True, ["tag:ci"])
        assert told["cnf"] == {"https://doorward.dev/cnf/node": own}
        assert (await ask(server, laptop, made["app"])).json()["error"] == "invalid_client"
        by_page = await ask(server, runner, made["app"], "--header", "Origin: https://evil.example")
        assert by_page.json()["error"] == "invalid_client"
        assert token not in server.log.read_text(errors="replace")
