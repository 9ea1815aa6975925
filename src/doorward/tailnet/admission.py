"""Who gets in: by auth key, by a person's approval, again after a restart; and out (control.md, section 10).

The order of the questions matters:

1. Is the client too old? Refuse with a sentence.
2. Does it log out? End its key; remove the node if it is ephemeral.
3. Is this very node, by machine key and node key, in already and its key still good? Then yes, whatever auth key it
   sends: containers repeat a spent key at every start. If its key has ended, say so: the client makes a new one.
4. Does it follow up on a link? The answer waits for a person.
5. An auth key? Check it, spend it and let the node in, in one transaction.
6. Otherwise park the request, and answer with a link.

A node is the same as before when machine key and owner are: it keeps id, name and addresses under its new node key. The
same machine signed in for another person is another node.
"""

import asyncio
from collections.abc import Iterable
from datetime import datetime
from enum import Enum
from ipaddress import IPv4Address, IPv6Address

import msgspec

from doorward.errors import BadInput, Conflict, NotFound, NotPermitted, TooMany
from doorward.model import Node, Registration, User
from doorward.protocol.keys import MachinePublic, NodePublic
from doorward.protocol.tailcfg.capability import MINIMUM_CAPVER, release_of
from doorward.protocol.tailcfg.hostinfo import Hostinfo
from doorward.protocol.tailcfg.register import RegisterRequest
from doorward.store import Connection, audit, cuts, nodes, registrations, users
from doorward.tailnet import secrets
from doorward.tailnet.gate import Applicant, Desk, Gate, first_seen, tags_of
from doorward.tailnet.observe import Observations
from doorward.tailnet.writer import Effect, Writer
from doorward.telemetry import ORIGIN

# Anybody who reaches the listener may ask to be let in, so what is kept of it is bounded. Far more than people can look at.
MOST_WAITING = 1000


class Verdict(Enum):
    """How a registration ended."""

    ADMITTED = "admitted"
    KEY_EXPIRED = "key-expired"  # the client makes a new node key and asks again
    LOGGED_OUT = "logged-out"
    NEEDS_PERSON = "needs-person"  # there is a link for a person


class Outcome(msgspec.Struct, frozen=True):
    """The answer to a registration; a refusal is an error instead."""

    verdict: Verdict
    node: Node | None = None
    link_code: str = ""  # with NEEDS_PERSON; a new one each time


class Admission:
    """Registrations, each decided in one transaction."""

    def __init__(self, writer: Writer, observations: Observations) -> None:
        self._writer = writer
        self._observations = observations
        self._gate = Gate(writer)
        # Registrations that are waited for. A client that lost its connection asks again before we notice that the
        # first asker is gone, so there may be several.
        self._waiting: dict[int, set[asyncio.Event]] = {}

    async def register(
        self,
        machine_key: MachinePublic,
        request: RegisterRequest,
        came_from: IPv4Address | IPv6Address | None = None,
    ) -> Outcome:
        """Decide a request. Raises DoorwardError, whose sentence the person at the client is to see, to refuse."""
        if request.Version < MINIMUM_CAPVER:
            raise NotPermitted(
                "this client is too old for this tailnet",
                cure=f"Update it to Tailscale {release_of(MINIMUM_CAPVER)} or newer.",
            )
        if request.NodeKey.is_zero():
            raise BadInput("the client sent no node key")
        now = self._writer.now()
        known = await self._writer.find(request.NodeKey)
        snapshot = self._writer.snapshot
        if request.is_logout(now):
            return await self._log_out(machine_key, known)
        if known is not None:
            # A tab has no machine: its machine key is nobody's, and this says so once more.
            if known.machine_key != machine_key or known.tab is not None:
                raise NotPermitted(
                    "this node key belongs to another machine",
                    cure="Was the client's state copied? Remove it here, then sign in again.",
                )
            if snapshot.suspended(known):
                raise NotPermitted(snapshot.who_is_suspended(known), cure="Ask an administrator.")
            if known.expired(now):
                return Outcome(Verdict.KEY_EXPIRED, known)
            return Outcome(Verdict.ADMITTED, await self._again(known, request))
        if request.Followup:
            return await self._follow_up(machine_key, request, came_from)
        if request.Auth is not None and request.Auth.AuthKey:
            return await self._by_key(machine_key, request, request.Auth.AuthKey)
        return await self._park(machine_key, request, came_from)

    def waiting(self) -> int:
        """How many requests are held until a person decides."""
        return sum(map(len, self._waiting.values()))

    async def approve(
        self, actor: str, registration_id: int, user: User, *, by_administrator: bool = False
    ) -> Node:
        """Let a waiting node in, for this user. Raises NotFound, Conflict or NotPermitted.

        Unless an administrator does it, a new node still waits for one where that is the rule (``Joining.approval``).
        """
        present = self._applicant(MachinePublic.zero(), None)
        node = await self._writer.apply(_approve, actor, registration_id, user.id, present, by_administrator)
        self.decided((registration_id,))
        return node

    async def deny(self, actor: str, registration_id: int) -> Registration:
        """Refuse a waiting node: its link is spent, and its client says so. Raises NotFound or Conflict."""
        registration = await self._writer.apply(_deny, actor, registration_id, self._writer.now())
        self.decided((registration_id,))
        return registration

    def decided(self, registration_ids: Iterable[int]) -> None:
        """A person decided about these, here or at another process: answer who waits."""
        for registration_id in registration_ids:
            for event in self._waiting.get(registration_id, ()):
                event.set()

    def _applicant(self, machine_key: MachinePublic, request: RegisterRequest | None) -> Applicant:
        """Everything random, and everything the transaction may ask the present snapshot."""
        writer = self._writer
        settings_now = writer.snapshot.settings
        return Applicant(
            machine_key=machine_key,
            request=request or _NO_REQUEST,
            observed=first_seen(request or _NO_REQUEST),
            stable_id="n" + secrets.base32(writer.entropy(10)),
            random_index=int.from_bytes(writer.entropy(8), "big") if settings_now.random_addresses else -1,
            settings=settings_now,
            policy=writer.snapshot.policy,
            now=writer.now(),
            origin=ORIGIN.get(),
        )

    async def _log_out(self, machine_key: MachinePublic, known: Node | None) -> Outcome:
        if known is not None and known.machine_key == machine_key:
            await self._writer.apply(_log_out, known.id, self._writer.now())
        return Outcome(Verdict.LOGGED_OUT, known)

    async def _again(self, known: Node, request: RegisterRequest) -> Node:
        """A node that is in already: a restart. It may ask for other tags than it has."""
        wanted = tags_of(request.Hostinfo or Hostinfo())
        # Only a new wish counts: an old one was decided on then, and an administrator may have decided otherwise since.
        if wanted and wanted not in (known.tags, tags_of(known.observed.hostinfo)):
            await self._writer.apply(_retag, known.id, wanted, self._applicant(known.machine_key, request))
        return await self._introduced(known, request)

    async def _introduced(self, node: Node, request: RegisterRequest) -> Node:
        """The node, once what it says of its host is known."""
        await self._observations.introduced(node.id, request.Hostinfo, request.Version)
        return self._writer.snapshot.nodes.get(node.id, node)

    async def _by_key(self, machine_key: MachinePublic, request: RegisterRequest, secret: str) -> Outcome:
        applicant = self._applicant(machine_key, request)
        node = await self._gate.admit(secrets.digest(secret), applicant)
        known = self._writer.snapshot.nodes.get(node.id, node)
        if known.observed is applicant.observed:  # a new node: what it says of its host came in with it
            return Outcome(Verdict.ADMITTED, known)
        return Outcome(Verdict.ADMITTED, await self._introduced(node, request))

    async def _park(
        self,
        machine_key: MachinePublic,
        request: RegisterRequest,
        came_from: IPv4Address | IPv6Address | None,
    ) -> Outcome:
        """Keep the request until a person decides, under the hash of a fresh code."""
        code = secrets.make_code(self._writer.entropy(secrets.ENTROPY))
        now = self._writer.now()
        lifetime = self._writer.snapshot.settings.registration_lifetime
        draft = Registration(
            id=0,
            code_hash=code.digest,
            machine_key=machine_key,
            node_key=request.NodeKey,
            hostinfo=request.Hostinfo or Hostinfo(),  # as it was said: whoever decides is to see all of it
            cap_version=request.Version,
            ephemeral=request.Ephemeral,
            created=now,
            expires=now + lifetime,
            came_from=came_from,
        )
        await self._writer.database.run(_park, draft)
        return Outcome(Verdict.NEEDS_PERSON, link_code=code.text)

    async def _follow_up(
        self,
        machine_key: MachinePublic,
        request: RegisterRequest,
        came_from: IPv4Address | IPv6Address | None,
    ) -> Outcome:
        """Hold the answer until the person has decided, or the link is spent: then there is a new link.

        Raises NotPermitted when they said no.
        """
        code = request.Followup.rstrip("/").rpartition("/")[2]
        registration = await self._writer.database.read(registrations.by_code_hash, secrets.digest(code))
        if (
            registration is None
            or registration.machine_key != machine_key
            or registration.node_key != request.NodeKey
        ):
            return await self._park(machine_key, request, came_from)
        event = asyncio.Event()
        self._waiting.setdefault(registration.id, set()).add(event)
        try:
            # Looked at again after the event exists: an approval between the two would be waited for in vain.
            found = await self._writer.database.read(registrations.by_id, registration.id)
            if found is None or (found.node_id is None and found.denied is None):
                left = (registration.expires - self._writer.now()).total_seconds()
                async with asyncio.timeout(max(0.0, left)):
                    await event.wait()
                found = await self._writer.database.read(registrations.by_id, registration.id)
        except TimeoutError:
            return await self._park(machine_key, request, came_from)
        finally:
            waiting = self._waiting[registration.id]
            waiting.discard(event)
            if not waiting:
                del self._waiting[registration.id]
        if found is not None and found.denied is not None:
            raise NotPermitted(
                "this device was not let in: somebody denied it",
                cure="If that was a mistake, run `tailscale up` again and have the new link approved.",
            )
        node = await self._writer.find(request.NodeKey)
        if node is None:
            return await self._park(machine_key, request, came_from)
        return Outcome(Verdict.ADMITTED, node)


_NO_REQUEST = RegisterRequest(Version=0, NodeKey=NodePublic.zero())


def _park(connection: Connection, draft: Registration) -> None:
    """Keep a request, and forget those whose time is over or that this one replaces."""
    registrations.delete_expired(connection, draft.created)
    for older in registrations.by_node_key(connection, draft.node_key):
        # Of the same machine only: nobody may take away another's link by claiming its node key.
        if older.node_id is None and older.denied is None and older.machine_key == draft.machine_key:
            registrations.delete(connection, older.id)
    if registrations.count(connection) >= MOST_WAITING:
        raise TooMany("too many devices wait for approval", cure="Try again in a quarter of an hour.")
    registrations.insert(connection, draft)


def _log_out(connection: Connection, node_id: int, now: datetime) -> Effect[None]:
    node = nodes.by_id(connection, node_id)
    if node is None:
        return Effect(result=None)
    actor = f"node:{node.stable_id}"
    if (
        node.ephemeral and not node.suspended
    ):  # a suspended one stays: forgotten, it could come back as another
        lifted = cuts.delete_of(connection, (node_id,))
        nodes.delete(connection, node_id)
        gone = {"removed": True, "name": node.name, "before": {"key": str(node.node_key), "tags": node.tags}}
        audit.append(connection, actor=actor, action="node.logout", target=actor, details=gone, at=now)
        return Effect(result=None, removed=(node_id,), cuts_gone=tuple(lifted))
    if node.expired(now):
        return Effect(result=None)
    # Never later than now, and now rather than the client's wish: an expiry far in the past would say nothing more.
    ended = nodes.update(connection, msgspec.structs.replace(node, key_expiry=now))
    ending = {"key_expiry": now, "before": {"key_expiry": node.key_expiry}}
    audit.append(connection, actor=actor, action="node.logout", target=actor, details=ending, at=now)
    return Effect(result=None, nodes=(ended,))


def _retag(
    connection: Connection, node_id: int, wanted: tuple[str, ...], applicant: Applicant
) -> Effect[Node]:
    """A known node asks for other tags: as its owner, or as the tagged node it is, may it?"""
    node = nodes.by_id(connection, node_id)
    if node is None:
        raise NotFound("this node was deleted", cure="Sign in again.")
    owner = None if node.user_id is None else users.by_id(connection, node.user_id)
    for tag in wanted:
        allowed = tag in node.tags or (
            applicant.policy.may_tag_as(node.tags, tag)
            if node.tags
            else owner is not None and applicant.policy.may_tag(owner, tag)
        )
        if not allowed:
            raise _tag_refused(tag)
    changed = nodes.update(connection, msgspec.structs.replace(node, tags=wanted, key_expiry=None))
    target = f"node:{node.stable_id}"
    audit.append(
        connection,
        actor=target,
        action="node.tags",
        target=target,
        details={"tags": wanted, "rule": "tagOwners", "before": {"tags": node.tags}},
        at=applicant.now,
    )
    return Effect(result=changed, nodes=(changed,))


def _tag_refused(tag: str) -> NotPermitted:
    return NotPermitted(
        f"the tag {tag} is not yours to give",
        cure="An administrator can name you in tagOwners of the policy, or give the tag themselves.",
    )


def _approve(
    connection: Connection,
    actor: str,
    registration_id: int,
    user_id: int,
    present: Applicant,
    by_administrator: bool,
) -> Effect[Node]:
    user = users.by_id(connection, user_id)
    if user is None:
        raise NotFound("this user was deleted", cure="`doorward users list` shows the users there are.")
    if user.suspended:
        raise NotPermitted(
            f"{user.name} is suspended", cure="Lift the suspension first, or name another user."
        )
    registration = _undecided(connection, registration_id, present.now)
    request = RegisterRequest(
        Version=registration.cap_version,
        NodeKey=registration.node_key,
        Hostinfo=registration.hostinfo,
        Ephemeral=registration.ephemeral,
    )
    applicant = msgspec.structs.replace(
        present, machine_key=registration.machine_key, request=request, observed=first_seen(request)
    )
    tags = tags_of(registration.hostinfo)
    for tag in tags:
        if not applicant.policy.may_tag(user, tag):
            raise _tag_refused(tag)
    desk = Desk(connection, (applicant,))
    desk.admit(
        applicant,
        owner=user,
        tags=tags,
        actor=actor,
        key=None,
        ephemeral=registration.ephemeral,
        by_administrator=by_administrator,
    )
    (node,) = desk.close()
    registrations.approve(connection, registration_id, node.id, present.now)
    return Effect(result=node, nodes=(node,), registrations=(registration_id,))


def _undecided(connection: Connection, registration_id: int, now: datetime) -> Registration:
    """A registration that can still be decided. Raises NotFound or Conflict."""
    registration = registrations.by_id(connection, registration_id)
    if registration is None or registration.expires <= now:
        raise NotFound(
            "this link is spent", cure="Run `tailscale up` again on the device: it shows a new one."
        )
    if registration.node_id is not None:
        raise Conflict("this device was approved already")
    if registration.denied is not None:
        raise Conflict(
            "this device was denied already", cure="Run `tailscale up` again on it: it shows a new link."
        )
    return registration


def _deny(connection: Connection, actor: str, registration_id: int, now: datetime) -> Effect[Registration]:
    registration = _undecided(connection, registration_id, now)
    registrations.deny(connection, registration_id, now)
    details = {
        "hostname": registration.hostinfo.Hostname,
        "key": str(registration.node_key),
        "came_from": "" if registration.came_from is None else str(registration.came_from),
    }
    audit.append(connection, actor, "node.deny", f"registration:{registration_id}", details, now)
    denied = msgspec.structs.replace(registration, denied=now)
    return Effect(result=denied, registrations=(registration_id,))
