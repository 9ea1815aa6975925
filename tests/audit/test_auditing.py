"""The service as a process has it: keys, destinations from the settings, and what status and doctor say."""

import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.auditing import tamper
from tests.support.collecting import webhook
from tests.support.world import World, open_world

from doorward.api.types import Part
from doorward.audit import Auditing
from doorward.audit.auditing import WEBHOOK_SECRET_FILE, destinations
from doorward.config import Settings
from doorward.config.settings import Audit
from doorward.errors import BadInput, Unavailable
from doorward.protocol.auditlog import read_event
from doorward.store import checkpoints


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(tmp_path) as made:
        yield made


def settings(folder: Path, **audit: Any) -> Settings:
    return Settings(data_dir=folder, audit=Audit(**audit))


async def step(auditing: Auditing) -> None:
    for delivery in auditing._deliveries:
        await delivery.step()


async def parts(auditing: Auditing) -> dict[str, Part]:
    return {part.name: part for part in await auditing.parts()}


async def test_keys_are_files_for_their_owner_alone(world: World, tmp_path: Path) -> None:
    one = Auditing(settings(tmp_path, webhook="https://a.test/"), world.registry, world.clock)
    two = Auditing(settings(tmp_path), world.registry, world.clock)
    assert one.public_key == two.public_key
    for name in ("audit.key", WEBHOOK_SECRET_FILE):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert (tmp_path / WEBHOOK_SECRET_FILE).read_text().startswith("whsec_")
    assert (tmp_path / "audit.pub").read_text().strip() == str(one.public_key)
    await one.aclose()
    (tmp_path / "audit.key").write_text("nonsense\n")
    with pytest.raises(BadInput):
        Auditing(settings(tmp_path), world.registry, world.clock)


async def test_settings_name_the_destinations(world: World, tmp_path: Path) -> None:
    assert destinations(settings(tmp_path), world.clock) == []
    wanted = settings(
        tmp_path, file=tmp_path / "audit.jsonl", syslog="unix:/dev/log", webhook="https://a.test/x?token=y"
    )
    found = destinations(wanted, world.clock)
    assert [(one.kind, one.shown) for one in found] == [
        ("file", str(tmp_path / "audit.jsonl")),
        ("syslog", "unix:/dev/log"),
        ("webhook", "https://a.test"),
    ]
    for one in found:
        await one.close()
    nothing = tmp_path / "nothing.pem"
    with pytest.raises(BadInput, match="authorities") as refused:
        destinations(settings(tmp_path, authority=nothing), world.clock)
    assert refused.value.place == str(nothing)


async def test_status_says_how_far_each_has_come(world: World, tmp_path: Path) -> None:
    async with webhook() as server:
        wanted = settings(
            tmp_path, file=tmp_path / "audit.jsonl", webhook=f"http://127.0.0.1:{server.port}/SECRET"
        )
        auditing = Auditing(wanted, world.registry, world.clock)
        await world.registry.create_user("cli", "ann")
        found = await parts(auditing)
        assert found["audit"].text == "2 events"
        assert found["audit file"].text == f"{tmp_path}/audit.jsonl: 2 events behind"
        server.answers.append((500, ""))
        await step(auditing)
        await auditing._notary.look()
        found = await parts(auditing)
        assert found["audit"].text == "2 events, signed up to 2 at 2026-01-02 03:04:05 UTC"
        assert found["audit file"] == Part(
            name="audit file", state="running", text=f"{tmp_path}/audit.jsonl: has every event"
        )
        failing = found["audit webhook"]
        assert failing.state == "failing"
        assert "2 events behind, since 2026-01-02 03:04:05 UTC: " in failing.text
        assert "status 500" in failing.text
        assert "SECRET" not in failing.text
        findings = await auditing.findings()
        assert [(one.level, one.subject) for one in findings] == [
            ("ok", "audit"),
            ("warning", "audit webhook"),
        ]
        await step(auditing)
        assert {part.state for part in await auditing.parts()} == {"running"}
        await auditing.aclose()
    lines = (tmp_path / "audit.jsonl").read_bytes().splitlines()
    assert [read_event(line).seq for line in lines] == [1, 2]
    assert len(msgspec.json.decode(server.requests[-1].body)["events"]) == 2


async def test_the_doctor_sees_what_was_changed(world: World, tmp_path: Path) -> None:
    auditing = Auditing(settings(tmp_path), world.registry, world.clock)
    await world.registry.create_user("cli", "ann")
    await auditing._notary.look()
    await world.registry.create_user("cli", "bob")
    await world.registry.writer.database.run(tamper, "UPDATE audit SET actor = 'nobody' WHERE seq = 3")
    await auditing._notary.look(now=True)
    (finding,) = await auditing.findings()
    assert (finding.level, finding.subject) == ("error", "audit")
    assert "event 3 was altered" in finding.message
    assert "audit-checkpoints.jsonl" in finding.cure
    (part,) = await auditing.parts()
    assert (part.state, "event 3 was altered" in part.text) == ("failing", True)


async def test_at_the_end_what_is_new_is_signed(world: World, tmp_path: Path) -> None:
    auditing = Auditing(settings(tmp_path), world.registry, world.clock)
    await world.registry.create_user("cli", "ann")
    await auditing.aclose()
    database = world.registry.writer.database
    (signed,) = await database.read(checkpoints.load)
    assert (signed.seq, signed.key) == (2, auditing.public_key)
    await auditing.aclose()
    assert len(await database.read(checkpoints.load)) == 1


async def test_while_the_store_is_away_nothing_is_said_of_it(world: World, tmp_path: Path) -> None:
    auditing = Auditing(settings(tmp_path, file=tmp_path / "a"), world.registry, world.clock)
    await world.registry.writer.database.close()
    assert await auditing.parts() == []
    with pytest.raises(Unavailable):
        await auditing.findings()
    await auditing.aclose()


async def test_of_several_processes_who_ends_gives_its_destinations_up(world: World, tmp_path: Path) -> None:
    auditing = Auditing(settings(tmp_path, file=tmp_path / "a"), world.registry, world.clock)
    database, name = world.registry.writer.database, auditing._deliveries[0].destination.name
    world.registry.writer.process = type("Process", (), {"id": 5, "boot": 1})()
    await step(auditing)
    assert await database.run(checkpoints.hold, name, 6, 30.0) is None
    await auditing.aclose()
    assert await database.run(checkpoints.hold, name, 6, 30.0) == 1
