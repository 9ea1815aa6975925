"""Tabs as their pages are told of them."""

from collections.abc import Sequence
from urllib.parse import urlsplit

from doorward.api import console_types as types
from doorward.login.doors import Place
from doorward.model import Node, TabEnd, TabOver, TabTarget
from doorward.protocol.tailcfg.derpmap import DERPRegion
from doorward.tailnet import hostkeys, netmap
from doorward.tailnet.registry import Registry
from doorward.tailnet.snapshot import Snapshot
from doorward.tailnet.tabs import allows

CURES = {
    TabOver.LEFT: "Open the terminal again.",
    TabOver.LOST: "Open the terminal again. An administrator can let tabs be away for longer (console.grace).",
    TabOver.SESSION: "Sign in, and open the terminal again.",
    TabOver.POLICY: "Ask an administrator for a rule that names you.",
    TabOver.REMOVED: "Open the terminal again, or ask an administrator.",
}
NO_RELAYS = types.Relays(home=0, regions={})


async def describe(registry: Registry, node: Node, door: Place) -> types.Tab:
    """A tab that is a node. ``door`` is the one that its page came from, whose relay it is to use."""
    snapshot = registry.snapshot
    assert node.tab is not None
    return types.Tab(
        id=node.id,
        state="on",
        over="",
        reason="",
        cure="",
        addresses=tuple(map(str, node.addresses)),
        grace=node.tab.grace,
        relays=relays(snapshot, registry.tabs.region, door.origin),
        targets=await targets(registry, node),
    )


def over(ended: TabEnd) -> types.Tab:
    """A tab that is none any more."""
    return types.Tab(
        id=ended.id,
        state="over",
        over=ended.over.value,
        reason=sentence(ended.reason),
        cure=CURES[ended.over],
        addresses=(),
        grace=0,
        relays=NO_RELAYS,
        targets=(),
    )


def event(reached: tuple[types.Target, ...], tab_id: int) -> types.TabEvent:
    """What the page of a tab is told while it is a node."""
    return types.TabEvent(id=tab_id, state="on", over="", reason="", cure="", target_changed=reached)


def ended_event(ended: TabEnd) -> types.TabEvent:
    """What it is told at the end."""
    return types.TabEvent(
        id=ended.id,
        state="over",
        over=ended.over.value,
        reason=sentence(ended.reason),
        cure=CURES[ended.over],
        target_changed=(),
    )


def sentence(reason: str) -> str:
    """A reason as a sentence of its own."""
    return f"{reason[:1].upper()}{reason[1:]}."


async def targets(registry: Registry, node: Node) -> tuple[types.Target, ...]:
    """What a tab may reach now, by machine, in the order in which it was asked for."""
    tab, snapshot = node.tab, registry.snapshot
    if tab is None or node.user_id is None:
        return ()
    by_machine: dict[int, list[TabTarget]] = {}
    for one in tab.targets:
        by_machine.setdefault(one.node_id, []).append(one)
    found: list[types.Target] = []
    for node_id, asked in by_machine.items():
        machine = snapshot.nodes.get(node_id)
        allowed = [one for one in asked if allows(snapshot, node.user_id, one)]
        if machine is not None and allowed:
            found.append(await target(registry, snapshot, node, machine, allowed))
    return tuple(found)


async def target(
    registry: Registry, snapshot: Snapshot, tab: Node, machine: Node, asked: Sequence[TabTarget]
) -> types.Target:
    """One machine for one tab, whose last-asked account is the last of these."""
    assert tab.user_id is not None
    way = snapshot.policy.tab_entry(tab.id, machine.id)
    known = await hostkeys.known(registry.writer.database, machine, tab.user_id)
    account = asked[-1].account
    member = snapshot.policy.roster.members[machine.id]
    rule = snapshot.policy.from_tab(tab.user_id).at(member).deciding(account)
    serves = bool(machine.observed.hostinfo.sshHostKeys)
    return types.Target(
        machine=machine.id,
        name=machine.name,
        dns_name=snapshot.fqdn(machine),
        node_key=str(machine.node_key),
        addresses=() if way is None else tuple(map(str, way.addresses)),
        home_region=machine.observed.home_derp,
        online=machine.observed.online,
        ssh="tailscale" if serves else ("other" if known.keys else "unknown"),
        host_keys=known.keys,
        host_keys_from=known.source,
        accounts=tuple(one.account for one in asked),
        account=account,
        check=serves and rule is not None and rule.check,
    )


def relays(snapshot: Snapshot, home: int, origin: str) -> types.Relays:
    """The relays that a page can use: ours, by the door it came from, and others that any browser trusts."""
    secure, _, place = origin.partition("://")
    ours = f"{'wss' if secure == 'https' else 'ws'}://{place}/derp"
    regions: dict[str, types.RelayRegion] = {}
    for number, region in sorted(netmap.relays(snapshot).Regions.items()):
        urls = (ours,) if number == home else _urls(region)
        if urls:
            regions[str(number)] = types.RelayRegion(name=region.RegionName, urls=urls)
    return types.Relays(home=home, regions=regions)


def _urls(region: DERPRegion) -> tuple[str, ...]:
    """A browser can neither take a pin for a certificate, nor trust one for another name than it asks for."""
    return tuple(
        f"wss://{_host(node.HostName)}{'' if node.DERPPort in {0, 443} else f':{node.DERPPort}'}/derp"
        for node in region.Nodes
        if not node.STUNOnly and not node.CertName and not node.InsecureForTests and node.HostName
    )


def _host(name: str) -> str:
    return f"[{name}]" if ":" in name else name


def origins(snapshot: Snapshot) -> frozenset[str]:
    """Where tabs connect to besides the door: what a page's policy has to allow."""
    found = relays(snapshot, 0, "https://")
    return frozenset(
        f"wss://{urlsplit(url).netloc}" for region in found.regions.values() for url in region.urls
    )
