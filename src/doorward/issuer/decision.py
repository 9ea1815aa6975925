"""Silent, a page that asks, a proof, or no: the one decision about every request to sign in. Pure.

A connection says whose device it is from, and a device is used by every program and page on it: what the network knows is like a
cookie that goes along with everybody's requests. So only an app that an administrator has made is answered silently, only at
addresses that are the app's alone, and only where a browser goes there as a whole page. Whatever else is asked takes a person.
The table is in ``decide``; its order is what counts.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from doorward.errors import BadInput


class Known(StrEnum):
    """By what a person is known."""

    NOBODY = "nobody"
    TAGGED = "tagged"  # a device that is no person's
    ROUTER = "router"  # a device behind whose address may be anybody
    DEVICE = "device"
    SESSION = "session"


class Arrival(StrEnum):
    """How the request was made, as the browser says (Fetch Metadata); pages cannot change it."""

    PAGE = "page"  # a whole page goes here
    INSIDE = "inside"  # a frame, a picture, a script
    AHEAD = "ahead"  # before anybody has asked for it
    UNSAID = "unsaid"  # no such browser, or none at all


class Verdict(StrEnum):
    """What happens."""

    SILENT = "silent"
    ASK = "ask"  # a page asks whether the app may
    PROVE = "prove"  # the person has to show who they are
    REFUSE = "refuse"  # the app is told
    BAR = "bar"  # a page says so, and the app is told nothing


class Reason(StrEnum):
    """Why."""

    GOOD = "good"
    INSIDE = "not a page of its own"
    AHEAD = "asked for ahead of time"
    TAGGED = "a tagged device is nobody's"
    ROUTER = "the device carries the traffic of others"
    NOBODY = "nobody is known"
    FORBIDDEN = "the policy does not let them"
    SIGNED_OUT = "they have signed out"
    OTHER_PERSON = "the app asks for somebody else"
    LOGIN = "the app wants a fresh sign-in"
    TOO_OLD = "the sign-in is too old for the app"
    LEVEL = "the app wants a better proof"
    CONSENT = "the app wants them to be asked"
    FIRST = "it is the first time"
    LOCAL = "the answer goes to a program on the device"
    UNSAID = "no browser says how it got here"
    OFTEN = "too many sign-ins in a short time"
    POSTURE = "the device does not meet what the app asks of it"


# What an app that said prompt=none is told where somebody would have to do something (Core section 3.1.2.6).
_NO_PAGE = {
    Reason.NOBODY: "login_required",
    Reason.SIGNED_OUT: "login_required",
    Reason.OTHER_PERSON: "login_required",
    Reason.LOGIN: "login_required",
    Reason.TOO_OLD: "login_required",
    Reason.LEVEL: "login_required",
    Reason.CONSENT: "consent_required",
    Reason.FIRST: "consent_required",
    Reason.LOCAL: "consent_required",
}


class Level(StrEnum):
    """How well a person is known (``acr``)."""

    REMOTE = "urn:doorward:acr:remote"  # a browser elsewhere, to which they said yes on their device
    NETWORK = "urn:doorward:acr:network"  # their device, and nothing more
    CLICK = "urn:doorward:acr:click"  # their device, and they said yes
    SESSION = "urn:doorward:acr:session"  # they signed in, at an outside provider or with a kept code
    PASSKEY = "urn:doorward:acr:passkey"  # they signed in with a passkey


POSTURE = "urn:doorward:acr:posture:"  # followed by the name that the policy has for what a device meets, behind its "posture:"

_RANK = {level: rank for rank, level in enumerate(Level)}


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that the decision looks at."""

    known: Known
    arrival: Arrival
    allowed: bool = True  # the policy lets this person use this app, with these scopes
    level: Level = Level.NETWORK
    wanted: tuple[Level, ...] = ()  # acr_values that are ours, the best first
    postures: tuple[str, ...] = ()  # acr_values that ask for a posture of the device
    posture: str = ""  # the first of them that the device meets
    essential: bool = False  # less than one of them will not do
    stranger: bool = False  # somebody is there whom the app does not want, whatever they say
    prompt: frozenset[str] = field(default_factory=frozenset)
    age: timedelta = timedelta(0)  # since the person last did something on purpose
    max_age: timedelta | None = None
    other_person: bool = False  # login_hint or id_token_hint names somebody else
    asks: bool = False  # the app is one that people are asked about
    local: bool = False  # the answer goes to the person's own machine
    signed_out: bool = False  # they left, and nobody has said yes to an app there since
    agreed: bool = False  # they said yes to exactly this before, or a moment ago
    proven: bool = False  # they have shown who they are for this very request
    clicked: bool = False  # they have said yes to this very request
    often: bool = False


@dataclass(frozen=True)
class Decision:
    """What happens, and why; ``error`` is what the app is told where it is told no."""

    verdict: Verdict
    reason: Reason
    error: str = ""


def decide(facts: Facts) -> Decision:
    """The decision. The first line that fits counts."""
    if facts.arrival is Arrival.AHEAD:
        return Decision(Verdict.BAR, Reason.AHEAD)
    if facts.arrival is Arrival.INSIDE:
        return Decision(Verdict.BAR, Reason.INSIDE)
    if facts.known is Known.TAGGED:
        return Decision(Verdict.REFUSE, Reason.TAGGED, "access_denied")
    if facts.known is Known.ROUTER:
        return Decision(Verdict.BAR, Reason.ROUTER)
    if facts.known is not Known.NOBODY and not facts.allowed:
        return Decision(Verdict.REFUSE, Reason.FORBIDDEN, "access_denied")
    if facts.known is not Known.NOBODY and facts.postures and not facts.posture:
        # Nothing that a person could do on a page changes their device.
        return Decision(Verdict.REFUSE, Reason.POSTURE, "unmet_authentication_requirements")
    if facts.known is not Known.NOBODY and facts.stranger:
        return Decision(Verdict.REFUSE, Reason.OTHER_PERSON, "login_required")
    for verdict, reason, holds in (*_proofs(facts), *_questions(facts)):
        if not holds:
            continue
        if "none" in facts.prompt:
            return Decision(Verdict.REFUSE, reason, _NO_PAGE.get(reason, "interaction_required"))
        return Decision(verdict, reason)
    if facts.essential and not facts.posture and not _reaches(facts):
        return Decision(Verdict.REFUSE, Reason.LEVEL, "unmet_authentication_requirements")
    return Decision(Verdict.SILENT, Reason.GOOD)


def said_level(facts: Facts) -> str:
    """``acr``: how well the person is known; where the app has said which values it takes, the best of those that it is."""
    met = [one for one in facts.wanted if one is not Level.REMOTE and _RANK[one] <= _RANK[facts.level]]
    level = max(met, key=_RANK.__getitem__) if facts.essential and met else facts.level
    return facts.posture or level.value


def _reaches(facts: Facts) -> bool:
    return any(_RANK[facts.level] >= _RANK[level] for level in facts.wanted)


def _proofs(facts: Facts) -> tuple[tuple[Verdict, Reason, bool], ...]:
    """What takes a sign-in."""
    wanted = facts.wanted and not _reaches(facts)
    better = bool(wanted) and min(_RANK[level] for level in facts.wanted) > _RANK[Level.CLICK]
    return (
        (Verdict.PROVE, Reason.NOBODY, facts.known is Known.NOBODY),
        (Verdict.PROVE, Reason.LOGIN, "login" in facts.prompt and not facts.proven),
        (
            Verdict.PROVE,
            Reason.TOO_OLD,
            facts.max_age is not None and facts.age > facts.max_age and not facts.proven,
        ),
        # One who has just signed in has no better to offer: the app sees in acr what it got.
        (Verdict.PROVE, Reason.LEVEL, better and not facts.proven),
    )


def _questions(facts: Facts) -> tuple[tuple[Verdict, Reason, bool], ...]:
    """What takes a yes."""
    if facts.clicked:
        return ()
    click = facts.wanted and not _reaches(facts)
    return (
        (Verdict.ASK, Reason.OTHER_PERSON, facts.other_person),
        (Verdict.ASK, Reason.SIGNED_OUT, facts.signed_out),
        (Verdict.ASK, Reason.LEVEL, bool(click) and not facts.proven),
        (Verdict.ASK, Reason.CONSENT, bool(facts.prompt & {"consent", "select_account"})),
        (Verdict.ASK, Reason.LOCAL, facts.local and not facts.agreed),
        (Verdict.ASK, Reason.FIRST, facts.asks and not facts.agreed),
        (Verdict.ASK, Reason.UNSAID, facts.arrival is Arrival.UNSAID),
        (Verdict.ASK, Reason.OFTEN, facts.often),
    )


def arrival_of(headers: "dict[str, str]") -> Arrival:
    """How a request was made. Names in lower case."""
    purpose = (
        headers.get("sec-purpose", "") + headers.get("sec-fetch-purpose", "") + headers.get("purpose", "")
    )
    if "prefetch" in purpose or "prerender" in purpose:
        return Arrival.AHEAD
    mode, target = headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")
    if mode is None and target is None and "sec-fetch-site" not in headers:
        return Arrival.UNSAID
    return Arrival.PAGE if mode == "navigate" and target == "document" else Arrival.INSIDE


def age(since: datetime, now: datetime) -> timedelta:
    """How long ago, never less than nothing: a clock that was set back makes nobody older."""
    return max(timedelta(0), now - since)


def read_prompt(text: str) -> frozenset[str]:
    """``prompt`` (Core section 3.1.2.1). Raises BadInput for none together with another; unknown words are left out."""
    words = frozenset(text.split())
    if "none" in words and len(words) > 1:
        raise BadInput("prompt=none stands alone")
    return words & {"none", "login", "consent", "select_account"}
