"""What holds for the whole tailnet: names, DNS, relays, how long keys last. Part of the snapshot."""

from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from doorward.policy.posture import CountryOf
from doorward.protocol.tailcfg.derpmap import DERPMap
from doorward.protocol.tailcfg.dns import DNSRecord
from doorward.tailnet.addresses import Pool


class DNS(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What nodes resolve, as an administrator edits it. Stored; sent to clients as their DNSConfig."""

    magic_dns: bool = True  # nodes resolve each other by name
    search: tuple[str, ...] = ()  # further search domains, after the tailnet's own
    nameservers: tuple[str, ...] = ()  # global resolvers; empty: each node keeps its own
    split: dict[str, tuple[str, ...]] = {}  # domain suffix to the resolvers that answer it
    records: tuple[DNSRecord, ...] = ()  # extra A and AAAA records


KEY_LIFETIME = 180 * 86400  # seconds: as long as people are used to from the hosted service


class Joining(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who gets in, and for how long, as an administrator edits it. Stored."""

    approval: bool = False  # a device that no administrator let in waits for one
    key_lifetime: int | None = KEY_LIFETIME  # seconds until a person has to sign in again; None: never


class Decide(StrEnum):
    """Who decides about an ssh, and what happens while control is away; see ``sshrules``."""

    ALWAYS = "always"
    FALLBACK = "fallback"
    POLICY = "policy"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a netmap needs that is neither user, node nor policy."""

    domain: str  # MagicDNS suffix, no dot at either end
    url: str  # control's public address, no slash at the end
    display_name: str = ""  # what clients call the tailnet
    door: str = ""  # the people's address, no slash at the end; empty where there is none
    door_host: str = ""  # the people's address; our DNS answers it with our own node
    door_ports: tuple[int, ...] = ()  # all that may be reached on our own node
    own_nodes: dict[
        int, int
    ] = {}  # where several processes serve: the own node of each that lives, and its door's port
    dns: DNS = DNS()
    derp_map: DERPMap = DERPMap()
    country_of: CountryOf | None = None  # where an operator has supplied a database
    trouble: str = ""  # why nothing can be written now, for people; empty while all is well
    several: bool = (
        False  # several processes serve it: what follows from the same nodes must be the same in all
    )
    pool: Pool = Pool()
    random_addresses: bool = False
    joining: Joining = Joining()
    ephemeral_grace: timedelta = timedelta(minutes=5)  # how long an ephemeral node may be away
    tab_grace: timedelta = timedelta(minutes=15)  # how long a browser's tab may be away
    tabs_of_person: int = 40  # at once
    tabs_of_session: int = 20
    ssh_decide: Decide = Decide.POLICY
    ssh_fallback: timedelta = timedelta(minutes=10)  # how long nodes wait for control before they fall back
    registration_lifetime: timedelta = timedelta(minutes=15)  # how long a join link lives

    def key_end(self, now: datetime) -> datetime | None:
        """When the key of a person's node ends that signs in now; None: never."""
        lifetime = self.joining.key_lifetime
        return None if lifetime is None else now + timedelta(seconds=lifetime)

    def ports_of(self, own_node: int) -> tuple[int, ...]:
        """All that may be reached on one of doorward's own nodes."""
        port = self.own_nodes.get(own_node)
        return self.door_ports if port is None else (port,)

    @property
    def door_label(self) -> str:
        """The name that a node would have to have to be mistaken for the door; empty if none could be."""
        label, _, rest = self.door_host.lower().partition(".")
        return label if rest == self.domain.lower() else ""
