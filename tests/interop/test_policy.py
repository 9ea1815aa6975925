"""A policy on a live tailnet: what is said to happen happens, and it can be taken back."""

import pytest
from tests.support.clients import StockClient
from tests.support.machines import machines
from tests.support.server import Server
from tests.support.waiting import promptly

pytestmark = pytest.mark.interop

START = """{
  // nobody reaches anybody yet
  "groups": {"group:ops": []},
  "grants": [
    {"src": ["group:ops"], "dst": ["bob"], "ip": ["*"]}, // ops
  ],
}
"""
FAULTY = """{
  "groups": {"group:ops": ["alice"]},
  "grants": [
    {"src": ["group:opz"], "dst": ["*"], "ip": ["*"]},
    {"src": ["alice"], "dst": ["bob"], "ip": ["tcp:99999"]},
  ],
  "colour": "red",
}
"""


async def test_what_is_said_of_a_change_comes_true_and_can_be_taken_back(server: Server) -> None:
    await server.user("bob")
    await server.set_policy(START)
    async with machines(server, "laptop") as (laptop,), StockClient("bobs") as bobs:
        await bobs.up(server.url, await server.key("--user", "bob"))

        async def sees_bob() -> bool:
            return "bobs" in (await laptop.cli("status")).stdout

        async def sees_nobody() -> bool:
            return not await sees_bob()

        denied = await server.run("policy", "reach", "laptop", "bobs:22", check=False)
        assert denied.returncode == 1
        assert "Closest is grants[0] (line 5): " in denied.stdout
        assert "laptop is none of group:ops" in denied.stdout
        assert await sees_nobody()

        # What it would do, and then does within a second.
        file = server.folder / "wanted.hujson"
        file.write_text(START.replace('"group:ops": []', '"group:ops": ["alice"]'), encoding="utf-8")
        told = (await server.run("policy", "diff", str(file))).stdout
        assert told == "bobs:\n  + all ports from alice (laptop)\n"
        edited = await server.run("policy", "add-member", "group:ops", "alice", "--comment", "on call")
        assert '+  "groups": {"group:ops": ["alice"]},' in edited.stdout
        await promptly(sees_bob, within=1)
        assert "pong from bobs" in await laptop.ping("bobs")
        assert (await server.run("policy", "get")).stdout == file.read_text(encoding="utf-8")
        allowed = await server.json("policy", "reach", "laptop", "bobs:22")
        assert [rule["name"] for rule in allowed["ways"][0]["rules"]] == ["grants[0]"]

        # A file with three faults changes nothing; each is shown at its place.
        file.write_text(FAULTY, encoding="utf-8")
        refused = await server.run("policy", "set", str(file), check=False)
        places = [
            line.partition(": ")[0] for line in refused.stderr.splitlines() if line.startswith(str(file))
        ]
        assert refused.returncode == 1
        assert places == [f"{file}:{place}" for place in ("4:14", "5:47", "7:3")]
        assert await sees_bob()

        # A rollback takes it back within a second.
        assert "as version 4" in (await server.run("policy", "rollback", "--comment", "not yet")).stdout
        await promptly(sees_nobody, within=1)
        assert (await server.run("policy", "get")).stdout == START
        history = await server.json("policy", "history")
        assert [entry["comment"] for entry in history] == [
            "back to version 2: not yet",
            "on call",
            "",
            "default",
        ]


POSTURE = """{
  "postures": {"posture:oncall": ["node:os == 'linux'", "custom:oncall == true"]},
  "grants": [{"src": ["alice"], "dst": ["bob"], "ip": ["*"], "srcPosture": ["posture:oncall"]}],
}
"""


async def test_a_posture_cuts_a_running_client_off_and_lets_it_back(server: Server) -> None:
    await server.user("bob")
    await server.set_policy(POSTURE)
    async with machines(server, "laptop") as (laptop,), StockClient("bobs") as bobs:
        await bobs.up(server.url, await server.key("--user", "bob"))

        async def sees_bob() -> bool:
            return "bobs" in (await laptop.cli("status")).stdout

        async def sees_nobody() -> bool:
            return not await sees_bob()

        shown = (await server.run("nodes", "attributes", "laptop")).stdout
        assert "posture:oncall is not met: custom:oncall == true does not hold" in shown
        assert await sees_nobody()

        # Said by an administrator, taken back, and said for a while: each time the client follows within a second.
        await server.run("nodes", "attributes", "laptop", "custom:oncall=true")
        await promptly(sees_bob, within=1)
        assert "pong from bobs" in await laptop.ping("bobs")
        await server.run("nodes", "attributes", "laptop", "--remove", "custom:oncall")
        await promptly(sees_nobody, within=1)
        said = await server.run("nodes", "attributes", "laptop", "custom:oncall=true", "--expires", "4s")
        assert "posture:oncall is met" in said.stdout
        await promptly(sees_bob, within=1)
        await promptly(sees_nobody, within=6)
