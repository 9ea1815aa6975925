import asyncio
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from tests.store.test_apps import grant
from tests.support import nouns
from tests.support.clock import FakeClock
from tests.support.office import VERIFIER, Office, Party

from doorward.engine.processes import tied_to_us
from doorward.issuer.grants.authorization_code import Redemption, redeem_all
from doorward.model import App
from doorward.store import Connection, Database, apps, users
from doorward.tailnet import secrets

APP = "doorward.dev/cap/app"


@pytest.fixture
async def party(office: Office) -> Party:
    await office.person("ann")
    made = await office.app()
    await made.send(scope="openid offline_access")
    return made


async def test_a_second_use_of_a_code_ends_what_came_of_it(office: Office, party: Party) -> None:
    assert (await party.redeem()).status_code == 200
    office.world.clock.advance(timedelta(seconds=30))
    assert (await party.redeem()).json()["error"] == "invalid_grant"
    assert (await party.userinfo()).status_code == 401
    assert (await party.refresh()).json()["error"] == "invalid_grant"
    (event,) = await office.audited("app.replay")
    assert event.details["why"] == "a code was used twice"


async def test_t14_of_many_at_once_one_gets_tokens(party: Party) -> None:
    async with asyncio.TaskGroup() as group:
        tries = [group.create_task(party.redeem()) for _ in range(10)]
    assert sorted(one.result().status_code for one in tries) == [200] + [400] * 9


@pytest.mark.parametrize(
    "changes",
    [
        {"code": "dwcode-x"},
        {"redirect_uri": "https://grafana.example.com/other"},
        {"redirect_uri": ""},
        {"code_verifier": ""},
        {"code_verifier": VERIFIER + "x"},
        {"code_verifier": "short"},
    ],
    ids=repr,
)
async def test_t14_a_stolen_code_is_worth_nothing_and_not_spoilt(
    party: Party, changes: dict[str, str]
) -> None:
    said = await party.redeem(**changes)
    assert (said.status_code, said.json()["error"]) == (400, "invalid_grant")
    assert (await party.redeem()).status_code == 200


async def test_t14_a_code_is_its_own_app_s(office: Office, party: Party) -> None:
    other = await office.app("wiki")
    assert (await other.redeem(party.answer["code"])).json()["error"] == "invalid_grant"
    assert (await party.redeem()).status_code == 200


async def test_t14_a_code_is_over_in_a_minute(office: Office, party: Party) -> None:
    office.world.clock.advance(60)
    assert (await party.redeem()).json()["error"] == "invalid_grant"
    assert await office.audited("app.replay") == []


async def test_a_verifier_without_a_challenge_is_a_downgrade(office: Office, party: Party) -> None:
    await party.send(code_challenge=None, code_challenge_method=None)
    assert (await party.redeem()).json()["error"] == "invalid_grant"
    assert (await party.redeem(code_verifier="")).status_code == 200


async def test_t13_the_policy_of_now_counts(office: Office, party: Party) -> None:
    rule = f'{{"src": ["ann"], "dst": ["*"], "app": {{"{APP}": [{{"apps": ["wiki"]}}]}}}}'
    await office.policy(f'{{"grants": [{rule}]}}')
    assert (await party.redeem()).json()["error"] == "invalid_grant"


async def test_a_code_is_for_its_resources(office: Office) -> None:
    await office.person("bob", 2)
    party = await office.app("mcp", resources=("https://a.example", "https://b.example"))
    await party.send(resource="https://a.example")
    assert (await party.redeem(resource="https://b.example")).json()["error"] == "invalid_target"
    assert (await party.redeem(resource="https://c.example")).json()["error"] == "invalid_target"
    assert (await party.redeem(resource="https://a.example")).status_code == 200


async def test_nothing_secret_is_kept_or_on_record(office: Office, party: Party) -> None:
    await party.redeem()
    await party.refresh()
    text = b"".join(file.read_bytes() for file in office.world.folder.glob("doorward.db*"))
    for secret in (
        party.answer["code"],
        party.secret,
        party.tokens["refresh_token"],
        party.tokens["access_token"],
    ):
        assert secret.encode() not in text


async def test_killed_between_consuming_and_answering_no_code_is_good_twice(tmp_path: Path) -> None:
    """All that belongs to a redemption is there, or nothing: and whatever was acknowledged is not good again."""
    location, count = str(tmp_path / "doorward.db"), 2000
    async with await Database.open(location, clock=FakeClock()) as database:
        person = await database.run(users.insert, nouns.user())
        draft = App(id=0, name="a", client_id="app-a", secret_hash=b"x", actor="", created=nouns.NOW)
        app = await database.run(apps.insert, draft)
        await database.run(_many_grants, app, person.id, count)
    process = await asyncio.create_subprocess_exec(
        *tied_to_us([sys.executable, "-m", "tests.support.redeeming", location]), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    said = [await process.stdout.readline() for _ in range(20)]
    process.kill()
    said += (await process.stdout.read()).splitlines()
    await process.wait()
    acknowledged = {int(line) for line in said if line.strip()}
    assert 20 <= len(acknowledged) < count
    async with await Database.open(location, clock=FakeClock()) as database:
        for number in range(1, max(acknowledged) + 50):
            token = secrets.make("dwrefresh", number.to_bytes(24))
            known = await database.read(apps.refresh_token, token.digest)
            found = await database.read(apps.grant_by_id, number)
            assert found is not None
            assert (found.redeemed is not None) == (known is not None)
            assert number not in acknowledged or known is not None
            again = await database.share(redeem_all, Redemption(app, number, None, nouns.NOW))
            assert again == (known is None)


def _many_grants(connection: Connection, app: App, user_id: int, count: int) -> None:
    for number in range(count):
        apps.insert_grant(connection, grant(app, user_id, number.to_bytes(2)))
