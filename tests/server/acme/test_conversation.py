"""A talk with a real authority (Pebble): what it gives, what it refuses, and what people are told of everything that fails."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
import requests
from acme import errors, messages
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from tests.support.pebble import BLOCKED, Pebble, PretendedDns, pretended_dns, running_pebble

from doorward.clock import SystemClock
from doorward.config.settings import Acme, AcmeAccount
from doorward.server import tls
from doorward.server.acme import conversation
from doorward.server.acme.conversation import Conversation, Proof, refusal, translate
from doorward.server.acme.faults import AcmeError

KEY = tls.key_pem(ec.generate_private_key(ec.SECP256R1()))
HOST = "door.example.test"


class Place:
    """An authority, and where proofs for it are made."""

    def __init__(self, pebble: Pebble, dns: PretendedDns) -> None:
        self.pebble = pebble
        self._dns = dns
        self.proofs: list[Proof] = []

    def settings(self, **changes: Any) -> Acme:
        whole = Acme(directory=self.pebble.directory, agree=True, challenge="dns-01", ca=self.pebble.ca)
        return msgspec.structs.replace(whole, **changes)

    def talk(self, key: bytes = KEY, **changes: Any) -> Conversation:
        return Conversation(self.settings(**changes), key, SystemClock())

    @contextlib.asynccontextmanager
    async def present(self, proof: Proof) -> AsyncIterator[None]:
        self.proofs.append(proof)
        record = {"host": f"_acme-challenge.{proof.host}.", "value": proof.record}
        async with httpx2.AsyncClient(base_url=self._dns.management, trust_env=False) as client:
            assert (await client.post("/set-txt", json=record)).is_success
            yield
            assert (await client.post("/clear-txt", json=record)).is_success


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    async with pretended_dns() as dns, running_pebble(dns_port=dns.port, reuse=100) as pebble:
        yield Place(pebble, dns)


@contextlib.asynccontextmanager
async def nothing(_: Proof) -> AsyncIterator[None]:
    """Claim to present a proof."""
    yield


async def test_an_order_from_the_account_to_the_chain(place: Place) -> None:
    pem = await place.talk(email="me@example.com").order(HOST, place.present)
    leaf, *chain = x509.load_pem_x509_certificates(pem)
    assert tls.checked(pem, HOST, SystemClock().now(), "") == leaf
    leaf.verify_directly_issued_by(chain[0])
    (proof,) = place.proofs
    assert (proof.host, proof.challenge) == (HOST, "dns-01")
    assert proof.authorization.startswith(f"{proof.token}.")
    # The account is found again by its key, its address follows the settings, and what is proven is not asked again.
    again = await place.talk(email="you@example.com").order(HOST, nothing)
    assert x509.load_pem_x509_certificates(again)[0].public_key() != leaf.public_key()
    assert len(place.proofs) == 1
    advice = await place.talk().advice(leaf)
    now = SystemClock().now()
    assert advice.renew is not None
    assert leaf.not_valid_before_utc < advice.renew < leaf.not_valid_after_utc
    assert now < advice.ask < now + timedelta(days=1)


async def test_what_an_authority_refuses_is_said_with_its_cure(place: Place) -> None:
    with pytest.raises(AcmeError, match="forbidden by policy") as refused:
        await place.talk().order(BLOCKED, place.present)
    assert "public DNS name of your own" in refused.value.cure
    assert refused.value.counts
    with pytest.raises(AcmeError, match=f"{HOST} was not proven: .*TXT") as refused:
        await place.talk().order(HOST, nothing)
    assert "Something else answers" in refused.value.cure
    for challenge in ("http-01", "tls-alpn-01"):  # nobody listens there
        with pytest.raises(AcmeError, match="was not proven"):
            await place.talk(challenge=challenge).order(f"{challenge}.example.test", nothing)
    with pytest.raises(AcmeError, match=r"does not offer dns-02 .*, but .*dns-01, .*http-01, .*tls-alpn-01"):
        await place.talk(challenge="dns-02").order("other.example.test", nothing)
    stranger = tls.key_pem(ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(AcmeError, match="erms of service"):
        await place.talk(stranger, agree=False).order(HOST, nothing)


async def test_what_is_on_the_way_to_an_authority_is_said_and_not_counted(
    place: Place, tmp_path: Path
) -> None:
    for changes, message, cure in (
        ({"directory": "https://127.0.0.1:9/dir"}, "cannot be reached: Connection refused", "firewall"),
        ({"directory": "https://nobody.invalid/dir"}, "cannot be reached: ", "firewall"),
        ({"ca": None}, "cannot be trusted", "tls.acme.ca"),
        ({"ca": tmp_path / "nothing"}, "there is no file", "tls.acme.ca"),
        ({"directory": place.pebble.directory.removesuffix("dir")}, "not answer like an ACME", "directory"),
    ):
        with pytest.raises(AcmeError, match=message) as refused:
            await place.talk(**changes).order(HOST, nothing)
        assert cure in refused.value.cure
        assert not refused.value.counts
        assert "object at 0x" not in refused.value.message


async def test_two_names_that_are_ordered_at_once_make_one_account(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    entering, within, most = asyncio.Lock(), 0, 0
    enter = Conversation._enter

    def counted(talk: Conversation, talking: Any) -> None:
        nonlocal within, most
        within += 1
        most = max(most, within)
        enter(talk, talking)
        within -= 1

    monkeypatch.setattr(Conversation, "_enter", counted)
    hosts = [f"{name}.example.test" for name in ("one", "two", "three", "four")]
    talks = [Conversation(place.settings(), KEY, SystemClock(), entering) for _ in hosts]
    async with asyncio.TaskGroup() as group:
        for host, talk in zip(hosts, talks, strict=True):
            group.create_task(talk.order(host, place.present))
    assert most == 1
    assert place.pebble.log.read_text().count("There are now 1 accounts") == 1


async def test_an_account_that_was_made_elsewhere_is_bound_where_one_is_wanted(tmp_path: Path) -> None:
    file = tmp_path / "account"
    theirs = {"kid-1": "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"}
    async with pretended_dns() as dns, running_pebble(dns_port=dns.port, accounts=theirs) as pebble:
        place = Place(pebble, dns)
        with pytest.raises(AcmeError, match="refused") as refused:
            await place.talk().order(HOST, nothing)
        assert "tls.acme.account.id" in refused.value.cure
        for text, good in ((theirs["kid-1"][::-1], False), (theirs["kid-1"], True)):
            file.write_text(text + "\n")
            file.chmod(0o600)
            talk = place.talk(account=AcmeAccount(id="kid-1", key=file))
            if good:
                assert (await talk.order(HOST, place.present)).count(b"BEGIN CERTIFICATE") >= 2
                continue
            with pytest.raises(AcmeError, match="refused"):
                await talk.order(HOST, nothing)
        file.unlink()
        with pytest.raises(AcmeError, match="cannot be read"):
            await place.talk(account=AcmeAccount(id="kid-1", key=file)).order(HOST, nothing)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"null",
        b"[]",
        b'{"newNonce": 1, "newAccount": []}',
        b'{"newNonce": "nowhere", "newAccount": "nowhere", "newOrder": "nowhere"}',
        b"<html>",
        b"\xff\xfe",
        b"[" * 5000,
    ],
)
async def test_nonsense_is_no_more_than_a_failure(tmp_path: Path, said: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(said)}\r\nconnection: close\r\n\r\n"
            writer.write(head.encode() + said)
            await writer.drain()
        writer.close()

    authority = tls.Authority.open(tmp_path, SystemClock())
    own = tls.IssuedCertificate(authority, "own", SystemClock(), names=("localhost",))
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=own.context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        settings = Acme(directory=f"https://localhost:{port}/dir", agree=True, ca=authority.file)
        with pytest.raises(AcmeError) as refused:
            await Conversation(settings, KEY, SystemClock()).order(HOST, nothing)
        assert refused.value.cure
        assert not refused.value.counts


def _problem(code: str, detail: str = "its reason") -> messages.Error:
    return messages.Error(typ=f"urn:ietf:params:acme:error:{code}", detail=detail)  # type: ignore[call-arg]


def test_each_kind_of_refusal_has_a_cure() -> None:
    for code in conversation._CURES:
        error = refusal(_problem(code), "refused", 7.0)
        assert error.message == "refused: its reason"
        assert error.cure == conversation._CURES[code]
        assert error.retry_after == 7.0
    assert not refusal(_problem("serverInternal"), "refused").counts
    long = refusal(_problem("dns", "x \n" * 10_000), "refused")
    assert len(long.message) < 500
    assert "\n" not in long.message


@pytest.mark.parametrize(
    ("error", "message", "counts"),
    [
        (errors.IssuanceError(_problem("caa")), "refused: its reason", True),
        (errors.TimeoutError(), "does not get the order done", True),
        (requests.exceptions.ReadTimeout("slow"), "cannot be reached: slow", False),
        (errors.ClientError("nonsense"), "not answer like an ACME", False),
        (KeyError("newNonce"), "not answer like an ACME", False),
        (ValueError("in a date"), "not answer like an ACME", False),
    ],
)
def test_whatever_the_libraries_raise_is_an_error_with_a_cure(
    error: Exception, message: str, counts: bool
) -> None:
    found = translate(error, "https://ca.example/dir")
    assert message in found.message
    assert found.counts is counts
    assert found.cure


def test_the_reason_behind_missing_advice_is_the_one_that_is_told() -> None:
    outer = errors.ARIError("no", SystemClock().now())
    outer.__cause__ = _problem("rateLimited")
    assert "its reason" in translate(outer, "https://ca.example/dir").message


async def test_a_nonce_that_was_forgotten_is_no_failure() -> None:
    talk = Conversation(Acme(directory="https://ca.example/dir"), KEY, SystemClock())
    answers: list[Any] = [_problem("badNonce"), _problem("badNonce"), "an answer"]

    def work() -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert await talk._step(work) == "an answer"
    answers = [_problem("badNonce")] * 9
    with pytest.raises(AcmeError, match="its reason") as refused:
        await talk._step(work)
    assert not refused.value.counts
    assert len(answers) == 9 - conversation.NONCES


def _answer(ok: bool, value: str | None) -> Any:
    answer = requests.Response()
    answer.status_code = 200 if ok else 429
    if value is not None:
        answer.headers["Retry-After"] = value
    return answer


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (_answer(False, "120"), 120.0),
        (_answer(True, "120"), 0.0),
        (_answer(False, None), 0.0),
        (_answer(False, "Sat, 21 Nov 2026 00:00:00 GMT"), 0.0),
        (_answer(False, "9" * 400), 0.0),
    ],
)
def test_how_long_an_authority_wants_to_be_left_alone(answer: Any, seconds: float) -> None:
    talk = Conversation(Acme(), KEY, SystemClock())
    talk._note_retry_after(answer)
    assert talk._retry_after == seconds


async def test_a_step_that_hangs_keeps_nobody_from_stopping() -> None:
    released = threading.Event()

    async def waiting(work: Callable[[], object]) -> None:
        await conversation._on_a_thread(work)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(waiting(released.wait))
        await asyncio.sleep(0.01)
        task.cancel()
    (thread,) = [one for one in threading.enumerate() if one.name == "acme"]
    assert thread.daemon  # the process may end without it
    released.set()
    thread.join(2)
    await asyncio.sleep(0)  # what it brings then is nobody's, and no error
