"""The package as a program sees it: light to import, and the guide's examples as they stand there."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.support import idtokens
from tests.support.clock import FakeClock

from doorward import identity
from doorward.errors import BadInput

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "identity.md"
# What a program may have to install for the parts of doorward.identity that check tokens and ask the host's daemon.
LIGHT = {"backports", "cryptography", "doorward", "httpx2", "idna", "joserfc", "msgspec", "typing_extensions"}


def examples() -> list[str]:
    """The guide's programs: by tokens, by the connection, a node of its own."""
    return re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


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
    room: dict[str, Any] = {}
    exec(compile(examples()[0], "identity.md", "exec"), room)
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
