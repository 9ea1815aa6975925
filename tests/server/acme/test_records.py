"""Records for dns-01: by a program, with whatever it may do wrong, and by updates of a real DNS server (Knot)."""

import asyncio
import os
import signal
import socket
from pathlib import Path

import dns.asyncresolver
import pytest
from tests.support.pebble import HOST, ZONE, Knot, running_knot
from tests.support.processes import gone
from tests.support.waiting import until

from doorward.config import Settings
from doorward.config.settings import Acme, AcmeDns, Tls
from doorward.server.acme import records
from doorward.server.acme.faults import AcmeError
from doorward.server.acme.records import Hook, Updates, records_of

NAME = f"_acme-challenge.door.{ZONE}"


def _program(folder: Path, text: str) -> Path:
    file = folder / "hook"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o700)
    return file


async def test_a_program_is_told_what_to_do_and_nothing_of_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOORWARD_DATABASE_URL", "postgresql://me:secret@db")
    monkeypatch.setenv("HOOK_TOKEN", "its own")
    told = tmp_path / "told"
    hook = Hook(_program(tmp_path, f'echo "$@" "$HOOK_TOKEN" "$DOORWARD_DATABASE_URL" >> {told}'))
    await hook.add(NAME, "value-_1")
    await hook.remove(NAME, "value-_1")
    assert told.read_text() == f"add {NAME} value-_1 its own \nremove {NAME} value-_1 its own \n"


async def test_what_a_program_says_when_it_fails_is_passed_on(tmp_path: Path) -> None:
    hook = Hook(_program(tmp_path, "echo one; echo no such zone >&2; exit 3"))
    with pytest.raises(AcmeError, match="ended with 3; it said: no such zone"):
        await hook.add(NAME, "value")
    with pytest.raises(AcmeError) as refused:
        await Hook(tmp_path / "nothing").add(NAME, "value")
    assert "executable" in refused.value.cure


async def test_a_program_that_does_not_end_is_ended_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = tmp_path / "pid"
    hook = Hook(_program(tmp_path, f"sleep 600 & echo $! > {started}; wait"))
    for patience in (0.3, 3, 20):  # a busy machine takes longer to start anything
        monkeypatch.setattr(records, "HOOK_PATIENCE", patience)
        with pytest.raises(AcmeError, match="did not end within"):
            await hook.add(NAME, "value")
        if started.exists() and started.read_text():
            break
    child = started.read_text().strip()
    await until(lambda: gone(child))


async def _texts(knot: Knot) -> list[str]:
    asking = dns.asyncresolver.Resolver(configure=False)
    asking.nameservers, asking.port = [HOST], knot.port
    answer = await asking.resolve(NAME, "TXT", raise_on_no_answer=False, lifetime=5)
    return sorted(record.strings[0].decode() for record in answer)


async def test_a_real_server_takes_records_and_loses_only_what_is_taken_away(tmp_path: Path) -> None:
    async with running_knot([f"door.{ZONE}"]) as knot:
        updates = Updates(f"{HOST}:{knot.port}", knot.key_file, 0)
        await updates.add(NAME, "one-_")
        await updates.add(NAME, "two")
        assert await _texts(knot) == ["one-_", "two"]
        await updates.remove(NAME, "one-_")
        assert await _texts(knot) == ["two"]
        with pytest.raises(AcmeError, match=r"does not answer for _acme-challenge\.door\.elsewhere\.org"):
            await updates.add("_acme-challenge.door.elsewhere.org", "value")
        wrong = tmp_path / "wrong"
        for text, reason in (
            (knot.key_file.read_text().replace(knot.secret, "d3Jvbmc="), "does not accept the key doorward"),
            (knot.key_file.read_text().replace("doorward", "nobody"), "does not accept the key nobody"),
            (knot.key_file.read_text().replace(knot.secret, "abc"), "cannot be used with the key"),
            (
                knot.key_file.read_text().replace("hmac-sha256", "hmac-nonsense"),
                "cannot be used with the key",
            ),
        ):
            wrong.write_text(text)
            wrong.chmod(0o600)
            with pytest.raises(AcmeError, match=reason) as refused:
                await Updates(f"{HOST}:{knot.port}", wrong, 0).add(NAME, "value")
            for secret in (knot.secret, "d3Jvbmc=", "abc"):
                assert secret not in str(refused.value.public())


async def test_a_server_that_is_not_there_or_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "key"
    file.write_text("hmac-sha256:doorward:c2VjcmV0")
    file.chmod(0o600)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setattr(records, "DNS_PATIENCE", 0.2)
        with pytest.raises(AcmeError, match=f"127.0.0.1 port {port} does not answer"):
            await Updates(f"127.0.0.1:{port}", file, 0).add(NAME, "value")
    with pytest.raises(AcmeError, match="cannot be reached"):
        await Updates(f"127.0.0.1:{port}", file, 0).add(NAME, "value")
    with pytest.raises(AcmeError, match="cannot be reached"):
        await Updates("nobody.invalid", file, 0).add(NAME, "value")


async def test_what_a_program_leaves_behind_is_not_waited_for(tmp_path: Path) -> None:
    started = tmp_path / "pid"
    hook = Hook(_program(tmp_path, f"sleep 600 & echo $! > {started}"))
    async with asyncio.timeout(5):
        await hook.add(NAME, "value")
    child = int(started.read_text())
    os.kill(child, signal.SIGKILL)  # it lived until now


async def test_of_much_that_a_program_says_the_end_is_kept(tmp_path: Path) -> None:
    hook = Hook(_program(tmp_path, "yes filler | head -c 1000000; echo; echo the end; exit 1"))
    with pytest.raises(AcmeError, match=r"it said: the end$"):
        await hook.add(NAME, "value")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("dns.example.com", ("dns.example.com", 53)),
        ("dns.example.com:5353", ("dns.example.com", 5353)),
        ("192.0.2.1", ("192.0.2.1", 53)),
        ("[2001:db8::1]:5353", ("2001:db8::1", 5353)),
        ("[2001:db8::1]", ("2001:db8::1", 53)),
        ("2001:db8::1", ("2001:db8::1", 53)),
    ],
)
def test_how_a_server_is_written(text: str, place: tuple[str, int]) -> None:
    updates = Updates(text, Path("key"), 0)
    assert (updates._host, updates._port) == place


def test_the_settings_choose() -> None:
    hook = Settings(tls=Tls(acme=Acme(hook=Path("/hook"))))
    assert isinstance(records_of(hook), Hook)
    updates = Settings(tls=Tls(acme=Acme(dns=AcmeDns(server="a", key=Path("/key")))))
    assert isinstance(records_of(updates), Updates)
