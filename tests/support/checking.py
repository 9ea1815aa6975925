"""A tailnet in which some ssh has to be approved."""

import json
from typing import Any, NamedTuple

from tests.support.world import World

from doorward.model import Check, Node
from doorward.tailnet.sshrules import Attempt

CHECK: dict[str, Any] = {
    "action": "check",
    "src": ["ann"],
    "dst": ["tag:server"],
    "users": ["root"],
    "checkPeriod": "1h",
}
NONROOT: dict[str, Any] = {
    "action": "accept",
    "src": ["ann"],
    "dst": ["tag:server"],
    "users": ["autogroup:nonroot"],
    "doorward:message": "hello",
}
BY_OTHERS: dict[str, Any] = {
    "action": "check",
    "src": ["tag:ci"],
    "dst": ["tag:server"],
    "users": ["deploy"],
    "checkPeriod": "always",
    "doorward:approvers": ["ann", "autogroup:admin"],
}


def policy(*rules: dict[str, Any]) -> str:
    """These rules of ssh, where everybody reaches everything."""
    return json.dumps(
        {
            "tagOwners": {"tag:server": [], "tag:ci": []},
            "grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}],
            "ssh": list(rules),
        }
    )


POLICY = policy(CHECK, NONROOT, BY_OTHERS)


class Scene(NamedTuple):
    """Who is there."""

    world: World
    laptop: Node  # ann's
    other: Node  # bob's
    runner: Node  # tag:ci
    server: Node  # tag:server

    def attempt(self, source: Node | None = None, ssh_user: str = "root", account: str = "") -> Attempt:
        """An ssh to the server, from the laptop unless said otherwise."""
        return Attempt(
            source_id=(source or self.laptop).id,
            target_id=self.server.id,
            ssh_user=ssh_user,
            account=account or ssh_user,
        )

    async def ask(self, attempt: Attempt) -> Check:
        """The check for an attempt that needs one."""
        registry = self.world.registry
        match = registry.snapshot.policy.ssh_match(attempt.source_id, attempt.target_id, attempt.ssh_user)
        assert match is not None
        return await registry.checks.ask(attempt, match, {"source": "laptop"})
