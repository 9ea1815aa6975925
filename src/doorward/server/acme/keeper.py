"""Sees to it that each address has a good certificate: when one is due, who orders it, and what is said of it.

::

             ┌── not due ◀───────────────────────────────┐
             ▼                                           │
    look ── due, and the name is ours to order ─▶ order ─┴─ kept, presented by every worker
             ▲                                      │
             └── a wait, longer after each ◀── failed: what was presented stays

One is due when there is none, when its authority is another one than the settings name, and when two thirds of its life are
over, less a little by chance; where the authority says when (RFC 9773), then. One worker orders, the one with the folder's
lock; the kernel gives it up when that worker ends, and another goes on. What failed is written down, so that a doorward that
starts again and again does not ask again and again.
"""

import asyncio
import contextlib
import fcntl
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime, timedelta

import msgspec
from cryptography import x509

from doorward.api.types import Finding, Part
from doorward.clock import Clock
from doorward.config import Settings
from doorward.errors import DoorwardError
from doorward.server import tls
from doorward.server.acme.certificate import OrderedCertificate
from doorward.server.acme.conversation import Conversation, Proof
from doorward.server.acme.faults import DAY, HOUR, MINUTE, AcmeError, wait_after
from doorward.server.acme.folder import Answer, Folder, State
from doorward.server.acme.records import records_of
from doorward.server.acme.sharing import Sharing
from doorward.telemetry import counter, log

LOOK = 60.0  # seconds between two looks, whatever falls due: clocks jump
PAUSE = 0.5  # seconds between two looks at least
TURN = 1.0  # seconds between two attempts to get the lock, and looks at what whoever has it has put into the folder
SHARE = 2.0  # seconds between two looks at what other doorwards on the same database have
TIDYING = 30.0  # seconds for taking a DNS record away
SPREAD = 20  # the part of a life by which renewals are spread by chance
LATEST = 5 / 6  # of a life: no authority can put a renewal off beyond it
WINDOW = 1 / 30  # of a life: windows are narrower, two days of ninety with the largest authority
ASK = 6 * HOUR  # seconds between two questions to the authority when it wants a renewal

_orders = counter("acme_orders_total", "Orders of certificates, by how they ended.", "outcome")
_log = log("acme")


class Keeper:
    """The keeper of one worker. ``run`` it beside the rest; everything else answers at any time.

    Args:
        settings: complete.
        folder: the one of this data directory.
        certificates: what the listeners present, by host.
        clock: tells what is due.
        entropy: for chance.
        sharing: with other doorwards on the same database; None where there are none.
    """

    def __init__(
        self,
        settings: Settings,
        folder: Folder,
        certificates: Mapping[str, OrderedCertificate],
        clock: Clock,
        entropy: Callable[[int], bytes],
        sharing: Sharing | None = None,
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._certificates = certificates
        self._clock = clock
        self._entropy = entropy
        self._sharing = sharing
        self._answers: dict[str, Answer] = {}  # ours, by host
        self._others: tuple[Answer, ...] = ()  # of other doorwards
        self._wake = {host: asyncio.Event() for host in certificates}
        self._urgent: set[str] = set()  # an administrator asked for it
        self._entering = asyncio.Lock()  # two names are ordered at once, for one account
        acme = settings.tls.acme
        self._digest = hashlib.sha256(msgspec.json.encode(acme, enc_hook=str)).hexdigest()[:16]

    def ask(self) -> None:
        """Try at once what failed, if its authority allows that, and ask it when it wants the rest renewed."""
        self._urgent = set(self._certificates)
        for event in self._wake.values():
            event.set()

    async def run(self) -> None:
        """Keep them until cancelled, whatever fails."""
        async with self._turn():
            self._keep_answers()  # those of a worker that died are no longer asked for
            async with asyncio.TaskGroup() as group:
                for host in self._certificates:
                    group.create_task(self._keep(host))
                if self._sharing is not None:
                    group.create_task(self._share(self._sharing))

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Wait until no other worker orders; present meanwhile what it gets."""
        with self._folder.lock.open("w") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await asyncio.sleep(TURN)
                for host in self._certificates:
                    self._present(host)
            yield

    async def _keep(self, host: str) -> None:
        while True:
            wait = LOOK
            try:
                wait = await self._look(host)
            except DoorwardError as error:
                _log.warning("whose turn it is to order cannot be known", host=host, reason=error.message)
            except Exception:  # noqa: BLE001 - a fault of ours costs one look, never the worker
                _log.exception("a certificate could not be looked at", host=host)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(max(wait, PAUSE), LOOK)):
                    await self._wake[host].wait()
            self._wake[host].clear()

    async def _look(self, host: str) -> float:
        """Order what is due; seconds until there may be something to do."""
        if self.due(host) <= self._clock.now():
            if self._sharing is None:
                await self._order(host)
            elif await self._sharing.claim(host):
                try:
                    await self._take_in(
                        self._sharing
                    )  # the one who had the turn before may have passed one on
                    if self.due(host) <= self._clock.now():
                        await self._order(host)
                finally:
                    await self._sharing.release(host)
            else:
                return SHARE
        elif self._advice_is_due(host):
            await self._take_advice(host)
        self._urgent.discard(host)
        state, now = self._folder.state(host), self._clock.now()
        until = min(self.due(host), state.ask or now + timedelta(seconds=LOOK))
        return (until - now).total_seconds()

    def due(self, host: str) -> datetime:
        """When the next order is to be made; in the past: now."""
        now = self._clock.now()
        held, state = self._folder.certificate(host, now), self._folder.state(host)
        when = now
        if held is not None and (state.directory or self._directory) == self._directory:
            when = renewal(held.leaf)
            if state.renew is not None:
                when = min(state.renew, _part_of(held.leaf, LATEST))
        if state.began is not None and timedelta() <= now - state.began < timedelta(seconds=MINUTE):
            # Whoever began it died, maybe of it: it must not be asked for as often as workers can die.
            when = max(when, state.began + timedelta(seconds=MINUTE))
        if state.failures and state.next is not None and state.settings == self._digest:
            asked = host in self._urgent and not state.firm
            rested = state.last is None or now - state.last > timedelta(seconds=MINUTE)
            # A clock that was put back must not make it wait for longer than any wait.
            if not (asked and rested) and state.next - now < timedelta(days=8):
                when = max(when, state.next)
        return when

    @property
    def _directory(self) -> str:
        return self._settings.tls.acme.directory

    def _talk(self) -> Conversation:
        key = self._folder.account_key(self._directory)
        return Conversation(self._settings.tls.acme, key, self._clock, self._entering)

    async def _order(self, host: str) -> None:
        before, now = self._folder.state(host), self._clock.now()
        trying = msgspec.structs.replace(before, last=now, began=now, settings=self._digest)
        _log.info("ordering a certificate", host=host, of=self._directory)
        try:
            self._folder.keep_state(
                host, trying
            )  # where this cannot be written, nothing that comes could be kept
            pem = await self._talk().order(host, self._presented)
            self._folder.keep_certificate(host, pem, self._clock.now())
        except (DoorwardError, OSError) as error:
            self._failed(host, before, _as_acme(error))
            return
        except asyncio.CancelledError:
            self._say(host, before)  # we were stopped, which is nobody's failure
            raise
        self._present(host)
        _orders.labels("had").inc()
        done = State(
            last=now, settings=self._digest, directory=self._directory, ask=self._next_question(host)
        )
        self._say(host, done)
        if self._sharing is not None:
            await self._sharing.pass_on(host, self._directory, pem)

    def _failed(self, host: str, before: State, error: AcmeError) -> None:
        failures = before.failures + 1
        fraction = int.from_bytes(self._entropy(2), "big") / 65536
        wait = wait_after(error, failures, fraction)
        now = self._clock.now()
        _orders.labels("failed").inc()
        _log.error(
            "no certificate was had",
            host=host,
            reason=error.sentence(),
            detail=error.detail,
            failures=failures,
            again_in=round(wait),
        )
        self._say(
            host,
            msgspec.structs.replace(
                before,
                failures=failures,
                last=now,
                began=None,
                next=now + timedelta(seconds=wait),
                firm=error.retry_after > 0,
                reason=error.message,
                cure=error.cure,
                settings=self._digest,
            ),
        )

    def _say(self, host: str, state: State) -> None:
        try:
            self._folder.keep_state(host, state)
        except OSError as error:
            _log.warning("how an order went cannot be written down", host=host, error=error.strerror)

    def _present(self, host: str) -> None:
        certificate = self._certificates[host]
        try:
            if certificate.refresh() and certificate.ordered:
                _log.info("certificate in use", host=host, until=certificate.expires.isoformat())
        except (DoorwardError, OSError) as error:
            _log.error("a certificate cannot be presented", host=host, reason=str(error))

    # What the authority wants to see.

    @contextlib.asynccontextmanager
    async def _presented(self, proof: Proof) -> AsyncIterator[None]:
        if proof.challenge == "dns-01":
            records, name = records_of(self._settings), f"_acme-challenge.{proof.host}"
            try:
                await records.add(name, proof.record)
                yield
            finally:
                try:
                    async with asyncio.timeout(TIDYING):
                        await records.remove(name, proof.record)
                except (AcmeError, TimeoutError) as error:
                    _log.warning("a DNS record was left behind", name=name, reason=str(error))
            return
        answer = self._answers[proof.host] = Answer(
            host=proof.host,
            challenge="http-01" if proof.challenge == "http-01" else "tls-alpn-01",
            token=proof.token,
            authorization=proof.authorization,
        )
        try:
            self._keep_answers()
            if self._sharing is not None:
                await self._sharing.tell(proof.host, answer)
            yield
        finally:
            # The others forget it when the turn is given back.
            del self._answers[proof.host]
            with contextlib.suppress(
                OSError
            ):  # it proves nothing any more, and the next order writes it anew
                self._keep_answers()

    def _keep_answers(self) -> None:
        self._folder.keep_answers((*self._answers.values(), *self._others))

    # When the authority wants a renewal.

    def _next_question(self, host: str) -> datetime | None:
        """The next question, sooner where a life is short."""
        now = self._clock.now()
        held = self._folder.certificate(host, now)
        return None if held is None else now + min(_life(held.leaf) / 10, timedelta(seconds=ASK))

    def _advice_is_due(self, host: str) -> bool:
        ask = self._folder.state(host).ask
        return ask is None or ask <= self._clock.now() or host in self._urgent

    async def _take_advice(self, host: str) -> None:
        now, state = self._clock.now(), self._folder.state(host)
        held = self._folder.certificate(host, now)
        if held is None:
            return
        soonest, renew = self._next_question(host) or now, state.renew
        try:
            advice = await self._talk().advice(held.leaf)
        except DoorwardError as error:
            _log.info("the authority does not say when to renew", host=host, reason=error.message)
            soonest = max(soonest, now + timedelta(seconds=HOUR))
        else:
            soonest = max(soonest, min(advice.ask, now + timedelta(seconds=DAY)))
            # It is a moment by chance inside a window, another one each time: the first counts while the window stays.
            if advice.renew is None or renew is None or _is_elsewhere(advice.renew, renew, held.leaf, now):
                renew = advice.renew
        self._say(host, msgspec.structs.replace(state, renew=renew, ask=soonest))

    # With other doorwards.

    async def _share(self, sharing: Sharing) -> None:
        while True:
            await asyncio.sleep(SHARE)
            if sharing.alone() and not self._others:
                continue
            try:
                await self._take_in(sharing)
            except (DoorwardError, OSError) as error:
                _log.info("what other doorwards have cannot be read", reason=str(error))

    async def _take_in(self, sharing: Sharing) -> None:
        """Answer for the others, and take what they have got."""
        seen = await sharing.look(tuple(self._certificates))
        if seen.answers != self._others:
            self._others = seen.answers
            self._keep_answers()
        for host, had in seen.certificates.items():
            if had.directory == self._directory:
                self._take(host, had.pem)

    def _take(self, host: str, pem: bytes) -> None:
        """Keep one that another doorward has got, if it is better than ours."""
        now = self._clock.now()
        held, state = self._folder.certificate(host, now), self._folder.state(host)
        with contextlib.suppress(tls.CertificateError):
            leaf = tls.checked(pem, host, now, "another doorward's certificate")
            ours = held if (state.directory or self._directory) == self._directory else None
            if ours is None or leaf.not_valid_after_utc > ours.leaf.not_valid_after_utc:
                self._folder.keep_certificate(host, pem, now)
                self._say(host, State(directory=self._directory, ask=self._next_question(host)))
                self._present(host)
                self._wake[host].set()

    # What is said of it.

    def part(self) -> Part:
        """What ``status`` says."""
        words, cures = [], []
        for host, certificate in self._certificates.items():
            state = self._folder.state(host)
            words.append(_words(host, certificate, state))
            if state.failures:
                cures.append(state.cure)
        failing = bool(cures)
        return Part(
            name="certificates",
            state="failing" if failing else "running",
            text="; ".join(words),
            cure=" ".join(dict.fromkeys(cure for cure in cures if cure)),
        )

    def findings(self) -> list[Finding]:
        """What ``doctor`` says."""
        found = []
        for host, certificate in self._certificates.items():
            state = self._folder.state(host)
            message = _words(host, certificate, state)
            if state.failures:
                # While the one before is good there is time; without it people are kept out.
                good = certificate.ordered and certificate.expires > self._clock.now()
                level = "warning" if good else "error"
                found.append(
                    Finding(level=level, subject="certificates", message=message, cure=state.cure)  # type: ignore[arg-type]
                )
            elif not certificate.ordered:
                cure = "It is being ordered now; doorward's log has more."
                found.append(Finding(level="warning", subject="certificates", message=message, cure=cure))
            else:
                found.append(Finding(level="ok", subject="certificates", message=message))
        return found


def _words(host: str, certificate: OrderedCertificate, state: State) -> str:
    words = f"{host} until {certificate.expires:%Y-%m-%d %H:%M} UTC"
    if not certificate.ordered:
        words = f"{host} has none that browsers trust yet"
    if state.failures:
        again = f", again at {state.next:%Y-%m-%d %H:%M} UTC" if state.next is not None else ""
        words += f" (failed {state.failures} time{'s' * (state.failures > 1)}{again}: {state.reason})"
    return words


def _as_acme(error: DoorwardError | OSError) -> AcmeError:
    if isinstance(error, AcmeError):
        return error
    if isinstance(error, OSError):
        return AcmeError(
            f"what was ordered cannot be kept: {error.strerror}",
            cure="Is there room on the disk of the data directory?",
        )
    return AcmeError(error.message, cure=error.cure, detail=error.detail)


def _life(leaf: x509.Certificate) -> timedelta:
    return leaf.not_valid_after_utc - leaf.not_valid_before_utc


def _is_elsewhere(new: datetime, old: datetime, leaf: x509.Certificate, now: datetime) -> bool:
    """Whether a moment is of another window than the one before, or cannot wait."""
    return new <= now or abs(new - old) > _life(leaf) * WINDOW


def _part_of(leaf: x509.Certificate, part: float) -> datetime:
    return leaf.not_valid_before_utc + _life(leaf) * part


def renewal(leaf: x509.Certificate) -> datetime:
    """When a certificate is renewed if nobody says otherwise: at two thirds of its life, less up to a twentieth of it.

    The chance is in its serial number: the same after every start, and another one for each certificate.
    """
    chance = int.from_bytes(hashlib.sha256(str(leaf.serial_number).encode()).digest()[:4], "big") / 2**32
    return _part_of(leaf, 2 / 3 - chance / SPREAD)
