"""Reads the entries of ``ssh`` (protocol note ssh.md, section 3)."""

import re
from datetime import timedelta

from doorward.policy.document import Kind, Localpart, Place, Selector, SSHRule
from doorward.policy.reader import Scope
from doorward.policy.selectors import PEOPLE, WordError
from doorward.protocol.hujson import Value

_KEYS = ("action", "src", "dst", "users", "checkPeriod", "acceptEnv")
_ACCOUNT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@\\-]*\$?")
_LOCALPART = re.compile(r"localpart:\*@([A-Za-z0-9.-]+)")
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
    check_source = _check_prover if check else _check_source
    sources = scope.selectors(members.get("src"), f'"src" in {origin}', role="src=", check=check_source)
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
    return SSHRule(origin, section.place, check, sources, targets, accounts, localparts, period, accept_env)


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
            '"check" action does not support tags in src', "Nobody is behind a tag; name users or groups."
        )
    return _check_source(selector)


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
        elif account is not None:
            accounts.append(account)
    return tuple(accounts), tuple(localparts)


def _account(text: str) -> str | Localpart:
    if text == "autogroup:nonroot":
        return text
    localpart = _LOCALPART.fullmatch(text)
    if localpart is not None:
        return Localpart(localpart.group(1).lower())
    # The hosted service takes "tag:x" and the like literally, as names of accounts that no system can have.
    if not _ACCOUNT.fullmatch(text):
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
