"""A person's browser on a device of the tailnet, as far as apps are concerned: it goes where it is sent, and presses what it is told."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl, urljoin, urlsplit

import httpx2

_MOST_STEPS = 20  # from the first address to the last
_NAVIGATION = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Accept": "text/html"}


@dataclass(frozen=True)
class Arrived:
    """Where the browser ended.

    Attributes:
        url: the address, with its query.
        status: of the page there; 0 where nobody listens and the address alone was wanted.
        text: the page.
        answer: what the app was told, by query or by form.
        headers: of the page there.
        pressed: the buttons on the way.
    """

    url: str
    status: int
    text: str
    answer: dict[str, str]
    pressed: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class _Form:
    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)
    buttons: list[tuple[str, str]] = field(default_factory=list)


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[_Form] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.found.append(_Form(said.get("action", ""), said.get("method", "get").lower()))
            self._inside = True
        elif self._inside and tag == "button":
            self.found[-1].buttons.append((said.get("name", ""), said.get("value", "")))
        elif self._inside and tag == "input" and said.get("name"):
            self.found[-1].fields[said["name"]] = said.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "form"


class _Behind(httpx2.AsyncBaseTransport):
    """An app's https address, served by a plain port of this machine: what a proxy that ends TLS does."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._inner = httpx2.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Hand it on."""
        headers = [
            *request.headers.multi_items(),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Port", "443"),
        ]
        url = request.url.copy_with(scheme="http", host="127.0.0.1", port=self._port)
        passed = httpx2.Request(
            request.method,
            url,
            headers=[*headers, ("X-Forwarded-Host", request.url.host)],
            content=await request.aread(),
        )
        return await self._inner.handle_async_request(passed)

    async def aclose(self) -> None:
        await self._inner.aclose()


class Visitor:
    """A browser with its cookies. ``async with`` closes it.

    Args:
        authority: whose certificates it trusts, and nothing else.
        proxy: of the device that it runs on; empty for a machine outside the tailnet.
        apps: for the host of an app's https address the port of this machine where it is served.
    """

    def __init__(self, authority: Path, proxy: str, apps: Mapping[str, int] | None = None) -> None:
        mounts = {f"all://{host}": _Behind(port) for host, port in (apps or {}).items()}
        self._client = httpx2.AsyncClient(
            verify=ssl.create_default_context(cafile=str(authority)),
            proxy=proxy or None,
            mounts={**mounts, "all://127.0.0.1": httpx2.AsyncHTTPTransport()},
            timeout=30,
            trust_env=False,
        )
        self._served = set(apps or ())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def fetch(self, method: str, url: str, **headers: str) -> httpx2.Response:
        """One request with the browser's cookies, and no step further."""
        return await self._client.request(method, url, headers=headers)

    async def send(
        self, url: str, form: Mapping[str, str], login: tuple[str, str] | None = None
    ) -> httpx2.Response:
        """A form of a program's: with its name and secret, and without what browsers add."""
        return await self._client.post(url, data=dict(form), auth=login or httpx2.USE_CLIENT_DEFAULT)

    async def go(self, url: str, *, ends_at: str = "", press: str = "") -> Arrived:
        """Go to ``url``, follow redirects, send forms that send themselves, and answer the page that asks.

        Args:
            url: where to.
            ends_at: an address of an app where nobody listens; to be sent there is the end.
            press: what the page that asks is told (``yes``, ``once``, ``no``); without it that page is the end.
        """
        pressed: list[str] = []
        method, data, site = "GET", None, "none"
        for _ in range(_MOST_STEPS):
            if ends_at and url.partition("?")[0] == ends_at:
                told = dict(parse_qsl(urlsplit(url).query, keep_blank_values=True)) if data is None else data
                return Arrived(url, 0, "", told, tuple(pressed))
            origin = {"Origin": f"https://{urlsplit(url).netloc}"} if site == "same-origin" else {}
            sent = {**_NAVIGATION, "Sec-Fetch-Site": site, **origin}
            answer = await self._client.request(method, url, headers=sent, data=data)
            refresh = answer.headers.get("refresh", "").partition("url=")[2]
            if location := answer.headers.get("location") or refresh:
                url, method, data, site = urljoin(url, location), "GET", None, "cross-site"
                continue
            form, button = _next(answer.text, press)
            if form is None:
                told = dict(parse_qsl(urlsplit(url).query))
                return Arrived(url, answer.status_code, answer.text, told, tuple(pressed), answer.headers)
            if button is not None:
                pressed.append(button[1])
            before, url = url, urljoin(url, form.action or url)
            method, data = "POST", {**form.fields, **dict([button] if button else [])}
            site = "same-origin" if urlsplit(before).netloc == urlsplit(url).netloc else "cross-site"
        raise AssertionError(f"the browser is sent on and on, now to {url.partition('?')[0]}")


def _next(page: str, press: str) -> tuple[_Form | None, tuple[str, str] | None]:
    """The form that is sent now: one that sends itself, or the one with the button to press."""
    reader = _Forms()
    reader.feed(page)
    if ".submit()" in page and reader.found:
        return reader.found[0], None
    for form in reader.found:
        for button in form.buttons:
            if press and button == ("answer", press):
                return form, button
    return None, None
