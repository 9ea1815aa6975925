"""Reads the entries of ``ssh`` (protocol note ssh.md, section 3)."""

import re
from datetime import timedelta

from doorward.policy.document import Forwarding, Kind, Localpart, NamedDomain, Place, Selector, SSHRule
from doorward.policy.reader import Scope
from doorward.policy.selectors import PEOPLE
from doorward.policy.words import WordError, did_you_mean
from doorward.protocol.hujson import Value

_KEYS = (
    "action",
    "src",
    "dst",
    "users",
    "checkPeriod",
    "acceptEnv",
    "recorder",
    "enforceRecorder",
    "srcPosture",
    "doorward:message",
    "doorward:sessionDuration",
    "doorward:forwarding",
    "doorward:approvers",
)
_FORWARDING = ("agent", "local", "remote")
_MAX_MESSAGE = 1000  # characters; it is a banner, not a page
_ACCOUNT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@\\-]*\$?")
_LIKE_ROOT = re.compile(r"[-+= ][-+= 0-9]*")
_LOCALPART = "localpart:*@"
_ENVIRONMENT = re.compile(r"[A-Za-z0-9_*?]+")

MAX_CHECK_PERIOD = timedelta(hours=168)

_UNITS = {
    "ns": 1e-3,
    "us": 1.0,
    "µs": 1.0,
    "μs": 1.0,
    "ms": 1e3,
    "s": 1e6,
    "m": 6e7,
    "h": 3.6e9,
}  # microseconds
_DURATION = re.compile(r"([+-]?)((?:[0-9]+(?:\.[0-9]*)?(?:ns|us|µs|μs|ms|s|m|h)){1,8}|0)")
_DURATION_PART = re.compile(r"([0-9.]+)([a-zµμ]+)")


def parse_ssh_rule(scope: Scope, value: Value, origin: str) -> SSHRule | None:
    """Read one entry of ``ssh``."""
    reader = scope.reader
    section = reader.section(value, origin, _KEYS)
    members = section.members
    action = reader.text(members.get("action"), f'"action" in {origin}')
    if action is None or not action.value:
        reader.complain(section.place, "action must be specified", 'Add "action": "accept" or "check".')
    elif action.value not in {"accept", "check"}:
        cure = 'Write "accept" or "check". What no rule accepts is denied.'
        reader.complain(action.place, f'"{action.value}" is not a valid action', cure)
    check = action is not None and action.value == "check"
    approvers = _approvers(scope, members.get("doorward:approvers"), origin, check=check)
    sources = scope.selectors(
        members.get("src"),
        f'"src" in {origin}',
        role="src=",
        section="ssh",
        check=_check_prover if check and not approvers else _check_source,
    )
    targets = scope.selectors(members.get("dst"), f'"dst" in {origin}', role="dst=", check=_check_target)
    _check_pairs(scope, section.place, sources, targets)
    accounts, localparts = _accounts(scope, members.get("users"), origin)
    if not any(True for _ in reader.items(members.get("users"), "users")):
        cure = 'Add "users": ["autogroup:nonroot"], or name accounts.'
        reader.complain(section.place, "users must be specified", cure)
    period = _check_period(scope, members.get("checkPeriod"), origin, check=check)
    environment = (
        reader.attempt(text.place, _environment, text.value)
        for text in reader.texts(members.get("acceptEnv"), f'"acceptEnv" in {origin}')
    )
    accept_env = tuple(one for one in environment if one is not None)
    return SSHRule(
        origin,
        section.place,
        check,
        sources,
        targets,
        accounts,
        localparts,
        period,
        accept_env,
        recorders=_recorders(scope, members.get("recorder"), origin),
        enforce_recorder=reader.flag(members.get("enforceRecorder"), f'"enforceRecorder" in {origin}'),
        postures=scope.source_postures(members.get("srcPosture"), origin),
        message=_message(scope, members.get("doorward:message"), origin),
        session_duration=_session_duration(
            scope, members.get("doorward:sessionDuration"), origin, check=check
        ),
        forwarding=_forwarding(scope, members.get("doorward:forwarding"), origin),
        approvers=approvers,
    )


def _recorders(scope: Scope, value: Value | None, origin: str) -> tuple[str, ...]:
    found: list[str] = []
    for text in scope.reader.texts(value, f'"recorder" in {origin}'):
        if text.value in scope.names.tags:
            found.append(text.value)
        else:
            cure = did_you_mean(text.value, scope.names.tags, 'Name a tag of "tagOwners".')
            scope.reader.complain(text.place, f'recorder: tag not found: "{text.value}"', cure)
    return tuple(found)


def _message(scope: Scope, value: Value | None, origin: str) -> str:
    text = scope.reader.text(value, f'"doorward:message" in {origin}')
    if text is None:
        return ""
    if len(text.value) > _MAX_MESSAGE or any(c != "\n" and not c.isprintable() for c in text.value):
        scope.reader.complain(
            text.place,
            f'"doorward:message" must be printable text of at most {_MAX_MESSAGE} characters',
            "Shorten it, and leave out control characters.",
        )
    return text.value


def _session_duration(scope: Scope, value: Value | None, origin: str, *, check: bool) -> timedelta | None:
    text = scope.reader.text(value, f'"doorward:sessionDuration" in {origin}')
    if text is None:
        return None
    duration = scope.reader.attempt(text.place, parse_check_period, text.value)
    if duration is not None and (check or not duration):
        cure = 'Write "action": "accept" with a duration like "8h".'
        scope.reader.complain(
            text.place, '"doorward:sessionDuration" is a duration above zero, for the accept action', cure
        )
    return duration


def _forwarding(scope: Scope, value: Value | None, origin: str) -> Forwarding:
    if value is None:
        return Forwarding()
    where = f'"doorward:forwarding" in {origin}'
    members = scope.reader.section(value, where, _FORWARDING).members
    given = {
        key: scope.reader.flag(members[key], f'"{key}" in {where}') for key in _FORWARDING if key in members
    }
    return Forwarding(**given)


def _check_source(selector: Selector) -> Selector:
    """People and tags may be named; what has no owner that is known may not."""
    named = selector.kind in {Kind.USER, Kind.DOMAIN, Kind.GROUP, Kind.TAG}
    if named or (selector.kind is Kind.AUTOGROUP and selector.value in PEOPLE | {"tagged"}):
        return selector
    raise WordError(f'invalid src "{selector.text}"', "Name users, groups, tags or autogroup:member.")


def _check_prover(selector: Selector) -> Selector:
    """For ``check``: somebody must be there to prove who they are."""
    if selector.kind is Kind.TAG or selector.is_autogroup("tagged"):
        raise WordError(
            '"check" action does not support tags in src',
            'Nobody is behind a tag; name users or groups, or say in "doorward:approvers" who approves.',
        )
    return _check_source(selector)


def _approvers(scope: Scope, value: Value | None, origin: str, *, check: bool) -> tuple[Selector, ...]:
    """People who approve instead of whoever is at the source."""
    if value is not None and not check:
        cure = 'Remove it, or write "action": "check".'
        scope.reader.complain(
            scope.reader.place(value), '"doorward:approvers" is only for the check action', cure
        )
        return ()
    return scope.selectors(
        value, f'"doorward:approvers" in {origin}', role="doorward:approvers=", check=_check_approver
    )


def _check_approver(selector: Selector) -> Selector:
    """Only a person can approve."""
    if selector.kind in {Kind.USER, Kind.DOMAIN, Kind.GROUP} or (
        selector.kind is Kind.AUTOGROUP and selector.value in PEOPLE
    ):
        return selector
    raise WordError(f'"{selector.text}" cannot approve a check', "Name users, groups or autogroup:admin.")


def _check_target(selector: Selector) -> Selector:
    if selector.kind in {Kind.TAG, Kind.USER} or selector.is_autogroup("self"):
        return selector
    raise WordError(
        f'invalid dst "{selector.text}"', 'Name tags, or "autogroup:self" for people\'s own devices.'
    )


def _check_pairs(
    scope: Scope, place: Place, sources: tuple[Selector, ...], targets: tuple[Selector, ...]
) -> None:
    """People reach their own devices and tagged ones; tagged nodes reach tagged ones."""
    tagged = [one for one in sources if one.kind is Kind.TAG or one.is_autogroup("tagged")]
    for target in targets:
        if target.is_autogroup("self") and tagged:
            scope.reader.complain(
                place,
                "autogroup:self can only be used with users, groups, or supported autogroups"
                f'; src has "{tagged[0].text}"',
                "Give the tags a rule of their own, with tags as dst.",
            )
        if target.kind is Kind.USER and any(source != target for source in sources):
            scope.reader.complain(
                place, "users in dst are only allowed from the same user", 'Use "autogroup:self" as dst.'
            )


def _accounts(
    scope: Scope, value: Value | None, origin: str
) -> tuple[tuple[str, ...], tuple[Localpart, ...]]:
    accounts: list[str] = []
    localparts: list[Localpart] = []
    for text in scope.reader.texts(value, f'"users" in {origin}'):
        account = scope.reader.attempt(text.place, _account, text.value)
        if isinstance(account, Localpart):
            localparts.append(account)
            scope.domains.append(NamedDomain(account.domain, text.place))
        elif account is not None:
            accounts.append(account)
            if account != "autogroup:nonroot" and not _ACCOUNT.fullmatch(account):
                scope.remark(
                    text.place,
                    f'"{account}" in {origin} is taken as the name of an account, and no system has one like it',
                    'Name accounts, "root", "autogroup:nonroot" or "localpart:*@example.com".',
                )
    return tuple(accounts), tuple(localparts)


def _account(text: str) -> str | Localpart:
    if text.startswith(_LOCALPART) and len(text) > len(_LOCALPART):
        return Localpart(text.removeprefix(_LOCALPART).lower())
    # The hosted service takes any other text as the name of an account, even "tag:x": so it is no error here either.
    # Not so what older clients could take for root under another name.
    if not text or text == "*" or not text.isprintable() or _LIKE_ROOT.fullmatch(text):
        raise WordError(
            f'user "{text}" is not valid',
            'Name accounts, "root", "autogroup:nonroot" or "localpart:*@example.com".',
        )
    return text


def _environment(text: str) -> str:
    if not text:
        raise WordError("acceptEnv values cannot be empty", "Remove it.")
    if not _ENVIRONMENT.fullmatch(text):
        raise WordError(
            f'"{text}" is not the name of an environment variable', "Use letters, digits, _, * and ?."
        )
    return text


def _check_period(scope: Scope, value: Value | None, origin: str, *, check: bool) -> timedelta | None:
    text = scope.reader.text(value, f'"checkPeriod" in {origin}')
    if text is None:
        return None
    if not check:
        cure = 'Remove it, or write "action": "check".'
        scope.reader.complain(text.place, "checkPeriod is only for the check action", cure)
        return None
    return scope.reader.attempt(text.place, parse_check_period, text.value)


def parse_check_period(text: str) -> timedelta:
    """Read ``always`` (answered as zero) or a duration such as ``12h`` or ``1h30m``, at most `MAX_CHECK_PERIOD`."""
    if text == "always":
        return timedelta(0)
    match = _DURATION.fullmatch(text)
    if match is None:
        raise WordError(f'time: invalid duration "{text}"', 'Write it like "12h" or "90m", or "always".')
    microseconds = sum(
        float(number) * _UNITS[unit] for number, unit in _DURATION_PART.findall(match.group(2))
    )
    seconds = min(microseconds / 1e6, 1e9)  # far above the limit, and far below what a timedelta holds
    shown = _shown(seconds)
    if match.group(1) == "-" and seconds:
        raise WordError(f"checkPeriod -{shown} must be a positive duration", 'Write it like "12h".')
    period = timedelta(seconds=seconds)
    if period > MAX_CHECK_PERIOD:
        raise WordError(f"checkPeriod {shown} is above the max (168h)", 'Write at most "168h".')
    return period


def _shown(seconds: float) -> str:
    """A duration as Go prints it: 1h0m1s."""
    hours, rest = divmod(seconds, 3600)
    minutes, rest = divmod(rest, 60)
    text = f"{rest:.9f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{int(hours)}h{int(minutes)}m{text}"
    return f"{int(minutes)}m{text}" if minutes else text
