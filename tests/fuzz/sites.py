"""Where the product turns bytes or text into something else: found in its source, so that none is forgotten.

A *site* is a function that calls one of READERS on something that is not a constant, or one in ``protocol`` or ``policy``
whose name begins like a parser's. Each is fed by a fuzz target that names it in ``COVERS``, or stands in OWN with the reason
why nothing from outside gets there unread. ``tests/fuzz/test_fuzz.py`` holds source, targets and this table together.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.engine import SOURCES

# Calls that read a form, by the last part of their name.
READERS = frozenset(
    {
        *("int", "float", "decode", "loads", "convert", "unpack", "unpack_from", "from_bytes", "fromhex"),
        *(
            "b64decode",
            "b32decode",
            "unquote",
            "parse_qs",
            "parse_qsl",
            "urlsplit",
            "urlparse",
            "URL",
            "parse_url",
        ),
        *(
            "ip_address",
            "ip_network",
            "ip_interface",
            "IPv4Address",
            "IPv6Address",
            "IPv4Network",
            "IPv6Network",
        ),
        *("fullmatch", "match", "search", "finditer", "findall", "fromisoformat", "strptime", "literal_eval"),
        *("load_pem_x509_certificate", "load_der_x509_certificate", "load_pem_private_key"),
        *("decompress", "receive_data", "feed_data", "split_listen", "parse"),
    }
)
NAMES = ("parse_", "decode_", "read_", "open_")
PARSERS = ("protocol", "policy")  # where such a name alone makes a site

# What is read there, and why it is not from outside. A value that a site in COVERS has read is no longer outside.
OWN: dict[str, tuple[str, ...]] = {
    "a number, or an address that is one already, is counted with": (
        "audit.destinations:WebhookDestination._post",
        "asgi:RateExceeded.__init__",
        "identity.client:Client._assertion",
        "identity.possession:Proofs._term",
        "issuer.backchannel:logout_token",
        "issuer.device:Devices.begin",
        "issuer.dpop:Proofs._check_nonce",
        "issuer.dpop:Proofs.nonce",
        "issuer.grants.answer:tokens_of",
        "issuer.grants.client_credentials:own_token",
        "issuer.grants.id_jag:_sign",
        "issuer.grants.id_jag:vouch",
        "issuer.grants.token_exchange:_issue",
        "issuer.pushed:Pushed.push",
        "issuer.tokens:access_claims",
        "server.outside:Outside._ticket",
        "issuer.tokens:id_token",
        "cli.times:_length",
        "login.idtoken:_seconds",
        "login.proofs:read_proof",
        "login.pages:duration",
        "login.sessions:set_cookie",
        "login.whoami:_between",
        "policy.parse_ssh:_shown",
        "policy.ranges:of_prefix",
        "policy.reach:_single",
        "policy.roster:Roster.holder",
        "policy.ranges:without",
        "policy.ranges:Range.__contains__",
        "policy.ranges:Range.meets",
        "policy.roster:Roster._holders",
        "policy.sources:Sources.resolve",
        "policy.sources:sorted_prefixes",
        "server.acme.keeper:renewal",
        "relay.session:_set_user_timeout",
        "tailnet.addresses:indexes_in",
        "tailnet.checks:_decide",
        "tailnet.tabs:_open",
        "store.columns:Flag.process_bind_param",
        "store.processes:alive",
        "transport.accepting:keep_tcp_alive",
        "transport.streams:Http2.room",
    ),
    "a description that described.read has read before": ("issuer.registration:_check_change",),
    "what the field's own pattern has read before: 64 hexadecimal digits": ("api.console_tabs:open_tab",),
    "where a connection comes from, as the socket says, or nothing": ("tailnet.tabs:Tabs.arrived",),
    "addresses that were put together a moment before": ("api.tabs:origins",),
    "the manifest of the bundle, which comes with doorward": ("console.bundle:Bundle.__init__",),
    "a name that is left out where one expression does not take it": ("console.pages:content_policy",),
    "random bytes of our own": (
        "engine.client:ControlClient._pause",
        "server.acme.keeper:Keeper._failed",
        "server.worker:Worker._process",
        "tailnet.admission:Admission._applicant",
        "tailnet.tabs:Tabs.open",
    ),
    "what the parent of this process, which is doorward too, told it": (
        "server.child:_order",
        "server.relay_shard:work",
        "server.team:decode_payload",
    ),
    "what another worker of the same serve says, on a socket or in a file that only this user may open": (
        "server.acme.folder:Folder.answers",
        "server.acme.folder:Folder.state",
        "server.own_reports:Reports.read",
        "server.siblings:Siblings._answer",
        "server.siblings:Siblings.ping",
        "server.siblings:_post",
    ),
    "what the author of a program wrote that uses doorward.identity": (
        "identity.needs:check_scopes",
        "identity.resource:Resource.__init__",
    ),
    "an address that was read from a signed token": ("tailnet.outside:_newcomer",),
    "rows that doorward wrote, in a database that nobody else may write": (
        "issuer.authorize:Authorize._proven",
        "issuer.device:Devices._asked",
        "issuer.elsewhere:Elsewhere._waiting",
        "issuer.authorize:Authorize.answer",
        "issuer.consent:waiting",
        "issuer.keys:Keys._open",
        "issuer.registration:_answer",
        "login.asking:Askings.act",
        "login.asking:Askings.page",
        "login.me:Me._forget",
        "model.nouns:Process.worker",
        "server.acme.sharing:Sharing._open",
        "store.apps:browser_of",
        "store.apps:delete",
        "store.audit:append",
        "store.audit:load",
        "store.checkpoints:hold",
        "store.columns:AnyAddress.process_result_value",
        "store.columns:Prefixes.process_result_value",
        "store.logouts:waiting",
        "store.schema:_found",
        "store.settings:get",
        "store.settings:load_all",
        "store.signin:recovery_codes_left",
        "store.signin:take_recovery_code",
    ),
    "a number that the kernel gave, or an address from it, the resolver or the own daemon": (
        "login.links:_is_here",
        "engine.tailscaled:_device_of",
        "identity.own_node:OwnNode._wide",
        "login.whois:identify",
        "relay.stun:STUNServer._readable",
        "server.memory:_resident",
        "server.sockets:bind.port",
        "transport.fetch:resolve",
    ),
    "a number in a path or a form: at most eighteen digits, or there is no such thing": (
        "login.asking:Askings.current",
        "login.me:_number",
    ),
    "what a command of doorward's printed or kept, in the demo": (
        "cli.demo_console:check",
        "cli.demo:_Demo._approve",
        "cli.demo:_Demo._board",
        "cli.demo_app:pin",
        "cli.demo:_Demo._link",
    ),
    "compared with one expression, and then with a hash": (
        "issuer.grants.authorization_code:_check_verifier",
    ),
    "what the policy's own compiler wrote": ("login.whoami:_names",),
    "the lines of a compiler that an administrator started, for a count on the screen": (
        "engine.setup:_Work._count",
    ),
    "a key that the server made, in a file that only this user may open": (
        "server.acme.conversation:Conversation._connect",
    ),
    "the server's secrets, by the same two calls as the relay's, which are fed": (
        "audit.auditing:Auditing.__init__",
        "server.worker:Worker.__init__",
    ),
    "a setting or an argument that was checked when it was read": (
        "audit.destinations:WebhookDestination.__init__",
        "login.doors:Place.port",
        "login.doors:place_of",
        "server.first_link:ways",
        "engine.controlconn:one_request",
        "login.upstream:Started.__repr__",
        "relay.stun:bind_stun",
        "server.relay_process:_bind",
        "server.relays:own_region",
        "server.sockets:_bind_tcp_and_udp",
        "server.sockets:_port_of",
        "server.worker:Worker._tailnet",
        "tailnet.outside:group_domains",
        "transport.noise:dial",
    ),
    "our own paths are matched with our own routes": ("asgi:_may_match",),
}


def sites() -> dict[str, str]:
    """Every site, by the name that targets give it; the value says what makes it one."""
    found: dict[str, str] = {}
    for path in sorted(Path(SOURCES).rglob("*.py")):
        module = ".".join(path.relative_to(SOURCES).with_suffix("").parts)
        if module.startswith("store.migrations"):
            continue
        for name, function in _functions(ast.parse(path.read_text(encoding="utf-8")), ()):
            calls = sorted(_readers_in(function))
            if module.split(".")[0] in PARSERS and function.name.lstrip("_").startswith(NAMES):
                calls.append(f"called {function.name}")
            if calls:
                found[f"{module}:{name}"] = ", ".join(calls)
    return found


def _functions(
    tree: ast.AST, outer: tuple[str, ...]
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if not isinstance(node, ast.ClassDef):
                yield ".".join((*outer, node.name)), node
            yield from _functions(node, (*outer, node.name))
        else:
            yield from _functions(node, outer)


def _readers_in(function: ast.AST) -> set[str]:
    """The readers that a function calls itself, not in a function inside it."""
    found: set[str] = set()
    for node in ast.iter_child_nodes(function):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if isinstance(node, ast.Call):
            called = node.func
            name = (
                called.attr
                if isinstance(called, ast.Attribute)
                else called.id
                if isinstance(called, ast.Name)
                else ""
            )
            if name in READERS and not all(isinstance(argument, ast.Constant) for argument in node.args):
                found.add(name)
        found |= _readers_in(node)
    return found
