"""The machines that one person sees in the console, with their ways in; and what of them has changed.

Who looks at everything by role sees every machine; others see their own, those that their own see, and those that a tab of
theirs would get in to. The ways are always those of a tab, whatever the person's devices may do besides.

A ``Board`` is what the pages of one person show: it is brought up to date for the nodes of a change, and
only these cost anything. Where more than nodes changed all are looked at, some at a time, so that nobody else waits for it.
"""

import asyncio
from collections.abc import Callable, Iterable

import msgspec

from doorward.api import console_types as types
from doorward.model import Node, User
from doorward.policy import Policy
from doorward.policy.document import Rule, SSHRule
from doorward.policy.tabs import Passage
from doorward.tailnet.snapshot import Snapshot

_AT_ONCE = 200  # machines between two breaths: a few milliseconds


class View:
    """The machines of one person under one snapshot.

    Args:
        snapshot: the tailnet.
        user: the person.
        everything: their role lets them look at everything.
    """

    def __init__(self, snapshot: Snapshot, user: User, *, everything: bool) -> None:
        self.snapshot = snapshot
        self._user = user
        self._everything = everything
        policy: Policy = snapshot.policy
        self._ways = policy.from_tab(user.id)
        mine = policy.roster.by_owner.get(user.id, frozenset())
        # The sets are shared with the policy: devices that see the same have the very same one.
        self._circles = list({id(circle): circle for circle in map(policy.circle, mine)}.values())
        self._mine = mine

    def machine(self, node: Node, *, expired: bool) -> types.Machine | None:
        """A node as the person sees it; None for one that they do not. ``expired``: its key has ended."""
        member = self.snapshot.policy.roster.members.get(node.id)
        if member is None and not (node.system and self._everything):
            return None
        passage = None if member is None else self._ways.at(member)
        yours = node.id in self._mine
        open_here = passage is not None and passage.is_open
        if not (self._everything or yours or open_here or any(node.id in one for one in self._circles)):
            return None
        seen, hostinfo = node.observed, node.observed.hostinfo
        serves = bool(hostinfo.sshHostKeys)
        ways, anybody = _ways(passage, serves=serves)
        any_account = anybody is not None or (not serves and passage is not None and bool(passage.addresses))
        return types.Machine(
            id=node.id,
            name=node.name,
            user=self.snapshot.owner_name(node),
            user_id=None if node.tags else node.user_id,
            tags=node.tags,
            addresses=(str(node.ipv4), str(node.ipv6)),
            os=hostinfo.OS,
            version=hostinfo.IPNVersion.partition("-")[0],
            online=seen.online,
            last_seen=None if seen.online else seen.last_seen,
            expired=expired,
            yours=yours,
            system=node.system,
            ssh="tailscale" if serves else "unknown",
            ways=ways,
            any_account=any_account,
            any_check=anybody is not None and anybody.check,
            why="" if ways or any_account else _why(self.snapshot, node, passage, serves=serves),
        )


def _ways(passage: Passage | None, *, serves: bool) -> tuple[tuple[types.AccountWay, ...], SSHRule | None]:
    """The accounts there. Rules about ssh are for machines whose client serves it; elsewhere the machine itself decides."""
    if passage is None or not passage.addresses or not serves:
        return (), None
    found = tuple(
        types.AccountWay(account=one.name, check=one.rule.check, rule=place_of(one.rule))
        for one in passage.accounts
    )
    return found, passage.anybody


def place_of(rule: Rule | SSHRule) -> types.RulePlace:
    """Where a rule stands."""
    return types.RulePlace(name=rule.origin, line=rule.place.line)


def why_not(snapshot: Snapshot, user_id: int, node: Node) -> str:
    """Why a person has no way in to a machine at all, as a sentence without its full stop; empty where they have one."""
    member = snapshot.policy.roster.members.get(node.id)
    passage = None if member is None else snapshot.policy.from_tab(user_id).at(member)
    serves = bool(node.observed.hostinfo.sshHostKeys)
    ways, anybody = _ways(passage, serves=serves)
    if ways or anybody or (passage is not None and passage.addresses and not serves):
        return ""
    return _why(snapshot, node, passage, serves=serves).rstrip(".")


def _why(snapshot: Snapshot, node: Node, passage: Passage | None, *, serves: bool) -> str:
    """What is missing for a way in, as a sentence."""
    name = node.name
    if passage is None:
        return f"{name} is doorward's own node, which serves no ssh."
    if snapshot.suspended(node):
        return f"{name} is suspended."
    if not node.approved:
        return f"{name} waits for an administrator."
    if (rule := passage.denied) is not None:
        return f"{rule.origin} is for devices that meet a posture, and a browser's tab meets none."
    logs_in = bool(passage.accounts or passage.anybody)
    if not passage.addresses and (logs_in or not serves):
        return f"No rule lets you or your groups reach TCP port 22 of {name}."
    if passage.addresses and not logs_in:
        return f'No rule under "ssh" names you or your groups for {name}.'
    return f"No rule names you or your groups for {name}."


class Board:
    """What the pages of one person show.

    Args:
        look: the person's view as it is now; None once they may not look at all.
        expired: whether a node's key has ended by now.
    """

    def __init__(self, look: Callable[[], View | None], expired: Callable[[Node], bool]) -> None:
        self._look = look
        self._expired = expired
        self._shown: dict[int, types.Machine] = {}
        self._pending: set[int] = set()
        self._wide = True
        self._one_at_a_time = asyncio.Lock()
        self.streams: set[Stream] = set()

    def note(self, touched: Iterable[int] | None, *, wide: bool) -> None:
        """These nodes may have changed; or all (None, or ``wide``)."""
        if touched is None or wide:
            self._wide = True
        else:
            self._pending.update(touched)
        for stream in self.streams:
            stream.wake.set()

    async def refresh(self) -> None:
        """Bring it up to date, and tell its streams of what is different."""
        async with self._one_at_a_time:
            if not (self._wide or self._pending):
                return
            view = self._look()
            wide, self._wide = self._wide, False
            pending, self._pending = self._pending, set()
            nodes = {} if view is None else view.snapshot.nodes
            ids = [*{*self._shown, *nodes}] if wide else [*pending]
            different: set[int] = set()
            try:
                for number, node_id in enumerate(ids):
                    if number % _AT_ONCE == _AT_ONCE - 1:
                        await asyncio.sleep(0)
                    node = nodes.get(node_id)
                    machine = None if node is None or view is None else self._see(view, node)
                    if machine == self._shown.get(node_id):
                        continue
                    different.add(node_id)
                    if machine is None:
                        del self._shown[node_id]
                    else:
                        self._shown[node_id] = machine
            except BaseException:
                self._wide = True  # the page that looked has gone: another one looks at all of it
                raise
            finally:
                for stream in self.streams:
                    stream.different |= different

    def _see(self, view: View, node: Node) -> types.Machine | None:
        return view.machine(node, expired=self._expired(node))

    def whole(self) -> tuple[types.Machine, ...]:
        """All machines, by name."""
        return tuple(sorted(self._shown.values(), key=lambda machine: machine.name))

    def counts(self) -> types.Counts:
        """How many there are."""
        every = self._shown.values()
        return types.Counts(
            machines=len(every),
            online=sum(machine.online for machine in every),
            ways=sum(bool(machine.ways) or machine.any_account for machine in every),
        )

    def told(self, ids: Iterable[int]) -> bytes:
        """The data of an event ``machines`` about these."""
        numbers = sorted(ids)
        return msgspec.json.encode(
            types.MachinesEvent(
                changed=tuple(self._shown[number] for number in numbers if number in self._shown),
                removed=tuple(number for number in numbers if number not in self._shown),
            )
        )


class Stream:
    """One page that listens."""

    __slots__ = ("different", "looks_at_tabs", "over", "tabs", "wake")

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self.different: set[int] = set()  # machines that the page knows otherwise
        self.tabs: dict[int, bytes] = {}  # of the page's session, as they were last told of
        self.looks_at_tabs = True  # something about them may have changed
        self.over = False
