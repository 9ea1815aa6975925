"""Runs the ``tests`` and ``sshTests`` of a policy: assertions that its author wrote, judged before it is stored.

A test that names something unknown, or asserts nothing, fails: a guard that cannot fail guards nothing.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from doorward.model import Role
from doorward.policy.compile import Policy
from doorward.policy.document import (
    AccessTest,
    Diagnostic,
    Kind,
    Place,
    PolicyError,
    Selector,
    SSHTest,
    Text,
)
from doorward.policy.reach import TCP, Point, points_named, reach
from doorward.policy.roster import address_of
from doorward.policy.selectors import (
    Names,
    parse_ports,
    parse_protocol,
    parse_selector,
    split_target,
)
from doorward.policy.words import WordError

_FAILED = "test(s) failed"

_FOREIGN = "is not associated with this Tailnet and cannot be used in user:*@<domain> expressions"
_RUNNERS = frozenset((Role.OWNER, Role.ADMIN))
_PASSKEYS = "passkey"  # stands for people who sign in by passkey alone, in every tailnet


def check(policy: Policy) -> None:
    """Run all tests, and judge what depends on who there is. Raises PolicyError with every failure.

    Tests are about the rules: they are judged as if nobody were shut out and no nodes were kept apart. Else nobody could
    change the policy while a device is suspended that some test wants let in.
    """
    policy = policy.opened()
    names = Names(policy.document.groups, policy.document.tag_owners, policy.document.hosts)
    found = [
        Diagnostic(policy.document.filename, place.line, place.column, message, cure)
        for place, message, cure in (
            *_unknown_countries(policy),
            *_foreign_domains(policy),
            *(fault for test in policy.document.tests for fault in _run(policy, names, test)),
            *(fault for ssh_test in policy.document.ssh_tests for fault in _run_ssh(policy, names, ssh_test)),
        )
    ]
    if found:
        raise PolicyError(found)


_Fault = tuple[Place, str, str]


def _unknown_countries(policy: Policy) -> Iterator[_Fault]:
    if policy.document.asks_country is not None and policy.roster.country_of is None:
        yield (
            policy.document.asks_country,
            '"ip:country": nobody knows here which address is in which country',
            "Name a MaxMind DB file in the setting geoip, or ask for ip:address.",
        )


def _foreign_domains(policy: Policy) -> Iterator[_Fault]:
    """Domains that are not the tailnet's: those of the people who run it. Where none of them has an address, any will do."""
    ours = {address_of(user).rpartition("@")[2] for user in policy.users if user.role in _RUNNERS} - {""}
    for named in policy.document.domains if ours else ():
        if named.domain not in ours | {_PASSKEYS}:
            section = f"[{named.section}] " if named.section else ""
            yield (
                named.place,
                f"{section}{named.domain} {_FOREIGN}",
                f"Write {' or '.join(sorted(ours))}, or name people by a group.",
            )


def _fault(text: Text, origin: str, message: str) -> _Fault:
    return (
        text.place,
        f"{_FAILED}: {origin}: {message}",
        "Change the rule, or the test that disagrees with it.",
    )


def _run(policy: Policy, names: Names, test: AccessTest) -> Iterator[_Fault]:
    if test.source is None or not (test.accept or test.deny):
        yield _fault(Text("", test.place), test.origin, "a test needs src, and accept or deny")
        return
    try:
        sources = [_judged(policy, one, test) for one in _points(policy, names, test.source.value)]
        protocol = TCP if test.protocol is None else parse_protocol(test.protocol.value)
    except WordError as error:
        yield _fault(test.source, test.origin, error.message)
        return
    for wanted, targets in ((True, test.accept), (False, test.deny)):
        for text in targets:
            try:
                ends, port = _target(policy, names, text.value)
            except WordError as error:
                yield _fault(text, test.origin, error.message)
                continue
            for source in sources:
                if any(bool(reach(policy, source, end, port, protocol)) is not wanted for end in ends):
                    verb = "cannot" if wanted else "can"
                    yield _fault(
                        text, test.origin, f"{test.source.value} ({source.address}) {verb} reach {text.value}"
                    )
                    break


def _judged(policy: Policy, source: Point, test: AccessTest) -> Point:
    """The source, with the posture attributes that the test gives it in place of its own."""
    if test.attributes is None or source.member is None:
        return source
    postures = policy.document.postures.items()
    met = frozenset(name for name, posture in postures if posture.met_by(test.attributes))
    return replace(source, member=replace(source.member, postures=met))


def _points(policy: Policy, names: Names, text: str) -> list[Point]:
    """The ends that a test names. Raises WordError where there are none."""
    if "/" in text:
        raise WordError(f'"{text}" is a prefix; a test is about single addresses')
    selector = parse_selector(text, names)
    if selector.kind is Kind.EVERYONE or selector.is_autogroup("self") or selector.is_autogroup("internet"):
        raise WordError(f'"{text}" is too wide for a test')
    ends = list(points_named(policy, selector))
    if not ends:
        raise WordError(f'"{text}" stands for no node')
    return ends


def _target(policy: Policy, names: Names, text: str) -> tuple[list[Point], int]:
    target, ports = split_target(text)
    parsed = parse_ports(ports)
    if len(parsed) != 1 or parsed[0].First != parsed[0].Last:
        raise WordError(f'"{text}": a test is about one port')
    return _points(policy, names, target), parsed[0].First


def _run_ssh(policy: Policy, names: Names, test: SSHTest) -> Iterator[_Fault]:
    if test.source is None or not test.targets or not (test.accept or test.deny or test.check):
        yield _fault(Text("", test.place), test.origin, "a test needs src, dst, and accept, deny or check")
        return
    targets: list[Point] = []
    for text in test.targets:
        try:
            targets += _ssh_targets(policy, names, text.value)
        except WordError as error:
            place, message, cure = _fault(text, test.origin, error.message)
            yield place, message, cure
            return
    try:
        sources = _points(policy, names, test.source.value)
    except WordError as error:
        yield _fault(test.source, test.origin, error.message)
        return
    judged: tuple[tuple[Iterable[Text], Callable[[str], bool], str], ...] = (
        (test.accept, lambda verdict: verdict != "", "cannot"),
        (test.check, lambda verdict: verdict == "check", "is not asked to check when logging"),
        (test.deny, lambda verdict: verdict == "", "can"),
    )
    for accounts, agrees, verb in judged:
        for account in accounts:
            if not all(
                agrees(_verdict(policy, source, target, account.value))
                for source in sources
                for target in targets
            ):
                yield _fault(account, test.origin, f"{test.source.value} {verb} log in as {account.value}")


def _ssh_targets(policy: Policy, names: Names, text: str) -> list[Point]:
    """Where a test logs in to: nodes by tag, user or name, and IPv4 addresses."""
    try:
        selector = parse_selector(text, names)
    except WordError as error:
        if text.startswith("tag:"):
            raise WordError(f'SSH tests dst contains unknown tag "{text}"') from error
        raise
    too_wide = selector.kind is Kind.EVERYONE or (selector.prefix is not None and "/" in text)
    if too_wide or selector.is_autogroup("internet") or selector.is_autogroup("self"):
        raise WordError(f'SSH tests dst contains disallowed element "{text}"')
    ends = [end for end in points_named(policy, selector) if end.member is not None]
    if not ends or _is_bare_ipv6(selector, text):
        raise WordError(f'"{text}" stands for no node')
    return ends


def _is_bare_ipv6(selector: Selector, text: str) -> bool:
    return selector.prefix is not None and selector.prefix.version == 6 and ":" in text


def _verdict(policy: Policy, source: Point, target: Point, account: str) -> str:
    """``accept``, ``check``, or empty where no rule lets the source log in: what the target node would find."""
    if source.member is None or target.member is None:
        return ""
    for rule in policy.ssh_policy(target.member.id).rules:
        if not any(principal.nodeIP in source.member.texts for principal in rule.principals):
            continue
        if rule.sshUsers.get(account, rule.sshUsers.get("*", "")):
            return "accept" if rule.action.accept is True else "check"
    return ""
