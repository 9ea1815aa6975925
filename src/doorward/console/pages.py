"""The HTML of a page: what it loads, what it starts with, and the policy that it can load nothing else.

There is no script and no style in it, but for the data, which no browser runs: ``<script type="application/json" id="bootstrap">``.
"""

import re
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

import msgspec
from starlette.responses import HTMLResponse

from doorward.console.bundle import Needs

SCHEME_COOKIE = (
    "doorward-scheme"  # what the person chose; set by the page, so that no page is first drawn in the other
)
_ORIGIN = re.compile(r"wss?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_SCHEMES = frozenset({"light", "dark"})


class Title(NamedTuple):
    """What a page is called."""

    page: str
    tailnet: str


def content_policy(sockets: Sequence[str]) -> str:
    """What a page of the console may do: run, show and load what this origin serves, and open these WebSockets.

    Args:
        sockets: origins such as ``wss://relay.example.com``; ours must be among them, for browsers whose ``'self'`` means http alone.
    """
    # A relay's name comes from a map that others write: what is no origin adds nothing to the policy.
    sources = " ".join(("'self'", *(one for one in sockets if _ORIGIN.fullmatch(one))))
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self' data:; "
        f"connect-src {sources}; worker-src 'self'; manifest-src 'self'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'self'"
    )


def data(value: Any) -> str:
    """JSON that may stand inside a script element: nothing in it ends that, or begins a comment."""
    return msgspec.json.encode(value).replace(b"<", b"\\u003c").decode()


def page(
    title: Title,
    needs: Needs,
    *,
    base: str,
    bootstrap: Any,
    sockets: Sequence[str],
    scheme: str = "",
    plain: str = "",
) -> HTMLResponse:
    """A page of the console.

    Args:
        title: its name, and the tailnet's.
        needs: what of the bundle it loads.
        base: the path of the console, ending in a slash; everything it loads is below it.
        bootstrap: what it starts with; anything msgspec makes JSON of.
        sockets: as for ``content_policy``.
        scheme: ``light`` or ``dark``, if the person chose one; everything else means what the system says.
        plain: HTML for who runs no scripts; escaped already.
    """
    chosen = f' data-scheme="{scheme}"' if scheme in _SCHEMES else ""
    at = escape(base)
    head = [
        *(
            f'<link rel="preload" as="font" type="font/woff2" crossorigin href="{at}{escape(name)}">'
            for name in needs.fonts
        ),
        *(f'<link rel="stylesheet" href="{at}{escape(name)}">' for name in needs.styles),
        *(f'<link rel="modulepreload" href="{at}{escape(name)}">' for name in needs.modules),
        f'<script type="module" src="{at}{escape(needs.script)}"></script>',
    ]
    html = (
        f'<!doctype html>\n<html lang="en"{chosen}>\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1, viewport-fit=cover">\n'
        '<meta name="robots" content="noindex, nofollow">\n<meta name="color-scheme" content="light dark">\n'
        '<meta name="theme-color" media="(prefers-color-scheme: light)" content="#e9edea">\n'
        '<meta name="theme-color" media="(prefers-color-scheme: dark)" content="#0a0d0c">\n'
        f"<title>{escape(title.page)} · {escape(title.tailnet)}</title>\n"
        f'<link rel="icon" type="image/svg+xml" href="{at}_doorward/door.svg">\n'
        f"{chr(10).join(head)}\n</head>\n<body>\n"
        f'<div id="app"><noscript>{plain}</noscript></div>\n'
        f'<script type="application/json" id="bootstrap">{data(bootstrap)}</script>\n</body>\n</html>\n'
    )
    return HTMLResponse(
        html,
        headers={
            "Cache-Control": "no-store",
            "Content-Security-Policy": content_policy(sockets),
            "X-Frame-Options": "SAMEORIGIN",
        },
    )
