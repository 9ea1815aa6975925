"""What the listeners answer to an authority that wants to see that a name is ours.

http-01 (RFC 8555 section 8.3) is a page, tls-alpn-01 (RFC 8737) a certificate for those who offer the protocol
``acme-tls/1``. Every worker answers from the folder, whichever of them has the order: the authority asks several times, and
the kernel chooses who gets the connection. None of it is a secret: whoever sees an answer could not use it for anything else.
"""

import hashlib
import socket
import ssl
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from doorward.clock import Clock
from doorward.config import Settings
from doorward.login.doors import place_of
from doorward.server import tls
from doorward.server.acme.folder import Answer, Folder
from doorward.server.relays import host_of
from doorward.telemetry import counter
from doorward.transport.peeking import client_hello

PATH = "/.well-known/acme-challenge/{token}"
PROTOCOL = "acme-tls/1"  # RFC 8737 section 6.2
LIFE = timedelta(days=1)  # of the certificate that is the proof, either way: clocks differ
_IDENTIFIER = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")  # id-pe-acmeIdentifier, RFC 8737 section 6.1

_asked = counter("acme_proofs_total", "Times that an authority asked for a proof and got it.", "challenge")


class Answers:
    """The answers of one worker."""

    def __init__(self, folder: Folder, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        self._made: dict[str, ssl.SSLContext] = {}  # by key authorization

    def routes(self) -> list[BaseRoute]:
        """What answers http-01, on any listener."""

        async def prove(request: Request) -> Response:
            token = request.path_params["token"]
            for answer in self._folder.answers():
                if answer.challenge == "http-01" and answer.token == token:
                    _asked.labels("http-01").inc()
                    return Response(answer.authorization, media_type="application/octet-stream")
            return PlainTextResponse("Nothing is being proven by that name.\n", 404)

        return [Route(PATH, prove, methods=["GET"])]

    async def proof(self, accepted: socket.socket) -> ssl.SSLContext | None:
        """What to present to this connection instead of the usual, see ``ListenerSpec.proof``: nearly always nothing."""
        waiting = {
            answer.host: answer for answer in self._folder.answers() if answer.challenge == "tls-alpn-01"
        }
        if not waiting:
            self._made.clear()
            return None
        hello = await client_hello(accepted)
        if hello is None or PROTOCOL.encode() not in hello.protocols:
            return None
        answer = waiting.get(hello.server_name)
        if answer is None:
            return None
        _asked.labels("tls-alpn-01").inc()
        if answer.authorization not in self._made:
            self._made[answer.authorization] = proving_context(answer, self._clock.now())
        return self._made[answer.authorization]


def proving_context(answer: Answer, now: datetime) -> ssl.SSLContext:
    """A context that presents the proof of RFC 8737 section 3: a certificate that nobody signed, with a digest in it."""
    key = ec.generate_private_key(ec.SECP256R1())
    digest = hashlib.sha256(answer.authorization.encode()).digest()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, answer.host[:64])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - LIFE)
        .not_valid_after(now + LIFE)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(answer.host)]), critical=False)
        # DER: an octet string of 32 bytes.
        .add_extension(x509.UnrecognizedExtension(_IDENTIFIER, b"\x04\x20" + digest), critical=True)
        .sign(key, hashes.SHA256())
    )
    context = tls.server_context()
    context.set_alpn_protocols([PROTOCOL])
    tls.load_from_memory(context, tls.key_pem(key) + certificate.public_bytes(serialization.Encoding.PEM))
    return context


def plain_app(answers: Answers, settings: Settings) -> Starlette:
    """What the listener on port 80 serves: proofs, and the way to https for people who typed no scheme."""
    known = {
        host_of(address): place_of(address).origin
        for address in (settings.url, settings.door)
        if address[:6] == "https:"
    }

    async def lead(request: Request) -> Response:
        address = known.get((request.url.hostname or "").lower())
        if address is None:
            return PlainTextResponse("There is nothing here.\n", 404)
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(f"{address}{request.url.path}{query}", 308)

    return Starlette(routes=[*answers.routes(), Route("/{path:path}", lead, methods=["GET"])])
