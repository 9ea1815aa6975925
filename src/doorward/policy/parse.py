"""From the text of a policy file to a `Document`, or to every reason why not.

A section is read by one function. Names are checked against the file's own groups, tags and hosts here; users are not,
because they come and go without the file.
"""

from doorward.policy.document import (
    NO_RULES,
    AccessTest,
    Diagnostic,
    Document,
    Flow,
    Kind,
    Place,
    PolicyError,
    Rule,
    Selector,
    SSHTest,
)
from doorward.policy.parse_names import (
    names_of,
    parse_groups,
    parse_hosts,
    parse_ipsets,
    parse_postures,
    parse_tag_owners,
)
from doorward.policy.parse_nodes import parse_auto_approvers, parse_node_attribute, parse_relays
from doorward.policy.parse_rules import parse_acl, parse_grant
from doorward.policy.parse_ssh import parse_ssh_rule
from doorward.policy.posture import AttributeValue
from doorward.policy.reader import Reader, Scope, TooManyFaults
from doorward.protocol import hujson
from doorward.protocol.tailcfg.filter import ALL_PORTS

_TOP = (
    "groups",
    "hosts",
    "tagOwners",
    "acls",
    "grants",
    "ssh",
    "autoApprovers",
    "nodeAttrs",
    "tests",
    "sshTests",
    "randomizeClientPort",
    "ipsets",
    "postures",
    "defaultSrcPosture",
    "disableIPv4",
    "OneCGNATRoute",
    "derpMap",
)
_TEST = ("src", "accept", "deny", "proto", "srcPostureAttrs")
_SSH_TEST = ("src", "dst", "accept", "deny", "check")


def parse_policy(text: str, *, filename: str = "policy.hujson") -> Document:
    """Read a policy file.

    Raises PolicyError with all that was found (the first `MAX_FAULTS` of it); a text that is not HuJSON yields the first
    fault only.
    """
    try:
        syntax = hujson.parse(text)
    except hujson.HujsonError as error:
        cure = error.cure or "Write HuJSON: JSON, with comments and trailing commas as you like."
        found = Diagnostic(filename, error.line, error.column, error.message, cure)
        raise PolicyError([found]) from None
    reader = Reader(text, filename)
    try:
        document = _document(reader, syntax, text)
    except TooManyFaults:
        last = reader.diagnostics[-1]
        more = Diagnostic(
            filename, last.line, last.column, "there are more faults than are shown", "Mend these first."
        )
        raise PolicyError([*reader.diagnostics, more]) from None
    if reader.diagnostics:
        raise PolicyError(reader.diagnostics)
    return document


def _document(reader: Reader, syntax: hujson.Value, text: str) -> Document:
    top = reader.section(syntax, "the policy", _TOP).members
    hosts = parse_hosts(reader, top.get("hosts"))
    ipsets = parse_ipsets(reader, top.get("ipsets"), hosts)
    postures, asks_country = parse_postures(reader, top.get("postures"))
    scope = Scope(reader, names_of(top, hosts, ipsets, postures))
    scope.default_postures = scope.postures(top.get("defaultSrcPosture"), '"defaultSrcPosture"') or ()
    return Document(
        text=text,
        filename=reader.filename,
        syntax=syntax,
        groups=parse_groups(scope, top.get("groups")),
        hosts=hosts,
        ipsets=ipsets,
        postures=postures,
        tag_owners=parse_tag_owners(scope, top.get("tagOwners")),
        rules=_rules(scope, top),
        ssh=scope.entries(top.get("ssh"), "ssh", parse_ssh_rule),
        auto_approvers=parse_auto_approvers(scope, top.get("autoApprovers")),
        asks_country=asks_country,
        node_attributes=scope.entries(top.get("nodeAttrs"), "nodeAttrs", parse_node_attribute),
        tests=scope.entries(top.get("tests"), "tests", _test),
        ssh_tests=scope.entries(top.get("sshTests"), "sshTests", _ssh_test),
        randomize_client_port=reader.flag(top.get("randomizeClientPort"), '"randomizeClientPort"'),
        disable_ipv4=reader.flag(top.get("disableIPv4"), '"disableIPv4"'),
        one_cgnat_route=_one_cgnat_route(reader, top.get("OneCGNATRoute")),
        relays=parse_relays(scope, top.get("derpMap")),
        # Last: what was noted while all of the above was read.
        remarks=tuple(scope.remarks),
        domains=tuple(scope.domains),
        names=tuple(scope.users),
    )


_ONE_CGNAT = {"": None, "mac-always": True, "mac-never": False}


def _one_cgnat_route(reader: Reader, value: hujson.Value | None) -> bool | None:
    text = reader.text(value, '"OneCGNATRoute"')
    if text is None:
        return None
    if text.value not in _ONE_CGNAT:
        reader.complain(
            text.place,
            f'"{text.value}" is not a value of "OneCGNATRoute"',
            'Write "mac-always" or "mac-never", or leave it out.',
        )
        return None
    return _ONE_CGNAT[text.value]


def _rules(scope: Scope, top: dict[str, hujson.Value]) -> tuple[Rule, ...]:
    """Grants, then acls. A file with neither section allows everything, as in the hosted service."""
    if "grants" not in top and "acls" not in top:
        everyone = Selector(Kind.EVERYONE, "", text="*")
        return (Rule(NO_RULES, Place(1, 1), (everyone,), (Flow(everyone, (ALL_PORTS,)),)),)
    return (
        *scope.entries(top.get("grants"), "grants", parse_grant),
        *scope.entries(top.get("acls"), "acls", parse_acl),
    )


def _test(scope: Scope, value: hujson.Value, origin: str) -> AccessTest:
    reader = scope.reader
    section = reader.section(value, origin, _TEST)
    lists = {
        key: tuple(reader.texts(section.members.get(key), f'"{key}" in {origin}'))
        for key in ("accept", "deny")
    }
    return AccessTest(
        origin,
        section.place,
        reader.text(section.members.get("src"), f'"src" in {origin}'),
        lists["accept"],
        lists["deny"],
        reader.text(section.members.get("proto"), f'"proto" in {origin}'),
        _attributes(reader, section.members.get("srcPostureAttrs"), f'"srcPostureAttrs" in {origin}'),
    )


def _attributes(reader: Reader, value: hujson.Value | None, origin: str) -> dict[str, AttributeValue] | None:
    if value is None:
        return None
    found: dict[str, AttributeValue] = {}
    for name, item in reader.members(value, origin):
        data = item.data if isinstance(item, hujson.Literal) else None
        if data is None:
            reader.complain(
                reader.place(item),
                f'"{name}" in {origin} must be a string, a number, true or false',
                "Write such a value.",
            )
            continue
        found[name.lower()] = data
    return found


def _ssh_test(scope: Scope, value: hujson.Value, origin: str) -> SSHTest:
    reader = scope.reader
    section = reader.section(value, origin, _SSH_TEST)
    lists = {
        key: tuple(reader.texts(section.members.get(key), f'"{key}" in {origin}'))
        for key in ("dst", "accept", "deny", "check")
    }
    return SSHTest(
        origin,
        section.place,
        reader.text(section.members.get("src"), f'"src" in {origin}'),
        lists["dst"],
        lists["accept"],
        lists["deny"],
        lists["check"],
    )
