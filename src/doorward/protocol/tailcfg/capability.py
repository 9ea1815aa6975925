"""Capability strings and capability versions (protocol note control.md, sections 19 and 25).

A *node capability* is a feature of the node that receives it, in ``Node.CapMap`` of its own node; null is its value
unless the comment says otherwise. A *peer capability* is what a rule's sources may do towards a destination, in
``FilterRule.CapGrant``. A *capability version* is a client's promise of what it understands.
"""

from typing import Final

# --- Node capabilities, on the node itself ---

SSH: Final = "https://tailscale.com/cap/ssh"  # `tailscale set --ssh` is accepted
SSH_RULE_IN: Final = "https://tailscale.com/cap/ssh-rule-in"  # some SSH rule reaches this node
SSH_ENV_VARS: Final = "ssh-env-vars"  # SSHRule.acceptEnv takes effect
SSH_BEHAVIOR_V1: Final = "ssh-behavior-v1"  # login through the client's own process
SSH_BEHAVIOR_V2: Final = "ssh-behavior-v2"  # login through the system's `login`
SSH_AGGREGATOR: Final = "ssh-aggregator"  # clients may show who uses SSH
FILE_SHARING: Final = "https://tailscale.com/cap/file-sharing"  # Taildrop, both directions
IS_ADMIN: Final = "https://tailscale.com/cap/is-admin"  # clients link to the admin console
IS_OWNER: Final = "https://tailscale.com/cap/is-owner"  # the same, for the owner
HTTPS: Final = "https"  # certificates permitted, for the names in DNSConfig.CertDomains
FUNNEL: Final = "funnel"  # Funnel permitted
FUNNEL_PORTS: Final = (
    "https://tailscale.com/cap/funnel-ports?ports={ports}"  # ports are part of the key: 443,8000-8010
)
WARN_FUNNEL_NO_HTTPS: Final = (
    "https://tailscale.com/cap/warn-funnel-no-https"  # clients explain that Funnel needs HTTPS first
)
TAILNET_DISPLAY_NAME: Final = "tailnet-display-name"  # value ["Name"]: what clients call the tailnet
DEFAULT_AUTO_UPDATE: Final = "default-auto-update"  # value [true] or [false] (capver 131)
TAILNET_LOCK: Final = (
    "https://tailscale.com/cap/tailnet-lock"  # may use tailnet lock; doorward never grants it
)
DEBUG: Final = "https://tailscale.com/cap/debug"  # peerapi shows its debug pages
DATA_PLANE_AUDIT_LOGS: Final = "https://tailscale.com/cap/data-plane-audit-logs"  # network flow logs
DRIVE_SHARE: Final = "drive:share"  # may share folders by Taildrive
DRIVE_ACCESS: Final = "drive:access"  # may open others' folders
MAGICDNS_AAAA: Final = "magicdns-aaaa"  # AAAA answers for peers with both families (capver 116)
DNS_SUBDOMAIN_RESOLVE: Final = "dns-subdomain-resolve"  # *.node.suffix resolves to that node; set on any node
RANDOMIZE_CLIENT_PORT: Final = "randomize-client-port"  # a random UDP port instead of 41641
ONE_CGNAT_ON: Final = "one-cgnat?v=true"  # one route for 100.64.0.0/10
ONE_CGNAT_OFF: Final = "one-cgnat?v=false"  # one /32 route for each peer
DISABLE_DELTA_UPDATES: Final = "disable-delta-updates"  # every delta rebuilds the netmap
SILENT_DISCO: Final = "silent-disco"  # no heartbeats on idle paths
PEER_MTU_ENABLE: Final = "peer-mtu-enable"  # path MTU discovery between peers
PROBE_UDP_LIFETIME: Final = "probe-udp-lifetime"  # measures how long NAT mappings live
DEBUG_ALWAYS_STUN: Final = "debug-always-stun"  # STUN even while idle
DEBUG_DISABLE_UPNP: Final = "debug-disable-upnp"  # no UPnP port mapping
ONLY_TCP_443: Final = "only-tcp-443"  # no UDP at all, relays on 443 only
DISABLE_CAPTIVE_PORTAL_DETECTION: Final = "disable-captive-portal-detection"
NETFILTER_IPTABLES: Final = "linux-netfilter?v=iptables"  # Linux: use iptables
NETFILTER_NFTABLES: Final = "linux-netfilter?v=nftables"  # Linux: use nftables
DISABLE_LINUX_CGNAT_DROP_RULE: Final = "disable-linux-cgnat-drop-rule"  # no drop of foreign 100.64/10 sources
DNS_DISABLE_TCP_RETRIES: Final = (
    "dns-forwarder-disable-tcp-retries"  # a truncated answer is not asked for again
)
SUGGEST_EXIT_NODE_UI: Final = "suggest-exit-node-ui"  # clients offer a recommended exit node
AUTO_EXIT_NODE: Final = "auto-exit-node"  # the client may choose its exit node itself
TRAFFIC_STEERING: Final = "traffic-steering"  # exit nodes are ranked by control's scores
USER_DIAL_ROUTES: Final = "user-dial-routes"  # the client's own dials follow subnet routes
STORE_APPC_ROUTES: Final = "store-appc-routes"  # an app connector keeps learned routes
LOG_EXIT_FLOWS: Final = "log-exit-flows"  # flow logs of exit traffic
DISABLE_WEB_CLIENT: Final = "disable-web-client"  # no web interface on port 5252
DISABLE_RELAY_SERVER: Final = "disable-relay-server"  # may not be a peer relay
DISABLE_RELAY_CLIENT: Final = "disable-relay-client"  # may not use peer relays
MAX_KEY_DURATION: Final = "tailnet.maxKeyDuration"  # value [seconds]: how long a key lasts here
DISABLE_IPV4: Final = "disable-ipv4"  # the node is told of no IPv4 address, neither its own nor its peers'
NATIVE_IPV4: Final = "native-ipv4"  # the node really has its IPv4 address, in a tailnet of IPv6 only
SERVICE_HOST: Final = "service-host"  # value [{"svc:name": ["ip", ...]}]: it answers for these services
SERVICES_PREFIX: Final = "services/"  # followed by an id: details of one service
CLIENT_SIDE_REACHABILITY: Final = "client-side-reachability"  # the client itself finds out who can be reached
CACHE_NETWORK_MAPS: Final = "cache-network-maps"  # the client keeps the netmap on disk (capver 135)
DISABLE_CACHE_NETWORK_MAPS: Final = "disable-cache-network-maps"  # and this forbids it

# --- What doorward says of itself, and only its own programs read ---

DOOR: Final = "doorward:door"  # value [url]: the people's address, without a path

# --- Node capabilities that stand on a peer ---

SUGGEST_EXIT_NODE: Final = "suggest-exit-node"  # a candidate for the recommended exit node

# --- Peer capabilities ---

PEER_FILE_TARGET: Final = "https://tailscale.com/cap/file-sharing-target"  # files may be sent to that peer
PEER_FILE_SEND: Final = "https://tailscale.com/cap/file-send"  # that peer may send me files
PEER_DEBUG: Final = "https://tailscale.com/cap/debug-peer"  # may read my peerapi's debug pages
PEER_WAKE_ON_LAN: Final = "https://tailscale.com/cap/wake-on-lan"  # may have me send wake packets
PEER_INGRESS: Final = "https://tailscale.com/cap/ingress"  # may hand me Funnel connections
PEER_WEBUI: Final = "tailscale.com/cap/webui"  # may manage me by my web interface
PEER_DRIVE: Final = "tailscale.com/cap/drive"  # may open my folders; needs PEER_DRIVE_SHARER the other way
PEER_DRIVE_SHARER: Final = "tailscale.com/cap/drive-sharer"  # shares folders with me
PEER_RELAY: Final = "tailscale.com/cap/relay"  # may relay through me; needs PEER_RELAY_TARGET the other way
PEER_RELAY_TARGET: Final = "tailscale.com/cap/relay-target"  # is a relay for me
PEER_KUBERNETES: Final = "tailscale.com/cap/kubernetes"  # rights in the Kubernetes proxy
PEER_TSIDP: Final = "tailscale.com/cap/tsidp"  # rights in the tsidp program

# --- Capability versions ---

MINIMUM_CAPVER: Final = 113  # release 1.80, the oldest that doorward promises to serve
OUR_CAPVER: Final = 142  # what doorward's own client claims: release 1.102

# From these versions on a client knows:
CAPVER_NO_MEASURE_NO_HOME: Final = (
    115  # DERPRegion.NoMeasureNoHome, and with the same release pinned relay certificates
)
CAPVER_RELAY_PIN: Final = 115  # DERPNode.CertName "sha256-raw:..."
CAPVER_MAGICDNS_AAAA: Final = 116
CAPVER_DISPLAY_MESSAGES: Final = 117  # MapResponse.DisplayMessages; older ones show Health
CAPVER_RESOLVER_WITH_EXIT_NODE: Final = 125
CAPVER_DEFAULT_AUTO_UPDATE: Final = 131
CAPVER_RETRY_AFTER: Final = 137  # 429 with Retry-After on registration

# The capability version of each release, oldest first.
RELEASES: Final = (
    ("1.74", 106),
    ("1.76", 106),
    ("1.78", 109),
    ("1.80", 113),
    ("1.82", 115),
    ("1.84", 116),
    ("1.86", 123),
    ("1.88", 125),
    ("1.90", 130),
    ("1.92", 131),
    ("1.94", 131),
    ("1.96", 133),
    ("1.98", 138),
    ("1.102", 142),
)


def release_of(capver: int) -> str:
    """The newest known release whose capability version is not above ``capver``; empty for what is older than all."""
    return next((release for release, version in reversed(RELEASES) if version <= capver), "")


def capver_of(release: str) -> int | None:
    """The capability version of a release named by its first two numbers ("1.80"); None for an unknown one."""
    return dict(RELEASES).get(release)
