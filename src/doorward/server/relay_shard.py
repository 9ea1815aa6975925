"""One process of ``doorward relay``: the relay itself, its lines to the others, STUN, and whom control lets in."""

import asyncio
import contextlib
import os
from ipaddress import IPv4Address, IPv6Address, ip_address

import msgspec
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from doorward.asgi import SecurityHeaders, StripIdentityHeaders
from doorward.clock import SystemClock
from doorward.config import split_listen
from doorward.errors import BadInput, DoorwardError
from doorward.protocol.keys import DERPPrivate, NodePublic
from doorward.protocol.tailcfg.derpmap import DERPMap, DERPNode, DERPRegion
from doorward.relay import Relay
from doorward.relay.mesh import Mesh, Peer, read_mesh_key
from doorward.relay.recheck import Recheck
from doorward.relay.session import Admit
from doorward.relay.stun import STUNServer
from doorward.relay.verify import Verifier
from doorward.server import descriptors
from doorward.server.child import Child
from doorward.server.relay_certificate import WARN_BEFORE, OwnFiles, RelayCertificate
from doorward.server.relay_process import LOCAL, RELAY, STUN, Order, RelayOptions
from doorward.store import secrets
from doorward.telemetry import configure, exposition, log
from doorward.transport.listener import Limits, ListenerSpec, serve

REFRESH = 3600.0  # seconds between looks at the certificate

_log = log("relay")


def derp_key(options: RelayOptions) -> DERPPrivate:
    """The relay's key, made at the first call. Raises DoorwardError."""
    options.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = options.key_file or options.folder / "derp.key"
    return DERPPrivate.parse(
        secrets.load_or_create(file, lambda: DERPPrivate.from_entropy(os.urandom(32)).serialize())
    )


def open_certificate(options: RelayOptions, key: DERPPrivate) -> RelayCertificate:
    """The certificate, made at the first call where the operator has none. Raises DoorwardError."""
    source: OwnFiles | str = options.hostname
    if options.certificate is not None and options.certificate_key is not None:
        source = OwnFiles(options.certificate, options.certificate_key, options.hostname)
    return RelayCertificate(source, options.folder, key.public(), SystemClock())


def derp_map(options: RelayOptions, region: int, name: str) -> bytes:
    """A DERP map (JSON) of this relay alone, as control's setting relay.maps takes it. Raises DoorwardError."""
    if not 1 <= region <= 0xFFFF:
        raise BadInput(
            "a region has a number from 1 to 65535", cure="900 to 999 are for relays of one's own."
        )
    options.check_hostname()
    host, port = split_listen(options.listen)
    stun_port = split_listen(options.stun)[1] if options.stun else -1
    if 0 in {port, stun_port}:
        raise BadInput("clients must be told a port", cure="Give --listen and --stun with the real ones.")
    address = _address(options.hostname)
    ipv4 = ipv6 = ""  # clients look the name up
    if address is not None:
        ipv4, ipv6 = (str(address), "none") if address.version == 4 else ("none", str(address))
    elif (bound := _address(host)) is not None and bound.version == 4:
        ipv6 = "none"  # nobody listens there, and looking for it would cost each joining client three seconds
    node = DERPNode(
        Name=f"{region}a",
        RegionID=region,
        HostName=options.hostname,
        CertName=open_certificate(options, derp_key(options)).cert_name,
        IPv4=ipv4,
        IPv6=ipv6,
        STUNPort=stun_port,
        DERPPort=port,
    )
    made = DERPRegion(
        RegionID=region, RegionCode=name.lower().replace(" ", "-"), RegionName=name, Nodes=[node]
    )
    return msgspec.json.format(msgspec.json.encode(DERPMap(Regions={region: made})), indent=2)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


async def work(child: Child) -> None:
    """One shard, from open to closed: what the parent starts."""
    order = msgspec.json.decode(child.payload, type=Order, dec_hook=lambda kind, value: kind(value))
    options = order.options
    configure(level=options.log_level)
    clock = SystemClock()
    key = derp_key(options)
    certificate = open_certificate(options, key)
    if order.says_pin and certificate.cert_name:
        _log.info("clients know this relay by its pin", cert_name=certificate.cert_name)
        if certificate.expires - clock.now() < WARN_BEFORE:
            _log.warning("the relay's certificate ends", on=certificate.expires.date().isoformat())
    mesh_key = order.mesh_key or _shared_mesh_key(options)
    async with contextlib.AsyncExitStack() as closing:
        admit: Admit = _anyone
        if not options.admit_anyone:
            verifier = Verifier(options.verify_url, clock, fail_open=options.fail_open)
            admit = (await closing.enter_async_context(verifier)).admit
        relay = Relay(key, admit, clock, os.urandom, mesh_key=mesh_key)
        again = None
        if not options.admit_anyone:
            again = Recheck(relay, verifier.still, os.urandom, seconds=options.verify_every)
        mesh = Mesh(relay, mesh_key, [Peer.parse(text) for text in order.peers])
        stun = STUNServer(child.sockets.get(STUN, []))
        closing.callback(stun.close)
        stun.start()
        accepting = asyncio.Event()
        listeners = [
            ListenerSpec(name=RELAY, sockets=child.sockets[RELAY], ssl_context=certificate.context),
            ListenerSpec(name=LOCAL, sockets=child.sockets[LOCAL]),
        ]
        async with asyncio.TaskGroup() as group:
            background = [
                group.create_task(relay.run()),
                group.create_task(mesh.run()),
                group.create_task(_refresh(certificate, child.reload)),
                *([group.create_task(again.run())] if again is not None else []),
            ]
            server = group.create_task(
                serve(
                    listeners,
                    _app(relay),
                    {"derp": relay.takeover},
                    clock=clock,
                    stop=child.stop,
                    ready=accepting,
                    limits=Limits(connections=descriptors.room_for_connections()),
                )
            )
            await accepting.wait()
            child.ready()
            await child.stop.wait()
            for task in reversed(background):
                task.cancel()
            await server


def _shared_mesh_key(options: RelayOptions) -> str:
    """The key that the other relays of the region know, or empty: there are none."""
    if options.mesh_key_file is None:
        return ""

    def missing() -> str:
        raise BadInput(
            "there is no mesh key",
            cure="Copy it from another relay of the region.",
            place=str(options.mesh_key_file),
        )

    # A file that others can read is refused: whoever has the key can throw every client out.
    return read_mesh_key(secrets.load_or_create(options.mesh_key_file, missing))


def _anyone(_key: NodePublic, _source: str) -> bool:
    return True


def _app(relay: Relay) -> Starlette:
    # No /verify: what this relay knows it has from control, which is asked itself.
    routes = [*relay.routes(verify=False), Route("/metrics", _metrics, methods=["GET"])]
    return Starlette(
        routes=routes, middleware=[Middleware(StripIdentityHeaders), Middleware(SecurityHeaders)]
    )


async def _metrics(request: Request) -> Response:
    """For whoever may open the Unix socket of this shard: the numbers tell who is there and when."""
    if request.scope["state"]["listener"] != LOCAL:
        return PlainTextResponse("metrics are served on the relay's Unix socket\n", status_code=403)
    return Response(exposition(), media_type="text/plain; version=0.0.4")


async def _refresh(certificate: RelayCertificate, reload: asyncio.Event) -> None:
    """Look after the certificate every hour, and at once when asked to."""
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REFRESH):
                await reload.wait()
        reload.clear()
        try:
            if certificate.refresh():
                _log.info("certificate read again", until=certificate.expires.isoformat())
        except DoorwardError as error:
            _log.error("the certificate is not read again", reason=error.sentence(), place=error.place)
