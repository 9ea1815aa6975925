"""Browsers' tabs that are nodes: how they come to be, what they are for, and what ends them.

::

    a page, its session     POST: its node key, a machine, an account
      │                       │  one transaction: the session is open, the policy lets the person in ─▶ a node
      │ DERP, WireGuard, ssh  ▼
    our relay ─ here ─▶ online        gone without a word ─▶ away, for ``Tab.grace`` ─▶ removed
              └ leaves ─▶ removed     the same key again ──▶ online

A tab has no control connection: only its public key is known here, and no netmap is ever made for it. What it may reach is
worked out from the policy whenever that is asked (``policy.tabs``), never from what is stored, so a change counts in the
moment it is made; ``run`` only tidies up after it, and says why. That a session has ended it sees in the store, a third of a
second later.
"""

import asyncio
import contextlib
from collections.abc import Iterable
from datetime import datetime
from ipaddress import ip_address

import msgspec

from doorward import __version__
from doorward.errors import (
    Conflict,
    DoorwardError,
    NotFound,
    NotPermitted,
    TooMany,
    Unauthenticated,
    Unavailable,
)
from doorward.model import Node, Session, Tab, TabEnd, TabOver, TabTarget, User
from doorward.policy import Policy
from doorward.protocol.keys import DiscoPublic, MachinePublic, NodePublic
from doorward.protocol.tailcfg.capability import CAPVER_RETRY_AFTER
from doorward.protocol.tailcfg.hostinfo import Hostinfo, NetInfo
from doorward.protocol.tailcfg.register import RegisterRequest
from doorward.store import Connection, audit, nodes, signin, users
from doorward.store import tabs as stored
from doorward.tailnet import secrets, units
from doorward.tailnet.gate import Applicant, Desk, first_seen
from doorward.tailnet.observe import Observations
from doorward.tailnet.settings import Settings
from doorward.tailnet.snapshot import Snapshot
from doorward.tailnet.writer import Effect, Writer
from doorward.telemetry import ORIGIN, log

LOOK = 0.3  # seconds between two looks at whether sessions are still open, while there are tabs
MOST_TARGETS = 100  # of one tab

_log = log("tailnet")


class NotAllowed(NotPermitted):
    """The policy does not let the person in there from a browser."""

    problem = "not-allowed"


class Offline(Conflict):
    """The machine is not connected."""

    problem = "offline"


class NoSuchMachine(NotFound):
    """There is no machine that a tab could reach."""

    problem = "no-such-machine"


class TooManyTabs(TooMany):
    """The person, or the session, has as many tabs as it may."""

    problem = "too-many-tabs"


class SessionOver(Unauthenticated):
    """Nobody is signed in there any more."""

    problem = "session-over"


class TabIsOver(NotFound):
    """The tab is no more."""

    problem = "tab-over"

    def __init__(self) -> None:
        super().__init__("this tab is no longer a node", cure="Open the terminal again.")


def judged(snapshot: Snapshot, user_id: int, node: Node, account: str) -> TabTarget:
    """What a tab of this person may be opened for. Raises NoSuchMachine, Offline or NotAllowed."""
    member = snapshot.policy.roster.members.get(node.id)
    if member is None:
        raise NoSuchMachine("there is no such machine", cure="Go back to the list of machines.")
    passage = snapshot.policy.from_tab(user_id).at(member)
    serves = bool(node.observed.hostinfo.sshHostKeys)
    if not passage.addresses:
        raise NotAllowed(
            f"no rule of the policy lets you reach TCP port 22 of {node.name} from a browser",
            cure="An administrator can add one: doorward policy allow.",
        )
    target = TabTarget(node_id=node.id, account=account, ssh=serves)
    if serves and not allows(snapshot, user_id, target):
        raise NotAllowed(
            f'no rule under "ssh" of the policy lets you in to {node.name} as {account}',
            cure="Choose another account, or ask an administrator for a rule that names you.",
        )
    if not node.observed.online:
        raise Offline(f"{node.name} is offline", cure="Is it switched on, and does its client run?")
    return target


def allows(snapshot: Snapshot, user_id: int, target: TabTarget) -> bool:
    """True while the policy lets the person in to this from a tab."""
    member = snapshot.policy.roster.members.get(target.node_id)
    if member is None:
        return False
    passage = snapshot.policy.from_tab(user_id).at(member)
    if not passage.addresses:
        return False
    return not target.ssh or passage.deciding(target.account) is not None


class Tabs:
    """All tabs.

    Args:
        writer: the snapshot.
        observations: presence.

    Attributes:
        region: of our own relay, which is where tabs are at home; 0 where there is none, and so no tab.
    """

    def __init__(self, writer: Writer, observations: Observations) -> None:
        self._writer = writer
        self._observations = observations
        self.region = 0
        self._here: dict[NodePublic, int] = {}  # at our relay
        self._left: set[int] = set()  # their pages said goodbye
        # Tabs that may reach all that they are for, with by what that was judged: it is the same until one of both is another.
        self._good: dict[int, tuple[Policy, Tab]] = {}
        self._look = asyncio.Event()
        writer.watch(self._changed)

    # -- what pages ask for

    async def open(
        self, actor: str, user: User, session: Session, key: NodePublic, target: TabTarget
    ) -> Node:
        """Make a tab a node. The same again, of the same session, is the node that there is, for one target more.

        Raises SessionOver, TooManyTabs, Conflict for a key that is a node's already, and Unavailable without a relay.
        """
        if not self.region:
            raise Unavailable(
                "doorward runs no relay, and tabs are connected by nothing else",
                cure="An administrator can remove relay.enabled = false from the settings.",
            )
        writer = self._writer
        label = f"{user.name.partition('@')[0]}-tab-{secrets.base32(writer.entropy(5))[:4]}"
        # Stock clients take it for one of those that speak through relays alone.
        hostinfo = Hostinfo(
            Hostname=label, OS="js", IPNVersion=__version__, NetInfo=NetInfo(PreferredDERP=self.region)
        )
        request = RegisterRequest(
            Version=CAPVER_RETRY_AFTER, NodeKey=key, Hostinfo=hostinfo, Ephemeral=True, Expiry=session.expires
        )
        settings = writer.snapshot.settings
        applicant = Applicant(
            # Nobody has the other half of it: by ts2021 this node can never come.
            machine_key=MachinePublic(writer.entropy(32)),
            request=request,
            # Stock clients speak to no peer without one. Nobody has its other half either: what they ask by it is not answered,
            # and they stay with the relay.
            observed=msgspec.structs.replace(first_seen(request), disco_key=DiscoPublic(writer.entropy(32))),
            stable_id="n" + secrets.base32(writer.entropy(10)),
            random_index=int.from_bytes(writer.entropy(8), "big") if settings.random_addresses else -1,
            settings=settings,
            policy=writer.snapshot.policy,
            now=writer.now(),
            origin=ORIGIN.get(),
        )
        return await writer.apply(_open, actor, applicant, user.id, session.id, target)

    async def add(self, actor: str, user: User, session: Session, tab_id: int, target: TabTarget) -> Node:
        """Let a tab reach one target more. Raises TabIsOver, SessionOver or TooMany."""
        return await self._writer.apply(_add, actor, user.id, session.id, tab_id, target, self._writer.now())

    async def refused(self, actor: str, session: Session, target: TabTarget, reason: str) -> None:
        """Put on record that the policy let nobody in there from a tab."""
        await self._writer.apply(_refused, actor, session.id, target, reason, self._writer.now())

    async def leave(self, actor: str, user_id: int, session_id: int, tab_id: int) -> None:
        """Its page is closed: the node goes at once. One that is over stays so."""
        if self.find(user_id, session_id, tab_id) is not None:
            await self._end(actor, tab_id, TabOver.LEFT, "its page was closed")

    def find(self, user_id: int, session_id: int, tab_id: int) -> Node | None:
        """A tab of a session; None for one that is over, or is another's."""
        node = self._writer.snapshot.nodes.get(tab_id)
        mine = node is not None and node.tab is not None and node.user_id == user_id
        return node if mine and node is not None and _session_of(node) == session_id else None

    async def ended(self, user_id: int, session_id: int, tab_id: int) -> TabEnd | None:
        """How a tab of a session ended; None for one that has not, and for another's."""
        found = await self._writer.database.read(stored.by_id, tab_id)
        mine = found is not None and (found.user_id, found.session_id) == (user_id, session_id)
        return found if mine else None

    # -- what the relay sees

    def arrived(self, key: NodePublic, source: str) -> None:
        """The holder of this key is connected to our relay."""
        node = self._writer.snapshot.node_by_key(key)
        if node is None or node.tab is None:
            return
        self._here[key] = node.id
        try:
            address = ip_address(source)
        except ValueError:  # a Unix socket's peer has none
            address = None
        self._observations.at_relay(node.id, self.region, address)

    def went(self, key: NodePublic, left: bool) -> None:
        """It is no longer. ``left``: it said that it would not come back."""
        node_id = self._here.pop(key, None)
        if node_id is None:
            return
        self._observations.off_relay(node_id)
        if left:
            self._left.add(node_id)
            self._look.set()

    # -- what ends them

    def _changed(self, before: Snapshot, after: Snapshot, touched: frozenset[int] | None) -> None:
        if not after.tabs:
            return
        if touched is None or before.policy is not after.policy:
            self._look.set()

    async def run(self) -> None:
        """End what is over, until cancelled."""
        troubled = False
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await self._look.wait()
            self._look.clear()
            try:
                await self.tend()
                troubled = False
            except DoorwardError as error:  # tried again at the next look
                if not troubled:
                    _log.warning("tabs could not be looked after", reason=error.message)
                troubled = True

    async def tend(self) -> None:
        """Look at every tab once."""
        for tab_id in tuple(self._left):
            await self._end("system", tab_id, TabOver.LEFT, "its page was closed")
            self._left.discard(tab_id)
        snapshot = self._writer.snapshot
        tabs = [snapshot.nodes[tab_id] for tab_id in sorted(snapshot.tabs)]
        self._good = {tab_id: good for tab_id, good in self._good.items() if tab_id in snapshot.tabs}
        if not tabs:
            return
        open_ids = await self._writer.database.read(
            signin.open_among, {_session_of(node) for node in tabs}, self._writer.now()
        )
        for node in tabs:
            await self._tend(node, signed_in=_session_of(node) in open_ids)

    async def _tend(self, node: Node, *, signed_in: bool) -> None:
        snapshot = self._writer.snapshot
        owner = None if node.user_id is None else snapshot.users.get(node.user_id)
        if owner is None or owner.suspended:
            await self._end("system", node.id, TabOver.SESSION, "its person is suspended or gone")
            return
        if not signed_in:
            await self._end("system", node.id, TabOver.SESSION, "the sign-in that it was opened with is over")
            return
        assert node.tab is not None
        policy, by_now = self._good.get(node.id, (None, None))
        if policy is snapshot.policy and by_now is node.tab:
            return
        kept = tuple(
            one
            for one in node.tab.targets
            if allows(snapshot, owner.id, one) and not snapshot.policy.roster.parted(node.id, one.node_id)
        )
        if kept == node.tab.targets:
            self._good[node.id] = (snapshot.policy, node.tab)
            return
        lost = tuple(one for one in node.tab.targets if one not in kept)
        names = ", ".join(_named(snapshot, one) for one in lost)
        if kept:
            await self._writer.apply(_narrow, node.id, lost, names, self._writer.now())
        else:
            await self._end("system", node.id, TabOver.POLICY, f"the policy no longer lets you in to {names}")

    async def _end(self, actor: str, tab_id: int, over: TabOver, reason: str) -> None:
        await self._writer.apply(_end, actor, tab_id, over, reason, self._writer.now())
        _log.info("a tab is over", tab=tab_id, over=over.value)


def _session_of(node: Node) -> int:
    return 0 if node.tab is None else node.tab.session_id


def _named(snapshot: Snapshot, target: TabTarget) -> str:
    node = snapshot.nodes.get(target.node_id)
    return (
        f"a machine that is gone as {target.account}" if node is None else f"{node.name} as {target.account}"
    )


# -- transactions


def _require_session(connection: Connection, user_id: int, session_id: int, now: datetime) -> User:
    user, session = users.by_id(connection, user_id), signin.session_by_id(connection, session_id)
    good = session is not None and session.user_id == user_id and session.is_open(now)
    if user is None or user.suspended or not good:
        raise SessionOver("nobody is signed in here any more", cure="Sign in, and open the terminal again.")
    return user


def _open(
    connection: Connection, actor: str, applicant: Applicant, user_id: int, session_id: int, target: TabTarget
) -> Effect[Node]:
    user = _require_session(connection, user_id, session_id, applicant.now)
    mine = nodes.tabs_of(connection, user_id)
    for node in mine:
        if node.node_key == applicant.request.NodeKey and _session_of(node) == session_id:
            return _add(connection, actor, user_id, session_id, node.id, target, applicant.now)
    _require_room(mine, session_id, applicant.settings)
    tab = Tab(
        session_id=session_id,
        targets=(target,),
        grace=int(applicant.settings.tab_grace.total_seconds()),
    )
    desk = Desk(connection, (applicant,))
    desk.admit(
        applicant, owner=user, tags=(), actor=actor, key=None, ephemeral=True, by_administrator=True, tab=tab
    )
    (node,) = desk.close()
    _note_target(connection, actor, node, target, applicant.now)
    return Effect(result=node, nodes=(node,))


def _require_room(mine: Iterable[Node], session_id: int, settings: Settings) -> None:
    every = list(mine)
    here = sum(_session_of(node) == session_id for node in every)
    if len(every) >= settings.tabs_of_person or here >= settings.tabs_of_session:
        most = settings.tabs_of_session if here >= settings.tabs_of_session else settings.tabs_of_person
        raise TooManyTabs(
            f"you have {most} tabs with terminals open, and no more are let in",
            cure="Close some of them. Those that were only cut off go by themselves after a while.",
        )


def _note_target(connection: Connection, actor: str, node: Node, target: TabTarget, now: datetime) -> None:
    machine = nodes.by_id(connection, target.node_id)
    if machine is None:
        raise NoSuchMachine("this machine was deleted", cure="Go back to the list of machines.")
    details = {"tab": node.name, "account": target.account, "name": machine.name}
    audit.append(connection, actor, "tab.target", f"node:{machine.stable_id}", details, now)


def _add(
    connection: Connection,
    actor: str,
    user_id: int,
    session_id: int,
    tab_id: int,
    target: TabTarget,
    now: datetime,
) -> Effect[Node]:
    _require_session(connection, user_id, session_id, now)
    node = nodes.by_id(connection, tab_id)
    if node is None or node.tab is None or (node.user_id, node.tab.session_id) != (user_id, session_id):
        raise TabIsOver
    if target in node.tab.targets:
        return Effect(result=node)
    if len(node.tab.targets) >= MOST_TARGETS:
        raise TooMany(
            f"this tab may reach {MOST_TARGETS} accounts already", cure="Open the next one in a new window."
        )
    changed = _with_targets(connection, node, (*node.tab.targets, target))
    _note_target(connection, actor, node, target, now)
    return Effect(result=changed, nodes=(changed,))


def _refused(
    connection: Connection, actor: str, session_id: int, target: TabTarget, reason: str, now: datetime
) -> Effect[None]:
    machine = nodes.by_id(connection, target.node_id)
    if machine is not None:
        details = {"account": target.account, "name": machine.name, "session": session_id, "why": reason}
        audit.append(connection, actor, "tab.refuse", f"node:{machine.stable_id}", details, now)
    return Effect(result=None)


def _with_targets(connection: Connection, node: Node, targets: tuple[TabTarget, ...]) -> Node:
    assert node.tab is not None
    tab = msgspec.structs.replace(node.tab, targets=targets)
    return nodes.update(connection, msgspec.structs.replace(node, tab=tab))


def _narrow(
    connection: Connection, tab_id: int, lost: tuple[TabTarget, ...], names: str, now: datetime
) -> Effect[None]:
    node = nodes.by_id(connection, tab_id)
    if node is None or node.tab is None:
        return Effect(result=None)
    left = tuple(one for one in node.tab.targets if one not in lost)
    if not left or left == node.tab.targets:
        return Effect(result=None)
    changed = _with_targets(connection, node, left)
    details = {"lost": names, "before": {"targets": [(one.node_id, one.account) for one in node.tab.targets]}}
    audit.append(connection, "system", "tab.narrow", f"node:{node.stable_id}", details, now)
    return Effect(result=None, nodes=(changed,))


def _end(
    connection: Connection, actor: str, tab_id: int, over: TabOver, reason: str, now: datetime
) -> Effect[None]:
    if nodes.by_id(connection, tab_id) is None:
        return Effect(result=None, removed=(tab_id,))
    return units.delete_node(connection, actor, tab_id, reason, now, over)
