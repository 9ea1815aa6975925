"""A relying party by idpyoidc, whose family of libraries is certified: it speaks lines of JSON (``tests.support.house``)."""

import asyncio
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from idpyoidc.client.oauth2.stand_alone_client import StandAloneClient
from idpyoidc.client.rp_handler import RPHandler
from tests.support.agents.lines import serve

_PKCE = {
    "function": "idpyoidc.client.oauth2.add_on.pkce.add_support",
    "kwargs": {"code_challenge_length": 64, "code_challenge_method": "S256"},
}


class Relying:
    """The verbs."""

    def __init__(self) -> None:
        self._handler: RPHandler | None = None
        self._issuer = self._state = ""

    async def discover(
        self, *, issuer: str, client_id: str, secret: str, redirect_uri: str, scopes: list[str]
    ) -> None:
        """Take the app's settings; what the issuer says of itself is read when it is first needed."""
        settings = {
            "client_type": "oidc",
            "issuer": issuer,
            "client_id": client_id,
            "client_secret": secret,
            "redirect_uris": [redirect_uri],
            "response_types_supported": ["code"],
            "scopes_supported": scopes,
            "token_endpoint_auth_methods_supported": ["client_secret_basic"],
            "client_authn_methods": ["client_secret_basic", "bearer_header"],
            "add_ons": {"pkce": _PKCE},
        }
        self._issuer = issuer
        self._handler = RPHandler(
            base_url="https://app.example.com",
            client_configs={issuer: settings},
            key_conf={
                "key_defs": [{"type": "EC", "crv": "P-256", "use": ["sig"]}]
            },  # else it keeps files where it runs
        )

    async def start(self) -> str:
        """Where the browser is sent."""
        assert self._handler is not None
        return str(await asyncio.to_thread(self._handler.begin, self._issuer))

    async def finish(self, url: str) -> dict[str, Any]:
        """The browser came back; what the library made of it."""
        assert self._handler is not None
        said = dict(parse_qsl(urlsplit(url).query))
        done = await asyncio.to_thread(self._handler.finalize, self._issuer, said)
        if "error" in done:
            return {"error": done["error"]}
        self._state = done["state"]
        return {"claims": done["id_token"].to_dict(), "userinfo": done["userinfo"].to_dict()}

    async def refresh(self) -> dict[str, Any]:
        """New tokens; which refresh token there was, and which there is."""
        assert self._handler is not None
        before = self._known("refresh_token")
        await asyncio.to_thread(self._handler.refresh_access_token, self._state)
        return {"before": before, "after": self._known("refresh_token")}

    async def put_back(self, token: str) -> None:
        """Take a refresh token of before for the one to use."""
        self._client().get_context().cstate.update(self._state, {"refresh_token": token})

    def _known(self, name: str) -> str:
        found = self._client().get_context().cstate.get_set(self._state, claim=[name])
        return str(found[name])

    def _client(self) -> StandAloneClient:
        assert self._handler is not None
        return self._handler.issuer2rp[self._issuer]


if __name__ == "__main__":
    me = Relying()
    asyncio.run(
        serve(
            {
                "discover": me.discover,
                "start": me.start,
                "finish": me.finish,
                "refresh": me.refresh,
                "put_back": me.put_back,
            }
        )
    )
