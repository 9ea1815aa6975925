"""Joining over the real transport: what a client is answered, and at which status."""

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from tests.support.served_control import Served, machine, node
from tests.support.waiting import until
from tests.support.world import CAPVER

from doorward.control import register
from doorward.engine.client import RegistrationRefused
from doorward.errors import BadInput, Conflict, DoorwardError, TooMany, Unavailable
from doorward.model import TAGGED_DEVICES_USER_ID
from doorward.protocol.tailcfg.hostinfo import Hostinfo
from doorward.protocol.tailcfg.register import LOGOUT_EXPIRY, RegisterRequest
from doorward.store.faults import CommitFailed
from doorward.tailnet.admission import Outcome


async def test_joining_with_a_key(served: Served) -> None:
    _, auth = await served.world.registry.create_auth_key("test", user="ann")
    async with served.client(1) as client:
        answer = await client.join(auth_key=auth)
    assert answer.MachineAuthorized
    assert (answer.User.ID, answer.User.DisplayName) == (1, "ann")
    assert (answer.Login.Provider, answer.Login.LoginName) == ("doorward", "ann")
    known = served.world.registry.snapshot.node_by_key(node(1).public())
    assert known is not None
    assert known.machine_key == machine(1).public()


async def test_a_tagged_node_belongs_to_nobody(served: Served) -> None:
    await served.world.registry.set_policy("test", '{"tagOwners": {"tag:x": []}, "grants": []}')
    _, auth = await served.world.registry.create_auth_key("test", user="ann", tags=["tag:x"])
    answer = await (await served.link(1)).register(1, auth=auth)
    assert (answer.User.ID, answer.Login.LoginName) == (TAGGED_DEVICES_USER_ID, "tagged-devices")


async def test_an_answer_is_whole(served: Served) -> None:
    """Some clients insist on every field (control.md, section 29)."""
    link = await served.link(1)
    body = RegisterRequest(Version=CAPVER, NodeKey=node(1).public())
    status, data, response = await link.ask("/machine/register", body)
    assert status == 200
    assert response.get("content-type") == "application/json"
    answer = msgspec.json.decode(data)
    assert set(answer) == {"User", "Login", "NodeKeyExpired", "MachineAuthorized", "AuthURL", "Error"}
    assert answer["AuthURL"].startswith(served.world.registry.snapshot.settings.url + "/join/")
    assert answer["MachineAuthorized"] is False


REFUSALS: list[tuple[dict[str, Any], str]] = [
    (
        {"auth": "dwkey-wrong-one"},
        "there is no such auth key. Was it copied whole? `doorward keys create` makes one.",
    ),
    ({"Version": 100}, "this client is too old for this tailnet. Update it to Tailscale 1.80 or newer."),
]


@pytest.mark.parametrize(("fields", "sentence"), REFUSALS)
async def test_a_refusal_is_a_sentence_at_200(served: Served, fields: dict[str, Any], sentence: str) -> None:
    answer = await (await served.link(1)).register(1, **fields)
    assert answer.Error == sentence
    assert not answer.MachineAuthorized
    assert answer.AuthURL == ""


async def test_every_reason_of_a_refusal_reaches_the_client(served: Served) -> None:
    registry = served.world.registry
    _, used = await registry.create_auth_key("test", user="ann")
    _, revoked = await registry.create_auth_key("test", user="ann")
    _, old = await registry.create_auth_key("test", user="ann", expires_in=timedelta(seconds=9))
    _, good = await registry.create_auth_key("test", user="bob", reusable=True)
    await registry.revoke_auth_key("test", 2)
    link = await served.link(1)
    await link.register(1, auth=used)
    served.world.clock.advance(10)
    for auth, what in ((used, "used already"), (revoked, "was revoked"), (old, "has expired")):
        assert what in (await link.register(2, auth=auth)).Error
    tagged = Hostinfo(RequestTags=["tag:x"])
    assert "may not give the tag tag:x" in (await link.register(2, auth=good, Hostinfo=tagged)).Error
    await registry.suspend_user("test", "bob", suspended=True)
    assert "bob is suspended" in (await link.register(2, auth=good)).Error
    assert "belongs to another machine" in (await (await served.link(2)).register(1)).Error


async def test_a_connection_hears_the_same_refusal_again_only_after_a_while(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stock client repeats what was refused, and a person who begins anew meanwhile would be shown that answer."""
    registry = served.world.registry
    decide, decided = registry.admission.register, 0

    async def counted(*arguments: Any) -> Outcome:
        nonlocal decided
        try:
            return await decide(*arguments)
        finally:
            decided += 1

    monkeypatch.setattr(registry.admission, "register", counted)
    link, anew = await served.link(1), await served.link(1)
    assert "no such auth key" in (await link.register(1, auth="dwkey-wrong")).Error
    async with asyncio.TaskGroup() as group:
        repeated = group.create_task(link.register(2, auth="dwkey-wrong"))
        await until(lambda: decided == 2)
        # Whoever begins anew has a connection of their own, and is told at once, of the very same key.
        assert "no such auth key" in (await anew.register(1, auth="dwkey-wrong")).Error
        # On the same one another question is another matter, and so is one whose answer is another by now.
        url = (await link.register(3)).AuthURL
        await registry.deny("cli", url)
        assert "somebody denied it" in (await link.register(3, Followup=url)).Error
        assert not repeated.done()
        repeated.cancel()
    monkeypatch.setattr(register, "AGAIN", 0.01)
    for _ in range(3):
        assert "somebody denied it" in (await link.register(3, Followup=url)).Error


async def test_what_was_refused_is_looked_at_anew_each_time(served: Served) -> None:
    """Who is let in after all does not wait."""
    registry = served.world.registry
    _, auth = await registry.create_auth_key("test", user="ann")
    await registry.suspend_user("test", "ann", suspended=True)
    link = await served.link(1)
    assert "ann is suspended" in (await link.register(1, auth=auth)).Error
    await registry.suspend_user("test", "ann", suspended=False)
    assert (await link.register(1, auth=auth)).MachineAuthorized


async def test_the_client_raises_the_refusal(served: Served) -> None:
    async with served.client(1) as client:
        with pytest.raises(RegistrationRefused, match="no such auth key"):
            await client.join(auth_key="dwkey-wrong")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Unavailable("the database cannot be written"), 503),
        (CommitFailed("the disk is full"), 503),
        (TooMany("too many changes wait"), 429),
        (DoorwardError("the database was used wrongly", detail="SELECT secret"), 500),
        (RuntimeError("a mistake of ours, with a secret"), 500),
    ],
)
async def test_our_own_trouble_is_no_refusal(
    served: Served, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    """A refusal is final for the client; trouble passes, so it is to come again."""

    async def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(served.world.registry.admission, "register", fail)
    body = RegisterRequest(Version=CAPVER, NodeKey=node(1).public())
    got, text, response = await (await served.link(1)).ask("/machine/register", body)
    assert got == status
    assert b"secret" not in text
    assert response.get("retry-after") == ("5" if status == 429 else None)


@pytest.mark.parametrize("error", [BadInput("no"), Conflict("no", cure="Do this.")])
async def test_whatever_the_client_can_change_is_a_refusal(
    served: Served, monkeypatch: pytest.MonkeyPatch, error: DoorwardError
) -> None:
    async def refuse(*_: Any) -> None:
        raise error

    monkeypatch.setattr(served.world.registry.admission, "register", refuse)
    assert (await (await served.link(1)).register(1)).Error == error.sentence()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"Version": 140}',
        b'{"Version": 140, "NodeKey": "mkey:00"}',
        b'{"Version": 140, "NodeKey": ""}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"Version": 140, "NodeKey": "nodekey:' + b"0" * 64 + b'", "Hostinfo": {"Hostname": "\\u0000"}}',
    ],
)
async def test_what_is_no_request_is_answered_400(served: Served, body: bytes) -> None:
    link = await served.link(1)
    status, text, _ = await link.ask("/machine/register", body)
    assert status == 400
    assert text.strip()
    assert (await link.register(1)).AuthURL  # the connection goes on


async def test_a_body_that_is_too_large(served: Served) -> None:
    link = await served.link(1)
    status, text, _ = await link.ask("/machine/register", b" " * ((1 << 20) + 1))
    assert status == 413
    assert b"1048576 bytes" in text
    assert (await link.register(1)).AuthURL


async def test_a_person_approves_while_the_client_waits(served: Served) -> None:
    links: list[str] = []
    async with served.client(1) as client, asyncio.TaskGroup() as group:
        joining = group.create_task(client.join(show=links.append))
        await until(lambda: served.world.registry.admission.waiting() == 1)
        assert not joining.done()
        await served.world.registry.approve("cli", links[0], user="bob")
    assert joining.result().MachineAuthorized
    assert joining.result().Login.LoginName == "bob"
    assert len(links) == 1


async def test_a_client_that_hangs_up_is_waited_for_no_more(served: Served) -> None:
    link = await served.link(1)
    url = (await link.register(1)).AuthURL
    async with asyncio.TaskGroup() as group:
        poll = group.create_task(link.register(1, Followup=url))
        await until(lambda: served.world.registry.admission.waiting() == 1)
        poll.cancel()
    link.h2.close()
    await until(lambda: served.world.registry.admission.waiting() == 0)


async def test_a_key_that_ended_is_replaced_by_the_client_itself(served: Served) -> None:
    registry = served.world.registry
    _, auth = await registry.create_auth_key("test", user="ann", reusable=True)
    async with served.client(1) as client:
        await client.join(auth_key=auth)
        (known,) = registry.snapshot.nodes.values()
        await registry.expire_node("test", known.id)
        assert (await (await served.link(1)).register(1)).NodeKeyExpired
        assert (await client.join(auth_key=auth)).MachineAuthorized
        (now,) = registry.snapshot.nodes.values()
        assert (now.id, now.node_key) == (known.id, client.node.public())
        assert now.node_key != known.node_key


async def test_logging_out(served: Served) -> None:
    link = await served.link(1)
    await link.join(1)
    answer = await link.register(1, Expiry=LOGOUT_EXPIRY, auth="dwkey-whatever")
    assert (answer.NodeKeyExpired, answer.Error, answer.MachineAuthorized) == (True, "", False)
    (known,) = served.world.registry.snapshot.nodes.values()
    assert known.expired(served.world.clock.now())


async def test_two_clients_with_one_single_use_key(served: Served) -> None:
    _, auth = await served.world.registry.create_auth_key("test", user="ann")
    links = [await served.link(number) for number in (1, 2)]
    answers = await asyncio.gather(*(link.register(n, auth=auth) for n, link in enumerate(links, 1)))
    assert sorted(answer.MachineAuthorized for answer in answers) == [False, True]
    assert [bool(answer.Error) for answer in answers] == [not answer.MachineAuthorized for answer in answers]
    assert len(served.world.registry.snapshot.nodes) == 1
