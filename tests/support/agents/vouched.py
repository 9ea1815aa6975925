"""An MCP client by the ``mcp`` SDK that brings another organization's word about its person (ID-JAG).

``python -m tests.support.agents.vouched``, with its settings as JSON on the standard input: address, resource, issuer, client_id, secret,
words (each good once), tools. What the tools answered, and how many words it took, comes as JSON on the standard output.
"""

import asyncio
import json
import sys

import httpx2
from mcp import Client
from mcp.client.auth.extensions.identity_assertion import IdentityAssertionOAuthProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken


class Memory:
    """Keeps tokens as long as the program lasts."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None

    async def get_tokens(self) -> OAuthToken | None:
        """As the SDK wants it."""
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        """As the SDK wants it."""
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        """As the SDK wants it."""
        return None

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        """As the SDK wants it."""


async def main() -> None:
    """All of it."""
    said = json.loads(sys.stdin.read())
    words = list(said["words"])

    async def word(audience: str, resource: str) -> str:
        assert (audience, resource) == (said["issuer"], said["resource"])
        return str(words.pop(0))

    storage = Memory()
    auth = IdentityAssertionOAuthProvider(
        server_url=said["resource"],
        storage=storage,
        client_id=said["client_id"],
        client_secret=said["secret"],
        issuer=said["issuer"],
        assertion_provider=word,
        scope="files:read",
    )
    answers = []
    async with (
        httpx2.AsyncClient(auth=auth) as http,
        Client(streamable_http_client(said["address"], http_client=http)) as server,
    ):
        for tool, arguments in said["tools"]:
            answers.append((await server.call_tool(tool, arguments)).content[0].text)
    assert storage.tokens is not None
    left = len(said["words"]) - len(words)
    sys.stdout.write(json.dumps({"answers": answers, "words": left, "scope": storage.tokens.scope}))


if __name__ == "__main__":
    asyncio.run(main())
