"""Questions to our own addresses, as others ask them, and what came of each in words: for ``server.outside``.

Nothing is followed and nobody is trusted whom clients would not trust. An answer that does not come is told apart by what lies at
the bottom of it: a name nobody knows, nobody who listens, a certificate that is not trusted, another protocol, silence.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from socket import gaierror

import httpx2

from doorward.api.types import Finding
from doorward.errors import RemoteProtocolError
from doorward.protocol import derp
from doorward.protocol.keys import DERPPublic
from doorward.relay.certificate import relay_leaf_pin

SECONDS = 8.0  # for one question
MOST = 64 << 10  # bytes of an answer that are looked at
_SERVER_KEY_FRAME = derp.HEADER_SIZE + len(derp.MAGIC) + 32


class Bad(Exception):  # noqa: N818 - it carries a finding, and never leaves this module
    """Something is wrong; the finding says what."""

    def __init__(self, subject: str, message: str, cure: str, *, doubtful: bool = False) -> None:
        super().__init__(message)
        self.finding = Finding(
            level="warning" if doubtful else "error", subject=subject, message=message, cure=cure
        )


def client_for(context: ssl.SSLContext | None) -> httpx2.AsyncClient:
    """Trusts whom this machine trusts, or ``context``; follows nothing, and no proxy of the environment."""
    return httpx2.AsyncClient(
        verify=context or ssl.create_default_context(),
        trust_env=False,
        timeout=SECONDS,
        limits=httpx2.Limits(max_keepalive_connections=0),
    )


async def get(client: httpx2.AsyncClient, url: str, subject: str, cure: str) -> httpx2.Response:
    """The answer, whatever it is; at most as much of it as is looked at. Raises Bad where there is none."""
    try:
        async with asyncio.timeout(SECONDS), client.stream("GET", url) as answer:
            body = b""
            async for part in answer.aiter_bytes():
                body += part
                if len(body) > MOST:
                    break
            return httpx2.Response(answer.status_code, headers=_plain(answer), content=body[:MOST])
    except (httpx2.HTTPError, TimeoutError) as error:
        raise unanswered(error, url, subject, cure) from None


@asynccontextmanager
async def upgraded(
    client: httpx2.AsyncClient, url: str, headers: Mapping[str, str], subject: str, cure: str
) -> AsyncIterator[httpx2.Response]:
    """The answer to a request for an upgrade; of any other than 101 the body has been read. Raises Bad where there is none."""
    try:
        async with asyncio.timeout(SECONDS), client.stream("GET", url, headers=headers) as answer:
            if answer.status_code != 101:
                body = b""
                async for part in answer.aiter_bytes():
                    body += part
                    if len(body) > MOST:
                        break
                yield httpx2.Response(answer.status_code, headers=_plain(answer), content=body[:MOST])
                return
            yield answer
    except (httpx2.HTTPError, TimeoutError) as error:
        raise unanswered(error, url, subject, cure) from None


def _plain(answer: httpx2.Response) -> dict[str, str]:
    """The headers but those about how the body came, which is taken apart already."""
    how = {"content-encoding", "content-length", "transfer-encoding"}
    return {name: value for name, value in answer.headers.items() if name.lower() not in how}


def unanswered(error: Exception, url: str, subject: str, cure: str) -> Bad:
    """Why nothing came back, by what lies at the bottom of it."""
    address, chain = url.partition("?")[0], [error]
    while (below := chain[-1].__cause__ or chain[-1].__context__) is not None and isinstance(
        below, Exception
    ):
        chain.append(below)
    for one in chain:
        if isinstance(one, ssl.SSLCertVerificationError):
            return Bad(
                subject,
                f"the certificate at {address} is not trusted here: {getattr(one, 'verify_message', one)}",
                "Have the proxy present one for this name, with its whole chain. Clients trust what their system trusts.",
            )
        if isinstance(one, ssl.SSLError):
            return Bad(
                subject,
                f"what answers at {address} speaks no TLS: {getattr(one, 'reason', one) or 'it broke off'}",
                cure,
            )
        if isinstance(one, gaierror):
            return Bad(
                subject,
                f"the name of {address} is not known on this machine",
                "Make its DNS record. Where only others are to know it, this is as it should be.",
                doubtful=True,
            )
        if isinstance(one, ConnectionRefusedError):
            return Bad(subject, f"nobody listens at {address}", cure)
    if any(isinstance(one, TimeoutError | httpx2.TimeoutException) for one in chain):
        return Bad(
            subject,
            f"{address} does not answer in time, seen from this machine",
            f"{cure} Some routers let nobody inside reach their outside address: then ask from elsewhere.",
            doubtful=True,
        )
    return Bad(subject, f"{address} breaks off: {str(error)[:200] or type(error).__name__}", cure)


async def relay_key(answer: httpx2.Response, *, message: bool) -> DERPPublic | None:
    """The relay's key, with which it begins; None where something else comes. ``message``: it is in a WebSocket's."""
    stream, data = answer.extensions["network_stream"], b""
    wanted = _SERVER_KEY_FRAME + (2 if message else 0)  # a message's head, as short ones have it
    while len(data) < wanted and (part := await stream.read(MOST, timeout=SECONDS)):
        data += part
    try:
        return derp.read_server_key(data[wanted - _SERVER_KEY_FRAME + derp.HEADER_SIZE :])
    except RemoteProtocolError:
        return None


def pin_of(answer: httpx2.Response) -> str:
    """The pin of the certificate that was presented, as a DERP map has it; empty where there was none."""
    secure = answer.extensions["network_stream"].get_extra_info("ssl_object")
    shown = None if secure is None else secure.getpeercert(binary_form=True)
    return "" if shown is None else relay_leaf_pin(shown)
