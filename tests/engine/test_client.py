"""The control client against a scripted control server over the real transport."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from starlette.responses import Response
from tests.support.clock import FakeClock
from tests.support.small_control import SERVER_KEY, SmallControl
from tests.support.waiting import until

from doorward.engine.client import LONGEST_PAUSE, ControlClient, RegistrationRefused
from doorward.engine.controlconn import UnexpectedStatus
from doorward.errors import BadInput, LocalProtocolError, TooMany, Unavailable
from doorward.protocol.keys import DiscoPublic, MachinePrivate, NodePrivate, NodePublic
from doorward.protocol.mapstream import MapWriter
from doorward.protocol.tailcfg.hostinfo import Hostinfo, NetInfo
from doorward.protocol.tailcfg.map import Debug, MapRequest, MapResponse, PingRequest
from doorward.protocol.tailcfg.node import Node
from doorward.protocol.tailcfg.register import LOGOUT_EXPIRY, RegisterRequest, RegisterResponse

MACHINE = MachinePrivate(b"\x22" * 32)
NODE = NodePrivate(b"\x33" * 32)
DISCO = DiscoPublic(b"\x44" * 32)
HELD = RegisterResponse(AuthURL="https://door.example.com/join/ABC")
HEAD = b"HTTP/1.1 %s\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
DONE = RegisterResponse(MachineAuthorized=True)


@pytest.fixture
async def control() -> AsyncIterator[SmallControl]:
    async with SmallControl().running() as running:
        running.first = lambda wanted: [MapResponse(Node=own(wanted), Domain="example.internal")]
        yield running


def own(wanted: MapRequest) -> Node:
    return node(1, wanted.NodeKey)


def node(number: int, key: NodePublic | None = None) -> Node:
    return Node(
        ID=number,
        StableID=f"n{number}",
        Name=f"n{number}.example.internal.",
        User=1,
        Key=key or NodePublic(bytes([number]) * 32),
        Addresses=[f"100.64.0.{number}/32"],
        MachineAuthorized=True,
    )


class Sleeps:
    """Stands in for sleeping: remembers how long, and lets others run."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0)


Make = Callable[..., ControlClient]


@pytest.fixture
async def make(control: SmallControl) -> AsyncIterator[Make]:
    with contextlib.ExitStack() as stack:

        def make_client(**more: Any) -> ControlClient:
            values: dict[str, Any] = {
                "machine": MACHINE,
                "node": NODE,
                "disco": DISCO,
                "clock": FakeClock(),
                "entropy": os.urandom,
                "hostinfo": Hostinfo(Hostname="probe", OS="linux"),
            }
            client = ControlClient(control.url, **{**values, **more})
            stack.callback(client.close)
            return client

        yield make_client


@contextlib.asynccontextmanager
async def following(client: ControlClient) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(client.follow())
        try:
            yield
        finally:
            task.cancel()


async def test_joining_with_a_key(control: SmallControl, make: Make) -> None:
    client = make(ephemeral=True)
    assert (await client.join(auth_key="tskey-x")).MachineAuthorized
    (request,) = control.registrations
    assert request.NodeKey == NODE.public()
    assert request.OldNodeKey.is_zero()
    assert request.Auth is not None
    assert request.Auth.AuthKey == "tskey-x"
    assert request.Ephemeral
    assert request.Hostinfo == Hostinfo(Hostname="probe", OS="linux")
    assert control.machines == {MACHINE.public()}
    assert control.key_version == str(request.Version)


async def test_a_known_server_key_is_not_fetched(control: SmallControl, make: Make) -> None:
    await make(server_key=SERVER_KEY.public()).join()
    assert control.key_version == ""
    assert control.registrations[0].Auth is None


async def test_a_refusal_is_controls_own_sentence(control: SmallControl, make: Make) -> None:
    control.answers = [RegisterResponse(Error="This key has expired.")]
    with pytest.raises(RegistrationRefused, match=r"^This key has expired\.$"):
        await make().join(auth_key="tskey-x")
    assert len(control.registrations) == 1


async def test_a_person_approves(control: SmallControl, make: Make) -> None:
    approved = asyncio.Event()

    async def held(_: RegisterRequest) -> RegisterResponse:
        await approved.wait()
        return DONE

    control.answers = [HELD, held]
    shown: list[str] = []
    async with asyncio.TaskGroup() as group:
        joining = group.create_task(make().join(show=shown.append))
        await until(lambda: len(control.registrations) == 2)
        assert not joining.done()
        approved.set()
    assert joining.result() == DONE
    assert shown == [HELD.AuthURL]
    assert [request.Followup for request in control.registrations] == ["", HELD.AuthURL]


async def test_waiting_for_a_person_outlives_a_lost_answer_and_a_new_link(
    control: SmallControl, make: Make
) -> None:
    new = RegisterResponse(AuthURL="https://door.example.com/join/NEW")
    control.answers = [HELD, Response("restarting", 503), HELD, new, DONE]
    shown: list[str] = []
    sleeps = Sleeps()
    assert await make(sleep=sleeps).join(show=shown.append) == DONE
    assert shown == [HELD.AuthURL, new.AuthURL]
    assert [r.Followup for r in control.registrations] == ["", *[HELD.AuthURL] * 3, new.AuthURL]
    assert len(sleeps.seconds) == 2


async def test_without_anybody_to_show_the_link_to_joining_fails(control: SmallControl, make: Make) -> None:
    control.answers = [HELD]
    with pytest.raises(RegistrationRefused) as caught:
        await make().join()
    assert caught.value.cure == "Use an auth key."


async def test_an_expired_key_is_replaced(control: SmallControl, make: Make) -> None:
    control.answers = [RegisterResponse(NodeKeyExpired=True), DONE]
    client = make()
    await client.join(auth_key="tskey-x")
    first, second = control.registrations
    assert second.OldNodeKey == first.NodeKey == NODE.public()
    assert second.NodeKey == client.node.public() != NODE.public()
    assert second.Auth == first.Auth


async def test_a_key_that_expires_at_once_is_no_loop(control: SmallControl, make: Make) -> None:
    control.answers = [RegisterResponse(NodeKeyExpired=True)]
    client = make()
    with pytest.raises(RegistrationRefused, match="made just now"):
        await client.join()
    assert client.node == NODE


async def test_rotation_takes_effect_when_control_agrees(control: SmallControl, make: Make) -> None:
    client = make()
    new = NodePrivate(b"\x55" * 32)
    control.answers = [RegisterResponse(Error="no"), DONE]
    with pytest.raises(RegistrationRefused):
        await client.rotate(new)
    assert client.node == NODE
    await client.rotate(new)
    assert client.node == new
    assert control.registrations[-1].OldNodeKey == NODE.public()
    await client.report()
    assert control.reports[-1].NodeKey == new.public()


async def test_logging_out(control: SmallControl, make: Make) -> None:
    client = make()
    await client.join(auth_key="tskey-x")
    await client.logout()
    assert control.registrations[-1].Expiry == LOGOUT_EXPIRY
    assert control.registrations[-1].Auth is not None


async def test_other_answers_to_a_registration(control: SmallControl, make: Make) -> None:
    client = make()
    control.answers = [Response("x" * 500 + "\x1b[2J", 500), Response("slow down", 429), Response(b"{}")]
    with pytest.raises(UnexpectedStatus, match=r"^POST /machine/register: control answered 500: x{200}$"):
        await client.join()
    with pytest.raises(TooMany, match="slow down"):
        await client.join()
    assert (await client.join()) == RegisterResponse()


async def test_reports_carry_everything_known(control: SmallControl, make: Make) -> None:
    client = make()
    await client.report(home_derp=900, endpoints=["192.0.2.1:41641", "[2001:db8::1]:41641"])
    await client.report(hostinfo=Hostinfo(Hostname="other"))
    await client.report(home_derp=901)
    first, second, third = control.reports
    assert not first.Stream
    assert first.OmitPeers
    assert first.DiscoKey == DISCO
    assert first.Endpoints == ["192.0.2.1:41641", "[2001:db8::1]:41641"]
    assert first.EndpointTypes == [1, 1]
    assert first.Hostinfo == Hostinfo(Hostname="probe", OS="linux", NetInfo=NetInfo(PreferredDERP=900))
    assert second.Hostinfo == Hostinfo(Hostname="other")
    assert second.Endpoints == first.Endpoints
    assert third.Hostinfo == Hostinfo(Hostname="other", NetInfo=NetInfo(PreferredDERP=901))


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "zstd"])
async def test_the_netmap_follows_the_stream(control: SmallControl, make: Make, compress: bool) -> None:
    payloads: list[bytes] = []
    client = make(compress=compress, on_payload=payloads.append)
    with pytest.raises(LocalProtocolError):
        _ = client.netmap
    async with following(client):
        await client.until(lambda netmap: netmap.domain == "example.internal")
        (stream,) = control.streams
        assert stream.request.Stream
        assert stream.request.Endpoints == []
        assert stream.request.Compress == ("zstd" if compress else "")
        stream.push(MapResponse(PeersChanged=[node(2), node(3)]))
        stream.push(MapResponse(KeepAlive=True))
        stream.push(MapResponse(PeersRemoved=[2]))
        netmap = await client.until(lambda netmap: [peer.ID for peer in netmap.peers] == [3])
        assert netmap == client.netmap
    assert [json.loads(payload).keys() for payload in payloads[1:]] == [
        {"PeersChanged"},
        {"KeepAlive"},
        {"PeersRemoved"},
    ]


async def test_a_new_session_starts_from_nothing_and_the_old_netmap_stays_until_then(
    control: SmallControl, make: Make
) -> None:
    sleeps = Sleeps()
    client = make(sleep=sleeps)
    async with following(client):
        await client.until(lambda netmap: True)
        control.streams[0].push(MapResponse(PeersChanged=[node(2)]))
        await client.until(lambda netmap: netmap.peers)
        control.first = lambda _: [MapResponse(KeepAlive=True)]
        control.streams[0].end()
        await until(lambda: len(control.streams) == 2 and client.sessions == 2)
        assert client.netmap.peers
        control.streams[1].push(MapResponse(Node=own(control.streams[1].request)))
        await client.until(lambda netmap: not netmap.peers)
    assert client.sessions == 2


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (MapWriter(compress=False).frame(b"{}"), "must have the client's own node"),
        (MapWriter(compress=False).frame(b'{"Node":{"ID":1}}'), "missing required field"),
        (b"\xff\xff\xff\xff", "was announced"),
        (b"\x05\x00\x00\x00{", "in the middle of a message"),
    ],
    ids=["delta first", "malformed", "too long", "cut off"],
)
async def test_what_breaks_a_session_is_remembered_and_the_next_one_works(
    control: SmallControl, make: Make, bad: bytes, words: str
) -> None:
    errors: list[str] = []
    first, control.first = control.first, lambda _: []

    class Pauses(Sleeps):
        async def __call__(self, seconds: float) -> None:
            errors.append(str(client.last_error))
            await super().__call__(seconds)

    client = make(sleep=Pauses())
    async with following(client):
        await until(lambda: len(control.streams) == 1)
        control.first = first
        control.streams[0].push_bytes(bad)
        control.streams[0].end()
        await client.until(lambda netmap: True)
    assert len(errors) == 1
    assert words in errors[0]
    assert client.last_error is None


async def test_pauses_grow_and_start_again_after_a_message(control: SmallControl, make: Make) -> None:
    sleeps = Sleeps()
    control.refuse_map = [Response("unknown node", 404) for _ in range(60)]
    client = make(sleep=sleeps, entropy=lambda size: b"\x80" + bytes(size - 1))  # jitter of exactly 1
    async with following(client):
        await client.until(lambda netmap: True)
        assert sleeps.seconds[:3] == pytest.approx([0.01, 0.04, 0.09])
        assert sleeps.seconds[-1] == LONGEST_PAUSE
        assert len(sleeps.seconds) == 60
        control.streams[0].end()
        await until(lambda: len(control.streams) == 2)
    assert sleeps.seconds[60:] == pytest.approx([0.01])


async def test_a_silent_stream_is_given_up(control: SmallControl, make: Make) -> None:
    client = make(silence_seconds=1.0)  # in which a busy machine, too, has connected and looked at the client
    async with following(client):
        await client.until(lambda netmap: True)
        await until(lambda: len(control.streams) >= 2)
        await until(lambda: client.last_error is None)
    assert client.sessions >= 2


async def test_keep_alives_keep_a_stream(control: SmallControl, make: Make) -> None:
    client = make(silence_seconds=2.0)
    async with following(client):
        await client.until(lambda netmap: True)
        for _ in range(10):
            await asyncio.sleep(0.25)
            control.streams[0].push(MapResponse(KeepAlive=True))
    assert client.sessions == 1


async def test_a_restart_of_control_is_survived(make: Make) -> None:
    # The first control is the fixture's; this client knows only the second, which goes away and comes back.
    control = SmallControl()
    control.first = lambda wanted: [MapResponse(Node=own(wanted))]
    async with control.running():
        client = ControlClient(
            control.url, machine=MACHINE, node=NODE, disco=DISCO, clock=FakeClock(), entropy=os.urandom
        )
        async with following(client):
            await client.until(lambda netmap: True)
            client.close()  # the connection breaks under the stream
            await until(lambda: client.sessions == 2)
            await client.report()
    assert len(control.reports) == 1
    client.close()


async def test_until_says_what_is_wrong(control: SmallControl, make: Make) -> None:
    control.refuse_map = [Response("unknown node", 404)]
    client = make(sleep=lambda _: asyncio.sleep(60))
    async with following(client):
        with pytest.raises(Unavailable, match="control answered 404: unknown node"):
            await client.until(lambda netmap: True, seconds=0.2)


@pytest.mark.parametrize("keep_netmap", [True, False], ids=["netmap", "load"])
async def test_questions_are_answered_once(control: SmallControl, make: Make, keep_netmap: bool) -> None:
    client = make(keep_netmap=keep_netmap)
    question = b"POST /echo?x=1 HTTP/1.1\r\nHost: c2n\r\nContent-Length: 5\r\n\r\nhelloMORE"
    async with following(client):
        await until(lambda: bool(control.streams))
        push = control.streams[0].push
        echo = PingRequest(URL="https://unused/answer?id=1", Types="c2n", Payload=question)
        push(MapResponse(KeepAlive=True, PingRequest=echo))
        push(MapResponse(KeepAlive=True, PingRequest=echo))
        await until(lambda: len(control.posted) == 1)
        push(
            MapResponse(
                PingRequest=PingRequest(
                    URL="https://unused/2", Types="c2n", Payload=b"GET /x HTTP/1.1\r\nHost: c2n\r\n\r\n"
                )
            )
        )
        await until(lambda: len(control.posted) == 2)
        push(MapResponse(PingRequest=PingRequest(URL=f"{control.url}/alive")))
        await until(lambda: len(control.outside) == 1)
        push(MapResponse(PingRequest=PingRequest(URL="https://unused/3", URLIsNoise=True)))
        await until(lambda: len(control.posted) == 3)
        push(
            MapResponse(
                PingRequest=PingRequest(
                    URL="https://unused/4", URLIsNoise=True, Types="disco,TSMP", IP="100.64.0.2"
                )
            )
        )
        await until(lambda: len(control.posted) == 5)
    assert control.posted[:3] == [
        (
            "POST",
            "/answer?id=1",
            HEAD % b"200 OK" + b"hello",
        ),
        (
            "POST",
            "/2",
            HEAD % b"404 Not Found" + b"unknown c2n path\n",
        ),
        ("HEAD", "/3", b""),
    ]
    assert control.outside == [("HEAD", "/alive", b"")]
    assert [json.loads(body)["Type"] for _, _, body in control.posted[3:]] == ["disco", "TSMP"]
    assert all(json.loads(body)["Err"] for _, _, body in control.posted[3:])


async def test_a_question_that_cannot_be_answered_ends_nothing(control: SmallControl, make: Make) -> None:
    client = make()
    async with following(client):
        await client.until(lambda netmap: True)
        push = control.streams[0].push
        push(MapResponse(PingRequest=PingRequest(URL="https://unused/1", Types="c2n", Payload=b"nonsense")))
        push(MapResponse(PingRequest=PingRequest(URL="http://127.0.0.1:1/")))
        push(MapResponse(PingRequest=PingRequest(URL="", Types="c2n")))
        push(MapResponse(PeersChanged=[node(2)]))
        await client.until(lambda netmap: netmap.peers)
    assert client.sessions == 1
    assert control.posted == []


async def test_control_may_ask_for_a_pause(control: SmallControl, make: Make) -> None:
    sleeps = Sleeps()
    client = make(sleep=sleeps)
    async with following(client):
        await client.until(lambda netmap: True)
        control.streams[0].push(MapResponse(Debug=Debug(SleepSeconds=1000.0), Domain="later"))
        await client.until(lambda netmap: netmap.domain == "later")
    assert sleeps.seconds == [300.0]


async def test_many_clients_in_one_process(control: SmallControl, make: Make) -> None:
    clients = [
        make(
            machine=MachinePrivate(bytes([i]) * 32),
            node=NodePrivate(bytes([i]) * 32),
            server_key=SERVER_KEY.public(),
            keep_netmap=False,
        )
        for i in range(1, 61)
    ]
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(client.join(auth_key="tskey-x"))
    async with contextlib.AsyncExitStack() as stack:
        for client in clients:
            await stack.enter_async_context(following(client))
        await until(lambda: len(control.streams) == len(clients))
    assert len(control.machines) == len(clients)
    assert {stream.request.NodeKey for stream in control.streams} == {c.node.public() for c in clients}


@pytest.mark.parametrize("url", ["control.example.com", "ftp://x", "http://", "https://x/", ""])
def test_an_address_that_cannot_be_one(url: str) -> None:
    with pytest.raises(BadInput, match="not the address of a control server"):
        ControlClient(url, machine=MACHINE, node=NODE, disco=DISCO, clock=FakeClock(), entropy=os.urandom)


def test_no_secret_is_shown() -> None:
    client = ControlClient(
        "http://x", machine=MACHINE, node=NODE, disco=DISCO, clock=FakeClock(), entropy=os.urandom
    )
    client._auth_key = "tskey-x"
    shown = repr(client._registration(NODE)) + repr(client) + repr(client._connection)
    assert "tskey-x" not in shown
    assert "33" * 8 not in shown
