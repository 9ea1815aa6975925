"""Where an app may have people sent back to: RFC 8252, RFC 9700 section 2.1. Pure.

An address is compared as text, sign by sign, and nothing is redirected before it has been. The one exception is the port of a
loopback address, which a program on the person's own machine cannot know beforehand (RFC 8252 section 7.3).
"""

import re
from urllib.parse import SplitResult, urlsplit

from doorward.errors import BadInput

LONGEST = 1000  # characters
_LOOPBACK = frozenset({"127.0.0.1", "::1"})
_BAD_SCHEMES = frozenset(
    {
        "about",
        "blob",
        "data",
        "file",
        "filesystem",
        "ftp",
        "javascript",
        "vbscript",
        "view-source",
        "ws",
        "wss",
    }
)
# What a URI is written with (RFC 3986 section 2), without the quote that some programs end an attribute with.
_URI = re.compile(r"[A-Za-z0-9._~:/?\[\]@!$&()+,;=%-]+")
_PRIVATE = re.compile(r"[a-z][a-z0-9+-]*(\.[a-z0-9+-]+)+")  # com.example.app: a name that somebody owns
_PORT = re.compile(r"^(http://(?:127\.0\.0\.1|\[::1\]|localhost))(?::[0-9]{1,5})?(?=[/?]|$)")


def check_redirect(uri: str, *, public: bool) -> None:
    """Raise BadInput for an address that no app may name.

    Args:
        uri: as it will be compared.
        public: for an app without a secret, which alone may use schemes of its own.
    """
    if not uri or len(uri) > LONGEST or not _URI.fullmatch(uri):
        raise _bad(uri, "has characters that a redirect address may not have, is empty or too long")
    parts = _split(uri)
    if parts is None or "@" in parts.netloc:
        raise _bad(uri, "is no address, or names a user")
    if parts.scheme in _BAD_SCHEMES:
        raise _bad(uri, f"has the scheme {parts.scheme}, which runs or reads something else than a page")
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme == "http" and is_loopback(uri):
        return
    if parts.scheme == "http":
        raise _bad(uri, "is http: whoever is on the way could read the code")
    if public and _PRIVATE.fullmatch(parts.scheme):
        return
    raise _bad(uri, "is neither https nor http on a loopback address")


def is_loopback(uri: str) -> bool:
    """True for http on the person's own machine."""
    parts = _split(uri)
    return (
        parts is not None and parts.scheme == "http" and (parts.hostname or "") in {*_LOOPBACK, "localhost"}
    )


def is_local(uri: str) -> bool:
    """True where a program on the person's machine gets the answer; which one, nobody can tell."""
    return is_loopback(uri) or not uri.startswith("https:")


def allows(registered: str, asked: str) -> bool:
    """True if an app that registered one address may be answered at the other."""
    if registered == asked:
        return True
    if not _URI.fullmatch(asked):
        return False
    known, wanted = _PORT.match(registered), _PORT.match(asked)
    return (
        known is not None
        and wanted is not None
        and known[1] == wanted[1]
        and registered[known.end() :] == asked[wanted.end() :]
    )


def shown_host(uri: str) -> str:
    """Where an answer goes, for people: the host, with its port; the scheme where there is none."""
    parts = _split(uri)
    if parts is None:
        return ""
    if is_loopback(uri):
        return f"{parts.hostname} (a program on this device)"
    return parts.netloc or f"{parts.scheme}:"


def origin_of(uri: str) -> str:
    """The origin of an http or https address, for a content security policy; the scheme of any other."""
    parts = _split(uri)
    if parts is None:
        return ""
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else f"{parts.scheme}:"


def _split(uri: str) -> SplitResult | None:
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError:
        return None
    return parts


def _bad(uri: str, why: str) -> BadInput:
    return BadInput(
        f"the redirect address {uri[:100]!r} {why}",
        cure="Give the exact https address that the program's own guide names.",
    )
