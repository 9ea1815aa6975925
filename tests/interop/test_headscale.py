"""``doorward.identity`` on a tailnet that is not doorward's: a Headscale, with stock clients and daemons."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.identity.test_identity import example
from tests.support.clients import StockClient
from tests.support.headscale import DOMAIN, Headscale, running_headscale
from tests.support.programs import require_client
from tests.support.server import free_port
from tests.support.waiting import eventually
from tests.support.wiki import get, greets_alice_and_opens_nothing_else

from doorward import identity
from doorward.engine.base import EngineError

pytestmark = [
    pytest.mark.interop,
    pytest.mark.heavy,
    pytest.mark.client("github.com/juanfont/headscale", "go:golang/headscale"),
    pytest.mark.proves("more"),
    pytest.mark.timeout(300),
]

LATE = 40  # seconds in which a change has come through on a busy machine


def policy(port: str) -> str:
    """Members reach the app's port of the app's node; people's devices reach nothing else."""
    return json.dumps(
        {
            "tagOwners": {"tag:wiki": ["alice@"], "tag:ci": ["alice@"]},
            "acls": [
                {
                    "action": "accept",
                    "src": ["autogroup:member", "tag:ci"],
                    "dst": [f"tag:wiki:{port}"],
                }
            ],
        }
    )


@pytest.fixture
async def headscale() -> AsyncIterator[Headscale]:
    require_client()
    async with running_headscale() as started:
        yield started


async def _tells(scope: Any, receive: Any, send: Any) -> None:
    """An app that says who it takes the caller for."""
    if scope["type"] != "http":
        return
    who = identity.caller(scope)
    assert who is not None
    said = {"login": who.login, "node": who.node, "tags": who.tags, "capabilities": who.capabilities}
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(said | {"subject": who.subject}).encode()})


async def test_the_guide_s_node_is_one_of_headscale_s_and_opens_nothing_but_the_app(
    headscale: Headscale, tmp_path: Path
) -> None:
    port = free_port()
    program = tmp_path / "wiki.py"
    program.write_text(example("identity.node(").replace("8000", str(port)), encoding="utf-8")
    alice = await headscale.user("alice")
    await headscale.set_policy(policy(str(port)))

    async def set_policy(ports: str) -> None:
        await headscale.set_policy(policy(ports))

    async with StockClient("laptop") as laptop:
        await laptop.up(headscale.url, await headscale.key("--user", alice))
        await greets_alice_and_opens_nothing_else(
            program,
            laptop,
            set_policy,
            control=headscale.url,
            key=await headscale.key("--tags", "tag:wiki"),
            url=f"http://wiki.{DOMAIN}:{port}",
            within=LATE,
        )


async def test_the_app_hears_who_and_from_which_node_a_request_comes(
    headscale: Headscale, tmp_path: Path
) -> None:
    port = free_port()
    alice = await headscale.user("alice")
    await headscale.set_policy(policy("*"))
    key = await headscale.key("--tags", "tag:wiki")
    async with StockClient("laptop") as laptop, StockClient("robot") as robot:
        await laptop.up(headscale.url, await headscale.key("--user", alice))
        await robot.up(headscale.url, await headscale.key("--tags", "tag:ci"))
        async with identity.node(
            "wiki", control=headscale.url, auth_key=key, port=port, folder=tmp_path / "n"
        ) as node:
            with pytest.raises(EngineError, match="the policy lets others reach"):
                await node.serve(_tells)
            await headscale.set_policy(policy(str(port)))
            async with asyncio.TaskGroup() as group:
                ready = asyncio.Event()

                async def narrow() -> bool:
                    return not await node._wide()

                await eventually(narrow, LATE)
                serving = group.create_task(node.serve(_tells, ready=ready))
                await ready.wait()
                for client, login, tags in ((laptop, "alice", []), (robot, "", ["tag:ci"])):
                    said: dict[str, Any] = {}

                    async def answered(client: StockClient = client, said: dict[str, Any] = said) -> bool:
                        text = await get(client, node.url)
                        said |= json.loads(text) if text else {}
                        return bool(said)

                    await eventually(answered, LATE)
                    assert (said["login"], said["tags"]) == (login, tags)
                    assert said["node"] == f"{client.name}.{DOMAIN}"
                    # Headscale's policy has no word for them.
                    assert said["capabilities"] == {}
                    assert said["subject"] == (await client.status())["Self"]["ID"]
                serving.cancel()
