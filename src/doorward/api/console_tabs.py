"""Tabs that are nodes, and whose host keys a person has said yes to: what a page asks for its terminal."""

from doorward.api import console_types as types
from doorward.api import tabs as shown
from doorward.api.access import FreshProofNeeded, Permission
from doorward.api.console import person_of
from doorward.api.context import Browser, Call
from doorward.api.machines import why_not
from doorward.api.types import Number
from doorward.asgi import operation
from doorward.errors import BadInput, Conflict, Unavailable
from doorward.login.sessions import AccountSuspended, NotLinked, SignedIn
from doorward.model import Node, Session, TabTarget
from doorward.protocol.keys import NodePublic
from doorward.tailnet import hostkeys
from doorward.tailnet.hostkeys import KeyChanged
from doorward.tailnet.tabs import (
    NoSuchMachine,
    NotAllowed,
    Offline,
    SessionOver,
    TabIsOver,
    TooManyTabs,
    judged,
)


def _signed_in(call: Call) -> tuple[Browser, SignedIn]:
    """Who asks, if they have signed in: a device alone may look, and open nothing."""
    browser = person_of(call)
    if browser.signed_in is None:
        raise FreshProofNeeded(
            "this device says whose it is, and not who holds it: to open a terminal you have to sign in",
            cure=f"Sign in at {browser.door.base}/signin, and try again.",
        )
    return browser, browser.signed_in


def _machine(call: Call, browser: Browser, number: int) -> Node:
    """A machine that the person sees. Raises NoSuchMachine for any other, whether or not there is one."""
    call.context.feeds.takes(browser.user.id)
    node = call.snapshot.nodes.get(number)
    if node is None or not call.context.feeds.sees(browser.user.id, node):
        raise NoSuchMachine("there is no such machine", cure="Go back to the list of machines.")
    return node


async def _target(call: Call, browser: Browser, session: Session, number: int, account: str) -> TabTarget:
    """What is asked for. Raises NotAllowed where the policy does not give it, which is on record then."""
    node = _machine(call, browser, number)
    try:
        return judged(call.snapshot, browser.user.id, node, account)
    except NotAllowed as error:
        reason = why_not(call.snapshot, browser.user.id, node) or error.message
        asked = TabTarget(node_id=node.id, account=account, ssh=bool(node.observed.hostinfo.sshHostKeys))
        await call.registry.tabs.refused(call.actor, session, asked, reason)
        raise NotAllowed(reason, cure=error.cure) from None


@operation(
    "POST",
    "/console/tabs",
    needs=Permission.CONSOLE,
    status=201,
    raises=[
        BadInput,
        NoSuchMachine,
        Offline,
        NotAllowed,
        TooManyTabs,
        SessionOver,
        NotLinked,
        AccountSuspended,
        Unavailable,
    ],
)
async def open_tab(call: Call, body: types.NewTab) -> types.Tab:
    """Make the tab whose key this is a node, for one account on one machine.

    It is the person's for as long as this session is open, and no key comes with it: what it is let in to follows from the
    policy. Asked again with the same key it is the same node.
    """
    browser, signed_in = _signed_in(call)
    target = await _target(call, browser, signed_in.session, body.machine, body.account)
    node = await call.registry.tabs.open(
        call.actor, browser.user, signed_in.session, NodePublic.parse(body.node_key), target
    )
    return await shown.describe(call.registry, call.snapshot.nodes.get(node.id, node), browser.door)


@operation(
    "POST",
    "/console/tabs/{number}/targets",
    needs=Permission.CONSOLE,
    raises=[
        BadInput,
        NoSuchMachine,
        Offline,
        NotAllowed,
        TabIsOver,
        SessionOver,
        NotLinked,
        AccountSuspended,
    ],
)
async def add_target(call: Call, number: Number, body: types.NewTarget) -> types.Target:
    """Let a tab reach one account more. It is judged like the first."""
    browser, signed_in = _signed_in(call)
    target = await _target(call, browser, signed_in.session, body.machine, body.account)
    node = await call.registry.tabs.add(call.actor, browser.user, signed_in.session, number, target)
    snapshot = call.snapshot
    node = snapshot.nodes.get(number, node)
    machine = snapshot.nodes.get(target.node_id)
    if machine is None or machine.id not in snapshot.policy.roster.members:
        raise NoSuchMachine("there is no such machine", cure="Go back to the list of machines.")
    asked = [] if node.tab is None else [one for one in node.tab.targets if one.node_id == machine.id]
    others = [one for one in asked if one != target]
    return await shown.target(call.registry, snapshot, node, machine, [*others, target])


@operation(
    "GET", "/console/tabs/{number}", needs=Permission.CONSOLE, raises=[TabIsOver, NotLinked, AccountSuspended]
)
async def get_tab(call: Call, number: Number) -> types.Tab:
    """Say how a tab of this session is; of one that is over, for a day, why."""
    browser, signed_in = _signed_in(call)
    tabs, session = call.registry.tabs, signed_in.session
    node = tabs.find(browser.user.id, session.id, number)
    if node is not None:
        return await shown.describe(call.registry, node, browser.door)
    ended = await tabs.ended(browser.user.id, session.id, number)
    if ended is None:
        raise TabIsOver
    return shown.over(ended)


@operation("POST", "/console/tabs/{number}/leave", needs=Permission.CONSOLE, status=204)
async def leave_tab(call: Call, number: Number) -> None:
    """Remove the node that a tab of this session is, at once. There is nothing to say, so that a beacon can."""
    browser, signed_in = _signed_in(call)
    await call.registry.tabs.leave(call.actor, browser.user.id, signed_in.session.id, number)


@operation(
    "POST",
    "/console/machines/{number}/host-key",
    needs=Permission.CONSOLE,
    status=204,
    raises=[BadInput, NoSuchMachine, KeyChanged, Conflict],
)
async def accept_host_key(call: Call, number: Number, body: types.HostKeyAnswer) -> None:
    """Keep that the person takes a key for a machine's own, where the machine publishes none and none is pinned."""
    browser, _ = _signed_in(call)
    node = _machine(call, browser, number)
    await hostkeys.accept(call.registry.writer, call.actor, browser.user, node, body.key, body.replaces)


OPERATIONS = (open_tab, add_target, get_tab, leave_tab, accept_host_key)
