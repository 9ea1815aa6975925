"""The way in: what ssh asks for is answered before anything else is loaded."""

import subprocess
import sys
from pathlib import Path

from tests.support.localapi import answered, daemon, peer, status


def test_ssh_does_not_wait_for_what_other_commands_need(tmp_path: Path) -> None:
    code = "import sys, atexit; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); from doorward.cli import main; main()"
    with daemon(tmp_path, answered(status(peer("server.tail.net.", "ssh-ed25519 AAAA")))) as path:
        done = subprocess.run(
            [sys.executable, "-c", code, "ssh", "known-hosts", f"--socket={path}", "--", "server"],
            capture_output=True,
            text=True,
            check=True,
        )
    assert done.stdout.startswith("server ssh-ed25519")
    loaded = set(done.stderr.split())
    assert {name for name in loaded if name.startswith("doorward")} == {
        "doorward",
        "doorward.cli",
        "doorward.cli.known_hosts",
    }
    assert not loaded & {"msgspec", "cyclopts", "asyncio", "ssl", "typing", "http.client"}
