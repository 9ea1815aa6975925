"""Files and webhooks get what an export has, whole or not at all."""

import base64
import hashlib
import hmac
from pathlib import Path

import msgspec
import pytest
from tests.support.auditing import events_of
from tests.support.certificates import tls_contexts
from tests.support.clock import FakeClock
from tests.support.collecting import webhook

from doorward.api.audit_types import Event
from doorward.audit.destinations import (
    Deferred,
    Destination,
    FileDestination,
    WebhookDestination,
    key_of,
    line_of,
    signature,
)
from doorward.errors import BadInput, Unavailable
from doorward.protocol.auditlog import Walk, read_event
from doorward.store import Database

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def seqs(file: Path) -> list[int]:
    return [read_event(line).seq for line in file.read_bytes().splitlines()]


async def test_a_file_gets_each_event_once_whatever_is_delivered_again(
    database: Database, tmp_path: Path
) -> None:
    events, file = await events_of(database, 10), tmp_path / "audit.jsonl"
    destination = FileDestination(file)
    await destination.deliver(events[:4])
    await destination.deliver(events[:4])  # the cursor did not move on
    await destination.deliver(events[2:6])
    file.write_bytes(file.read_bytes()[:-20])  # and the power failed
    await destination.deliver(events[4:6])
    await destination.deliver(events[6:])
    assert seqs(file) == list(range(1, 11))
    walk = Walk()
    for line in file.read_bytes().splitlines():
        walk.step(read_event(line))
    assert walk.finish().problems == ()


async def test_a_rotated_file_goes_on_in_the_next(database: Database, tmp_path: Path) -> None:
    events, file = await events_of(database, 6), tmp_path / "audit.jsonl"
    destination = FileDestination(file)
    await destination.deliver(events[:3])
    file.rename(tmp_path / "audit.jsonl.1")
    await destination.deliver(events[3:])
    assert (seqs(tmp_path / "audit.jsonl.1"), seqs(file)) == ([1, 2, 3], [4, 5, 6])


async def test_what_else_is_in_the_file_stays(database: Database, tmp_path: Path) -> None:
    events, file = await events_of(database, 2), tmp_path / "audit.jsonl"
    file.write_text("something else\n")
    await FileDestination(file).deliver(events)
    assert file.read_text() == "".join(["something else\n", *(f"{line_of(event)}\n" for event in events)])


async def test_a_webhook_gets_a_batch_that_it_can_check(database: Database, clock: FakeClock) -> None:
    events = await events_of(database, 3)
    async with webhook() as server:
        destination = WebhookDestination(f"http://127.0.0.1:{server.port}/hook?token=x", SECRET, clock.now)
        await destination.deliver(events)
        await destination.deliver(events)
        await destination.close()
    one, two = server.requests
    assert msgspec.json.decode(one.body, type=dict[str, list[Event]]) == {"events": events}
    assert one.path == "/hook?token=x"
    assert one.headers["content-type"] == "application/json"
    assert one.headers["webhook-id"] == two.headers["webhook-id"]  # a receiver knows that it came twice
    assert one.headers["webhook-timestamp"] == str(int(clock.now().timestamp()))
    text = f"{one.headers['webhook-id']}.{one.headers['webhook-timestamp']}.".encode() + one.body
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    expected = base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode()
    assert one.headers["webhook-signature"] == f"v1,{expected}"


def test_the_signature_is_that_of_standard_webhooks() -> None:
    """The example of its specification."""
    found = signature(key_of(SECRET), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert found["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_over_tls_only_who_is_trusted_gets_anything(database: Database, clock: FakeClock) -> None:
    events = await events_of(database, 1)
    server_context, client_context = tls_contexts()
    async with webhook(server_context) as server:
        url = f"https://localhost:{server.port}/"
        stranger = WebhookDestination(url, SECRET, clock.now)
        with pytest.raises(Unavailable):
            await stranger.deliver(events)
        assert server.requests == []
        destination = WebhookDestination(url, SECRET, clock.now, ssl_context=client_context)
        await destination.deliver(events)
        assert len(server.requests) == 1
        await stranger.close()
        await destination.close()


@pytest.mark.parametrize("status", [302, 400, 401, 404, 500, 503])
async def test_whatever_does_not_say_that_it_has_them_is_a_failure(
    database: Database, clock: FakeClock, status: int
) -> None:
    events = await events_of(database, 1)
    async with webhook() as server:
        server.answers.append((status, "Location: http://127.0.0.1:1/\r\n"))
        destination = WebhookDestination(f"http://127.0.0.1:{server.port}/services/SECRET", SECRET, clock.now)
        with pytest.raises(Unavailable, match=f"status {status}") as refused:
            await destination.deliver(events)
        assert "SECRET" not in refused.value.sentence() + destination.shown + destination.name
        await destination.close()
    assert len(server.requests) == 1
    with pytest.raises(Unavailable):  # nobody is there any more
        await WebhookDestination(f"http://127.0.0.1:{server.port}/", SECRET, clock.now).deliver(events)


async def test_one_that_asks_for_time_is_given_it(database: Database, clock: FakeClock) -> None:
    events = await events_of(database, 1)
    async with webhook() as server:
        server.answers += [(429, "Retry-After: 7\r\n"), (503, "Retry-After: 9999999999999\r\n")]
        destination = WebhookDestination(f"http://127.0.0.1:{server.port}/", SECRET, clock.now)
        seconds = []
        for _ in range(2):
            with pytest.raises(Deferred) as refused:
                await destination.deliver(events)
            seconds.append(refused.value.seconds)
        await destination.close()
    assert seconds == [7, 600]


async def test_one_that_finds_a_batch_too_large_gets_halves(database: Database, clock: FakeClock) -> None:
    events = await events_of(database, 5)
    async with webhook() as server:
        server.answers += [(413, ""), (204, ""), (413, "")]
        destination = WebhookDestination(f"http://127.0.0.1:{server.port}/", SECRET, clock.now)
        await destination.deliver(events)
        server.answers.append((413, ""))
        with pytest.raises(Unavailable, match="413"):
            await destination.deliver(events[:1])
        await destination.close()
    sizes = [len(msgspec.json.decode(request.body)["events"]) for request in server.requests]
    assert sizes == [5, 2, 3, 1, 2, 1]


def test_another_place_has_another_cursor(clock: FakeClock, tmp_path: Path) -> None:
    places: list[Destination] = [
        FileDestination(tmp_path / "a"),
        FileDestination(tmp_path / "b"),
        WebhookDestination("https://a.test/x", SECRET, clock.now),
        WebhookDestination("https://a.test/y", SECRET, clock.now),
    ]
    assert len({place.name for place in places}) == 4
    assert [place.shown for place in places[2:]] == ["https://a.test", "https://a.test"]


def test_a_secret_that_is_none_is_not_repeated() -> None:
    with pytest.raises(BadInput) as refused:
        key_of("whsec_hunter2!")
    assert "hunter2" not in str(refused.value)
