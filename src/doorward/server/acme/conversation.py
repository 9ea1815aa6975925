"""One talk with an authority: account, order, proof, certificate (RFC 8555), by Certbot's library.

::

    directory ─▶ account ─▶ order ─▶ each authorization: proven already, or: present, answer, wait ─▶ finalize ─▶ fetch

The library is synchronous and large. It is loaded when there is something to order, and each of its steps runs on a thread
of its own, which is left behind if we are stopped meanwhile: none can keep the process from ending. What waits for us rather
than for the authority (records, other processes) runs on the event loop, between two steps.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from doorward import __version__
from doorward.clock import Clock
from doorward.config.settings import Acme
from doorward.server import tls
from doorward.server.acme.faults import AcmeError
from doorward.server.acme.keyfiles import account_key

if TYPE_CHECKING:
    from acme import client, messages

REQUEST = 30  # seconds for one request
PROVING = 180.0  # seconds that the authority may look at a proof
MAKING = 180.0  # seconds that it may take to make the certificate
NONCES = 3  # times that a step is begun: an authority forgets its nonces (RFC 8555 section 6.5), with several servers often
POLL, SLOWEST = 0.5, 5.0  # seconds between two looks at the order: the first, doubled to the longest

T = TypeVar("T")

_CURES = {
    "caa": "The zone's CAA record names other authorities: add this one, or take the record away.",
    "connection": "The name must lead to this machine from everywhere, and its firewall let the authority in.",
    "dns": "The name must be known to everybody: check its records with the zone's own servers.",
    "externalAccountRequired": "Make an account with the authority, and set tls.acme.account.id and tls.acme.account.key.",
    "incorrectResponse": "Something else answers at that name: it must lead to this machine, through no other server.",
    "invalidContact": "Correct tls.acme.email, or leave it out.",
    "rateLimited": "Nothing but waiting helps; doorward asks again when it may.",
    "rejectedIdentifier": "The authority gives no certificates for that name. Use a public DNS name of your own.",
    "tls": "Port 443 of the name must be answered by this machine itself, through no other server.",
    "unauthorized": "Something else answers at that name: it must lead to this machine, through no other server.",
    "unsupportedIdentifier": "The authority gives no certificates for that kind of name.",
    "userActionRequired": "The terms of service have changed: read them at the address that the message names.",
}
# Nothing that we did wrong, and nothing that is counted.
_NOT_COUNTED = frozenset({"badNonce", "serverInternal"})


class Proof(NamedTuple):
    """What has to be seen before a name counts as proven."""

    host: str
    challenge: str  # http-01, tls-alpn-01 or dns-01
    token: str
    authorization: str  # the key authorization, RFC 8555 section 8.1
    record: str  # the value of the TXT record, for dns-01


class Advice(NamedTuple):
    """When the authority wants a certificate renewed (RFC 9773), and when to ask it again."""

    renew: datetime | None  # None: it has no opinion
    ask: datetime


Present = Callable[[Proof], AbstractAsyncContextManager[None]]


class Conversation:
    """A talk with the authority of the settings. Every method raises AcmeError.

    Args:
        settings: which authority, and how.
        account_key: PEM.
        clock: for deadlines.
        entering: held while the account is made or found, by all that talk for it at the same time: RFC 8555 section 7.3
            does not say what becomes of two that ask for the same new account at once, and an authority may refuse one.
    """

    def __init__(
        self, settings: Acme, account_key: bytes, clock: Clock, entering: asyncio.Lock | None = None
    ) -> None:
        self._settings = settings
        self._account_key = account_key
        self._clock = clock
        self._entering = entering or asyncio.Lock()
        self._client: client.ClientV2 | None = None
        self._retry_after = 0.0

    async def order(self, host: str, present: Present) -> bytes:
        """A new certificate for ``host``: its key, leaf and chain as one PEM.

        ``present`` shows a proof for as long as its block lasts; when it is entered, everybody must be able to see it.
        """
        talking = await self._open()
        key = ec.generate_private_key(ec.SECP256R1())
        request = _signing_request(key, host)
        order = await self._step(lambda: talking.new_order(request))
        for authorization in order.authorizations:
            await self._prove(talking, host, authorization, present)
        until = self._clock.now() + timedelta(seconds=MAKING)
        # The library compares with local time.
        local = until.astimezone().replace(tzinfo=None)
        done = await self._step(lambda: talking.finalize_order(order, local))
        return tls.key_pem(key) + str(done.fullchain_pem).encode()

    async def advice(self, leaf: x509.Certificate) -> Advice:
        """When it wants this certificate renewed. Authorities move that forward when they have to revoke many."""
        talking = await self._open(account=False)
        pem = leaf.public_bytes(serialization.Encoding.PEM)
        renew, ask = await self._step(lambda: talking.renewal_time(pem))
        return Advice(renew, ask.astimezone(self._clock.now().tzinfo))

    async def _open(self, *, account: bool = True) -> "client.ClientV2":
        self._client = talking = await self._step(self._connect)
        if account:
            async with self._entering:
                await self._step(lambda: self._enter(talking))
        return talking

    def _connect(self) -> "client.ClientV2":
        from acme import client  # noqa: PLC0415 - see the module's own words
        from josepy.jwa import ES256  # noqa: PLC0415
        from josepy.jwk import JWKEC  # noqa: PLC0415
        from josepy.util import ComparableECKey  # noqa: PLC0415

        if (ca := self._settings.ca) is not None and not ca.is_file():
            raise AcmeError(f"there is no file {ca}", cure="Correct tls.acme.ca.", counts=False)
        _know_tls_alpn()
        key = serialization.load_pem_private_key(self._account_key, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        network = client.ClientNetwork(
            JWKEC(key=ComparableECKey(key)),
            alg=ES256,
            verify_ssl=str(ca) if ca else True,  # type: ignore[arg-type] # requests takes both
            user_agent=f"doorward/{__version__}",
            timeout=REQUEST,
        )
        network.session.hooks["response"].append(self._note_retry_after)
        directory = client.ClientV2.get_directory(self._settings.directory, network)
        return client.ClientV2(directory, network)

    def _note_retry_after(self, response: Any, *_: Any, **__: Any) -> None:
        """The header of an error's answer, which the library does not pass on."""
        text = response.headers.get("Retry-After", "") if not response.ok else ""
        # The other form, a date, is left to our own waits.
        self._retry_after = float(text) if text.isascii() and text.isdigit() and len(text) < 9 else 0.0

    def _enter(self, talking: "client.ClientV2") -> None:
        """Make the account, or find the one that the key has; its e-mail address is as the settings have it."""
        from acme import errors, messages  # noqa: PLC0415

        wanted = messages.NewRegistration.from_data(
            email=self._settings.email or None,
            terms_of_service_agreed=self._settings.agree,
            external_account_binding=self._binding(talking),
        )
        try:
            talking.new_account(wanted)
        except errors.ConflictError as known:
            account = messages.RegistrationResource(uri=known.location, body=messages.Registration())
            found = talking.query_registration(account)
            if tuple(found.body.contact or ()) != tuple(wanted.contact or ()):
                talking.update_registration(found, messages.Registration(contact=wanted.contact or ()))

    def _binding(self, talking: "client.ClientV2") -> dict[str, Any] | None:
        """The word of an account that was made with the authority elsewhere (RFC 8555 section 7.3.4), where there is one."""
        from acme import messages  # noqa: PLC0415

        theirs = self._settings.account
        if theirs.key is None:
            return None
        ours = talking.net.key
        assert ours is not None
        return messages.ExternalAccountBinding.from_data(
            ours.public_key(), theirs.id, account_key(theirs.key), talking.directory
        )

    async def _prove(
        self, talking: "client.ClientV2", host: str, authorization: Any, present: Present
    ) -> None:
        if authorization.body.status.name == "valid":
            return  # proven a short time ago, which authorities remember
        wanted = self._settings.challenge
        offered = {body.chall.to_partial_json().get("type"): body for body in authorization.body.challenges}
        if wanted not in offered:
            there = ", ".join(sorted(str(one) for one in offered)) or "none"
            raise AcmeError(
                f"the authority does not offer {wanted} for {host}, but {there}",
                cure="Set another tls.acme.challenge.",
            )
        body = offered[wanted]
        key = talking.net.key
        response = body.response(key)
        proof = Proof(
            host=host,
            challenge=wanted,
            token=body.chall.encode("token"),
            authorization=response.key_authorization,
            record=body.validation(key) if wanted == "dns-01" else "",
        )
        async with present(proof):
            await self._step(lambda: talking.answer_challenge(body, response))
            await self._until_seen(talking, host, authorization)

    async def _until_seen(self, talking: "client.ClientV2", host: str, authorization: Any) -> None:
        wait, until = POLL, self._clock.monotonic() + PROVING
        while True:
            await asyncio.sleep(wait)
            wait = min(wait * 2, SLOWEST)
            found, _ = await self._step(lambda: talking.poll(authorization))
            status = found.body.status.name
            if status == "valid":
                return
            if status not in {"pending", "processing"}:
                errors = [body.error for body in found.body.challenges if body.error is not None]
                raise (
                    refusal(errors[0], f"{host} was not proven")
                    if errors
                    else AcmeError(f"{host} was not proven, and the authority does not say why")
                )
            if self._clock.monotonic() > until:
                raise AcmeError(
                    f"the authority has not looked at the proof of {host} for {PROVING:.0f} s",
                    cure="It is tried again by itself.",
                )

    async def _step(self, work: Callable[[], T]) -> T:
        """Run one step of the library beside the event loop; its errors become ours."""
        for left in reversed(range(NONCES)):
            self._retry_after = 0.0
            try:
                return await _on_a_thread(work)
            except AcmeError:
                raise
            except Exception as error:  # noqa: BLE001 - several libraries' errors meet here, and none may end the worker
                if not (left and _is_stale(error)):
                    raise translate(error, self._settings.directory, self._retry_after) from None
        raise AssertionError("the last round returns or raises")


def _signing_request(key: ec.EllipticCurvePrivateKey, host: str) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    names = x509.SubjectAlternativeName([x509.DNSName(host)])
    request = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


@cache
def _know_tls_alpn() -> None:
    """Teach the library a challenge that it once knew. What is said about it is the same as about http-01."""
    from acme import challenges  # noqa: PLC0415

    @challenges.ChallengeResponse.register
    class Response(challenges.KeyAuthorizationChallengeResponse):
        typ = "tls-alpn-01"

    @challenges.Challenge.register
    class _Challenge(challenges.KeyAuthorizationChallenge):
        response_cls = Response
        typ = Response.typ

        def validation(self, account_key: Any, **_: Any) -> Any:
            return self.key_authorization(account_key)


async def _on_a_thread(work: Callable[[], T]) -> T:
    """``asyncio.to_thread``, but the process may end while it runs."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if outcome.done():  # nobody waits any more
            return
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(result)  # type: ignore[arg-type] # a result there is, where there is no error

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as caught:  # noqa: BLE001 - it is raised where it is waited for
            error = caught
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="acme", daemon=True).start()
    return await outcome


def _is_stale(error: Exception) -> bool:
    from acme import messages  # noqa: PLC0415

    return isinstance(error, messages.Error) and error.code == "badNonce"


def refusal(error: "messages.Error", what: str, retry_after: float = 0.0) -> AcmeError:
    """An authority's own words (RFC 8555 section 6.7), with what helps."""
    code = str(error.typ or "").rpartition(":")[2]  # the library has a code for some of them only
    said = " ".join(str(error.detail or error.title or code or "no reason given").split())[:400]
    cure = _CURES.get(code, "doorward tries again by itself.")
    return AcmeError(
        f"{what}: {said}",
        cure=cure,
        detail=str(error.typ),
        counts=code not in _NOT_COUNTED,
        retry_after=retry_after,
    )


def translate(error: Exception, directory: str, retry_after: float = 0.0) -> AcmeError:
    """Whatever the libraries raise, as an error that people can do something about."""
    import requests  # noqa: PLC0415
    from acme import errors, messages  # noqa: PLC0415

    if isinstance(error, errors.ARIError) and isinstance(error.__cause__, Exception):
        return translate(error.__cause__, directory, retry_after)
    if isinstance(error, errors.IssuanceError):
        return refusal(error.error, "the authority refused", retry_after)
    if isinstance(error, messages.Error):
        return refusal(error, "the authority refused", retry_after)
    if isinstance(error, requests.exceptions.SSLError):
        return AcmeError(
            f"{directory} cannot be trusted: its certificate is not vouched for",
            cure="Is the machine's clock right? For a private authority set tls.acme.ca.",
            detail=str(error),
            counts=False,
        )
    if isinstance(error, OSError):  # requests' own errors are, too, and so is a CA file that is not there
        return AcmeError(
            f"{directory} cannot be reached: {_innermost(error)}",
            cure="doorward must get out to it by https; look at firewall, DNS and proxy. It is tried again by itself.",
            detail=str(error),
            counts=False,
            retry_after=retry_after,
        )
    if isinstance(error, errors.TimeoutError):
        return AcmeError("the authority does not get the order done", cure="It is tried again by itself.")
    return AcmeError(
        f"{directory} does not answer like an ACME directory",
        cure="Check tls.acme.directory.",
        detail=repr(error)[:500],
        counts=False,
        retry_after=retry_after,
    )


def _innermost(error: BaseException) -> str:
    """What is wrong at the bottom of an error that holds errors, without the addresses of Python's objects."""
    seen: BaseException = error
    for _ in range(8):
        inner = getattr(seen, "reason", None) or seen.__cause__ or seen.__context__
        if not isinstance(inner, BaseException):
            break
        seen = inner
    text = getattr(seen, "strerror", None) or str(seen).rpartition(">: ")[2] or type(seen).__name__
    return text[:200]
