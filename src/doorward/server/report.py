"""What ``doorward status`` and ``doorward doctor`` say: every part of one process, and how it is."""

import shutil
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from doorward import __version__
from doorward.api.types import Finding, Part, Status
from doorward.audit import Auditing
from doorward.clock import Clock
from doorward.config import Settings
from doorward.errors import Unavailable
from doorward.protocol.tailcfg.capability import CAPVER_RELAY_PIN
from doorward.protocol.tailcfg.derpmap import DERPRegion
from doorward.server.certificates import Certificates
from doorward.server.countries import unknown_countries
from doorward.server.outside import Outside
from doorward.server.own_node import OwnNode
from doorward.server.relays import OtherRelays
from doorward.server.team import Team
from doorward.store import Database
from doorward.tailnet.registry import Registry
from doorward.tailnet.snapshot import Snapshot

if TYPE_CHECKING:
    from doorward.server.acme.keeper import Keeper

LITTLE_ROOM = 256 << 20  # bytes free; a database and its log grow by a few megabytes a month


class Report:
    """What is to be said of a worker. It stays usable while the database is away.

    Args:
        settings: complete.
        registry: the tailnet.
        own_node: our own place on it.
        auditing: what signs the audit log and takes it elsewhere.
        certificates: what the listeners present.
        keeper: orders some of them; None where none is ordered.
        others: other people's relays.
        own_region: our own relay, None where there is none.
        outside: how we look from outside.
        team: which worker of how many this is.
        started: when ``serve`` was.
        clock: tells how long certificates last.
    """

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        own_node: OwnNode,
        auditing: Auditing,
        *,
        certificates: Certificates,
        keeper: "Keeper | None",
        others: OtherRelays,
        own_region: Callable[[], DERPRegion | None],
        outside: Outside,
        team: Team,
        started: datetime,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._own_node = own_node
        self._auditing = auditing
        self._certificates = certificates
        self._keeper = keeper
        self._others = others
        self._own_region = own_region
        self._outside = outside
        self._team = team
        self._started = started
        self._clock = clock

    async def status(self) -> Status:
        """What runs, and what does not, with its cure."""
        settings, registry = self._settings, self._registry
        snapshot = registry.snapshot
        people = [node for node in snapshot.nodes.values() if not node.system and node.tab is None]
        parts = [
            Part(name="control", state="running", text=settings.url),
            self._relay_part(),
            _database_part(registry.writer.database),
            await _policy_part(registry),
            self._own_node.part(),
            *([] if self._keeper is None else [self._keeper.part()]),
            *await self._auditing.parts(),
            *self._workers(),
            *_beside(registry),
        ]
        return Status(
            version=__version__,
            domain=settings.domain,
            url=settings.url,
            door=settings.door,
            data_dir=str(settings.data_dir),
            started=self._started,
            users=len(snapshot.users),
            nodes=len(people),
            online=sum(node.observed.online for node in people),
            waiting=await _waiting(registry),
            parts=tuple(parts),
        )

    def _workers(self) -> list[Part]:
        """Which workers serve, if there are several, and how many nodes have their stream where."""
        registry = self._registry
        if registry.neighbours is None or self._team.size == 1:
            return []
        held = Counter(
            node.observed.held_by for node in registry.snapshot.nodes.values() if node.observed.online
        )
        there = {one.worker: held[one.id] for one in registry.neighbours.siblings}
        text = ", ".join(f"{number}: {count} nodes" for number, count in there.items())
        away = [str(number) for number in range(1, self._team.size + 1) if number not in there]
        if not away:
            return [Part(name="workers", state="running", text=text)]
        return [
            Part(
                name="workers",
                state="failing",
                text=f"{text}; away: {', '.join(away)}",
                cure="A worker that died is started again by itself; doorward's log says why it did.",
            )
        ]

    def _relay_part(self) -> Part:
        if (own := self._own_region()) is None:
            return Part(
                name="relay", state="off", text="relay.enabled is false", cure="Remove it from the settings."
            )
        node = own.Nodes[0]
        text = f"{node.HostName}, TLS on port {node.DERPPort}, STUN on port {node.STUNPort}"
        return Part(name="relay", state="running", text=text)

    async def doctor(self) -> list[Finding]:
        """What was looked at, and what is wrong with it."""
        registry = self._registry
        findings: list[Finding] = []
        findings += await self._store_findings()
        findings += _disk_findings(self._settings.data_dir)
        findings += [] if self._keeper is None else self._keeper.findings()
        ordered = self._certificates.ordered.values()
        for name, certificate in self._certificates.named():
            if certificate in ordered:
                continue
            left = certificate.expires - self._clock.now()
            message = f"the certificate of the {name} ends in {left.days} days"
            if left > timedelta(days=14):
                findings.append(Finding(level="ok", subject="certificates", message=message))
            else:
                cure = "Renew its files; doorward reads them again within the hour, or on SIGHUP."
                findings.append(Finding(level="warning", subject="certificates", message=message, cure=cure))
        findings += [
            Finding(
                level="warning",
                subject="relays",
                message=f"the DERP map {source} is not to be had: {reason}",
                cure="It is asked for again every hour, and on SIGHUP. Correct relay.maps if it is gone for good.",
            )
            for source, reason in self._others.missing.items()
        ]
        findings += await self._outside.findings()
        findings += self._own_node.findings()
        findings += _old_clients(registry.snapshot)
        findings += unknown_countries(registry.snapshot)
        return findings

    async def _store_findings(self) -> list[Finding]:
        if (trouble := self._registry.writer.database.trouble) is not None:
            return [
                Finding(
                    level="error",
                    subject="database",
                    message=f"{trouble.message}: what is set up goes on, changes are refused",
                    cure=f"{trouble.cure} doorward notices by itself when it is mended.",
                )
            ]
        try:
            return await self._auditing.findings()
        except Unavailable as error:
            return [Finding(level="error", subject="database", message=error.message, cure=error.cure)]


async def _policy_part(registry: Registry) -> Part:
    """Which policy is in force, and where it is changed."""
    file = registry.policy_file
    owner = "" if file is None else f", owned by {file}"
    try:
        version = await registry.current_policy()
    except Unavailable:  # which the database's own part explains
        return Part(name="policy", state="running", text=f"the one that was last read{owner}")
    return Part(name="policy", state="running", text=f"version {version.id}, set by {version.actor}{owner}")


def _beside(registry: Registry) -> list[Part]:
    """The other doorwards on the same database, if there are any."""
    neighbours = registry.neighbours
    ours = () if neighbours is None else neighbours.siblings
    theirs = () if neighbours is None else neighbours.others
    others = dict.fromkeys(one.label for one in theirs if one not in ours)
    return [Part(name="beside", state="running", text=", ".join(others))] if others else []


def _database_part(database: Database) -> Part:
    if (trouble := database.trouble) is None:
        return Part(name="database", state="running", text=database.where)
    return Part(
        name="database", state="failing", text=f"{database.where}: {trouble.message}", cure=trouble.cure
    )


async def _waiting(registry: Registry) -> int:
    """How many wait for approval, by a link or for an administrator; of links none is known while the database is away."""
    try:
        links = len(await registry.list_registrations())
    except Unavailable:
        links = 0
    return links + sum(not node.approved for node in registry.snapshot.nodes.values())


def _disk_findings(folder: Path) -> list[Finding]:
    """Room for what has to be written: it is said while there still is some."""
    free = shutil.disk_usage(folder).free
    if free >= LITTLE_ROOM:
        return []
    return [
        Finding(
            level="warning",
            subject="disk",
            message=f"the disk of {folder} has {free >> 20} MiB left",
            cure="Free space on it: without any, changes are refused.",
        )
    ]


def _old_clients(snapshot: Snapshot) -> list[Finding]:
    """Nodes whose client cannot check the relay by its pin."""
    old = [
        node.name
        for node in snapshot.nodes.values()
        if 0 < node.observed.cap_version < CAPVER_RELAY_PIN and not node.system
    ]
    if not old:
        return []
    return [
        Finding(
            level="warning",
            subject="clients",
            message=f"{', '.join(sorted(old)[:5])}: older than 1.82, which cannot check the relay by its pin",
            cure="Update them, or let them trust the authority that `doorward ca` prints.",
        )
    ]
