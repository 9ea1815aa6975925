"""The door pages: plain HTML that works without scripts, and is small enough for any line (under 20 kB, styles included).

Every page has one frame. The *stage* shows who stands before the door, how the door stands, and what it opens; its lower
edge is the sill; the *sheet* below asks or says one thing. ``page`` makes one from a template in ``templates/``.

What comes from outside (a hostname, a person's name) is a hostile text until shown. It gets on a page only as an argument
of a template, where it is escaped, and through the filter ``shown``, which isolates its direction, shows the characters
that nobody would see, and ends it somewhere.
"""

import functools
import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from doorward.asgi import PAGE_POLICY, RateExceeded
from doorward.errors import DoorwardError
from doorward.login.drawing import Door, device, finger, glyph, large_door
from doorward.login.prefix import at

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = [
    "Door",
    "Side",
    "ago",
    "device_side",
    "moment",
    "page",
    "person_side",
    "refusal",
    "routes",
    "shown",
    "system_name",
    "tailnet_side",
    "wants_html",
]

STATIC_PREFIX = "/_doorward/"
_STATIC = {
    "door.css": "text/css; charset=utf-8",
    "door.svg": "image/svg+xml",
    "passkey.js": "text/javascript; charset=utf-8",
    "steady.js": "text/javascript; charset=utf-8",
}
_FILES = {name: files("doorward.login").joinpath("static", name).read_bytes() for name in _STATIC}
_VERSIONS = {name: hashlib.sha256(content).hexdigest()[:12] for name, content in _FILES.items()}

# A page is about who looks at it, and its address may be a secret: kept by nobody, named to nobody, found by nobody.
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": PAGE_POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex, nofollow",
}

_HUES = 5  # the colours of people's arches; the name always stands beside them


# Text from outside -------------------------------------------------------------------------------------------------

# Letters by category that are drawn as nothing: Hangul fillers, the combining grapheme joiner, the empty Braille cell.
_BLANK = frozenset("\u115f\u1160\u3164\uffa0\u034f\u2800")
_UNSEEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_LIMIT = 255  # the longest hostname there is (RFC 1035 section 2.3.4)


def _is_unseen(character: str) -> bool:
    category = unicodedata.category(character)
    return (
        category in _UNSEEN_CATEGORIES
        or character in _BLANK
        or (category == "Zs" and character != " ")  # a space that is not the space
    )


def shown(text: str, limit: int = _LIMIT, *, note: bool = True) -> Markup:
    """``text`` as HTML that can be trusted to look like what it is.

    Its direction ends with it. Characters that draw nothing or turn the text around appear as ``U+202E``. At most ``limit``
    characters are shown; an ellipsis stands for the rest, and with ``note`` the length of the whole.
    """
    parts: list[str] = []
    for character in text[:limit]:
        if _is_unseen(character):
            parts.append(f'<span class="unseen">U+{ord(character):04X}</span>')
        else:
            parts.append(str(escape(character)))
    inner = Markup("<bdi>{}</bdi>").format(Markup("".join(parts)))  # noqa: S704 - escaped above, one by one
    if len(text) <= limit:
        return inner
    rest = f"… {len(text):,} characters in all" if note else "…"
    return inner + Markup('<span class="cut">{}</span>').format(rest)


def code_marks(text: str) -> Markup:
    """A sentence of ours, where what stands between backticks is code."""
    pieces = text.split("`")
    marked = [
        Markup("<code>{}</code>").format(piece) if index % 2 else escape(piece)
        for index, piece in enumerate(pieces)
    ]
    return Markup("").join(marked)


# Time --------------------------------------------------------------------------------------------------------------


def duration(seconds: float) -> str:
    """A length of time in its largest unit, rounded down: ``42 seconds``, ``1 minute``, ``3 hours``, ``2 days``."""
    whole = max(0, int(seconds))
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if whole >= size or size == 1:
            count = whole // size
            return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
    raise AssertionError


def ago(when: datetime, now: datetime) -> str:
    """How long ago: ``a moment ago`` for the first ten seconds, and for times that lie ahead."""
    seconds = (now - when).total_seconds()
    return "a moment ago" if seconds < 10 else f"{duration(seconds)} ago"


def moment(when: datetime) -> Markup:
    """A time of day in UTC, exact to the minute, whole for programs. A page without scripts cannot know another zone."""
    return Markup('<time datetime="{}">{}</time>').format(
        when.isoformat(timespec="seconds"), when.strftime("%H:%M UTC")
    )


# What stands at the sides of the door ------------------------------------------------------------------------------


class Side(NamedTuple):
    """A picture, a name from outside, and a note of ours."""

    picture: Markup
    name: str
    note: str


def _square(inner: Markup) -> Markup:
    return Markup('<span class="square">{}</span>').format(inner)


def arch(name: str, number: int) -> Markup:
    """A person's arch: the first letter, in a colour that stays the same for the same ``number``."""
    letter = next((each for each in name if each.isalnum()), "?").upper()[:1]
    # As web/src/ui/parts.tsx has it: one person, one colour.
    hue = (number * 0x9E3779B1 >> 16 & 0xFFFF) % _HUES
    return Markup('<span class="arch hue{}" aria-hidden="true">{}</span>').format(hue, letter)


_SYSTEMS = {
    "linux": "Linux",
    "windows": "Windows",
    "android": "Android",
    "freebsd": "FreeBSD",
    "js": "a browser",
}


def system_name(system: str) -> str:
    """What people call an operating system; the protocol's own word where that says it already."""
    return _SYSTEMS.get(system, system)


def device_side(name: str, system: str, note: str) -> Side:
    """A device, by the operating system that it says it runs."""
    return Side(_square(device(system)), name, note)


def person_side(name: str, number: int, note: str) -> Side:
    """A person; ``number`` is the user's id."""
    return Side(arch(name, number), name, note)


def tailnet_side(name: str) -> Side:
    """What every door here opens in the end."""
    return Side(_square(glyph(Door.OPEN)), name, "the tailnet")


# Pages -------------------------------------------------------------------------------------------------------------


def _static_address(name: str) -> str:
    return at(f"{STATIC_PREFIX}{name}?v={_VERSIONS[name]}")


@functools.cache
def _environment() -> "Environment":
    # A tenth of a second that the first page may take, and the start of the server need not.
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415 - see above

    made = Environment(
        loader=PackageLoader("doorward.login", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"shown": shown, "code_marks": code_marks, "moment": moment}
    made.globals |= {
        "at": at,
        "finger": finger(),
        "glyph": glyph,
        "large_door": large_door,
        "static": _static_address,
        "Door": Door,
    }
    return made


def page(
    template: str,
    *,
    tailnet: str,
    door: Door,
    label: str,
    status: int = 200,
    refresh: int = 0,
    before: Side | None = None,
    behind: Side | None = None,
    script: str = "",
    headers: Mapping[str, str] | None = None,
    **values: Any,
) -> HTMLResponse:
    """A door page.

    Args:
        template: its file in ``templates/``, which extends ``frame.html``.
        tailnet: the tailnet's name, for the head of the page.
        door: how the door stands.
        label: what that means here, for those who do not see it: "waits for approval".
        status: the HTTP status.
        refresh: seconds after which the browser asks again; 0 for never.
        before: who or what stands before the door.
        behind: what it opens.
        script: what it does better with a script: ``passkey.js`` asks for a passkey, ``steady.js`` has its buttons wait.
        headers: more headers.
        values: what the template needs besides.
    """
    html = (
        _environment()
        .get_template(template)
        .render(
            tailnet=tailnet,
            door=door,
            label=label,
            refresh=refresh,
            before=before,
            behind=behind,
            script=script,
            **values,
        )
    )
    squeezed = re.sub(r"\n\s*", "\n", html)  # indentation in a template is for who reads the template
    policy = {"Content-Security-Policy": f"{PAGE_POLICY}; script-src 'self'"} if script else {}
    return HTMLResponse(squeezed, status, {**_HEADERS, **policy, **(headers or {})})


def refusal(
    error: DoorwardError,
    *,
    tailnet: str,
    door: Door = Door.SHUT,
    label: str = "",
    why: str = "",
    steps: Sequence[str] = (),
    refresh: int = 0,
    headers: Mapping[str, str] | None = None,
) -> HTMLResponse:
    """An error as a page: what happened, and what to do.

    Args:
        error: its message becomes the title, its cure the first thing to do.
        tailnet: as for ``page``.
        door: shut where there is no way in, barred where somebody known is refused.
        label: what that means here, if not "no way in" or "refused".
        why: the reason, in plain words.
        steps: what to do instead of the cure, in order; text between backticks is code.
        refresh: as for ``page``.
        headers: more headers.
    """
    more = {"Retry-After": str(error.retry_after)} if isinstance(error, RateExceeded) else {}
    return page(
        "refused.html",
        tailnet=tailnet,
        door=door,
        label=label or ("refused" if door is Door.BARRED else "no way in"),
        status=error.status,
        refresh=refresh,
        headers={**more, **(headers or {})},
        title=error.message[:1].upper() + error.message[1:],
        why=why,
        steps=tuple(steps) or ((error.cure,) if error.cure else ()),
        code=error.problem,
    )


def wants_html(request: Request) -> bool:
    """True for a browser: one that names HTML and does not like JSON better (RFC 9110 section 12.5.1)."""
    liked: dict[str, float] = {}
    for part in request.headers.get("accept", "").split(","):
        kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = next((piece[2:] for piece in parameters if piece.startswith("q=")), "1")
        try:
            liked[kind] = float(quality)
        except ValueError:
            continue
    html = liked.get("text/html", 0.0)
    return html > 0 and html >= liked.get("application/json", 0.0)


# Styles and picture ------------------------------------------------------------------------------------------------


def routes() -> list[Route]:
    """What the pages load. Every listener that serves a door page needs them."""
    return [Route(STATIC_PREFIX + "{name}", _static, methods=["GET"])]


async def _static(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _STATIC:
        return Response(status_code=404)
    tag = f'"{_VERSIONS[name]}"'
    current = request.query_params.get("v") == _VERSIONS[name]
    headers = {
        # An address with this version in it can never mean anything else.
        "Cache-Control": "public, max-age=31536000, immutable" if current else "no-cache",
        "ETag": tag,
        "X-Content-Type-Options": "nosniff",
    }
    if tag in (each.strip() for each in request.headers.get("if-none-match", "").split(",")):
        return Response(status_code=304, headers=headers)
    return Response(_FILES[name], headers=headers, media_type=_STATIC[name])
