"""Debian's Chromium as people use it: with passkeys (a virtual authenticator presses them), at the door or through a device.

Through a device it is known by its tailnet connection; its proxy is that device's own.
"""

import base64
import contextlib
import hashlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from urllib.parse import urljoin
from weakref import WeakKeyDictionary

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from playwright.async_api import BrowserContext, CDPSession, Page, async_playwright
from tests.support.clients import StockClient
from tests.support.machines import knows_door
from tests.support.npm import installed
from tests.support.programs import require
from tests.support.server import Server
from tests.support.waiting import eventually

SLOW = 30_000  # milliseconds that something may take on a busy machine
STARTS = 120_000  # and that a browser takes to start, at first from a slow disk

_HERE = Path(__file__).parent
# A page that looks again by itself may, if it can be told not to (WCAG 2.2.1): axe does not see that, so it is looked at below.
_RULES = """{
    runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    rules: {"meta-refresh": {enabled: false}},
}"""
_AUTHENTICATOR = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}

_authenticators: WeakKeyDictionary[Page, tuple[CDPSession, str]] = WeakKeyDictionary()


def pin_of(server: Server) -> str:
    """What Chromium is told to trust: the door's own key, and nothing else beside its own authorities."""
    return pin((server.folder / "tls" / "door.pem").read_bytes())


def pin(certificate: bytes) -> str:
    """The key of a certificate (PEM), as Chromium is told to trust it."""
    leaf = x509.load_pem_x509_certificate(certificate)
    public = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(public).digest()).decode()


@contextlib.asynccontextmanager
async def chromium(
    server: Server,
    folder: Path,
    *,
    through: StockClient | None = None,
    dark: bool = False,
    phone: bool = False,
    sites: Mapping[str, tuple[int, bytes]] | None = None,
    trusting: bytes = b"",
) -> AsyncIterator[Page]:
    """A browser with a profile and an authenticator of its own; its first page.

    Args:
        server: whose door it trusts.
        folder: for the profile.
        through: the device it runs on, which has joined; None for a machine outside the tailnet.
        dark: what the person prefers.
        phone: a small screen.
        sites: for the host of an https address, and its port if that is not 443, the port of this machine where it is served, and its
            certificate (PEM). There it goes by itself, not through the device.
        trusting: the door's certificate (PEM), where it is a file of the operator's.
    """
    sites = sites or {}
    pins = {
        pin(trusting) if trusting else pin_of(server),
        *(pin(certificate) for _, certificate in sites.values()),
    }
    options = [
        "--no-sandbox",
        "--disable-dev-shm-usage",
        f"--ignore-certificate-errors-spki-list={','.join(pins)}",
    ]
    if sites:
        served = ",".join(
            f"MAP {host if ':' in host else f'{host}:443'} 127.0.0.1:{port}"
            for host, (port, _) in sites.items()
        )
        options += [f"--host-resolver-rules={served}", f"--proxy-bypass-list={';'.join(sites)}"]
    if through is not None:
        await knows_door(through)
        options.append(f"--proxy-server=socks5://localhost:{through.socks_port}")
    async with async_playwright() as playwright:
        context = await playwright.chromium.launch_persistent_context(
            str(folder),
            executable_path=str(require("chromium")),
            args=options,
            timeout=STARTS,
            color_scheme="dark" if dark else "light",
            viewport={"width": 390, "height": 844} if phone else {"width": 1280, "height": 800},
        )
        try:
            context.set_default_timeout(SLOW)
            page = context.pages[0]
            await give_authenticator(context, page)
            yield page
        finally:
            await context.close()


async def is_for_everybody(page: Page) -> None:
    """Fail for what axe finds wrong with a page, in light and in dark: contrast, names, labels, order (WCAG 2.2 AA)."""
    axe = (installed(_HERE / "axe") / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
    if await page.locator("meta[http-equiv=refresh]").count():
        await stays(page)
    for scheme in ("light", "dark"):
        # Colours on their way from one to another are none, and what fades in is not there yet.
        await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        # Not as a script of the page, whose policy takes none but its own.
        await page.evaluate(axe)
        found = await page.evaluate(f"axe.run(document, {_RULES})")
        wrong = [
            f"{scheme}: {one['id']}: {one['help']}: {[node['html'] for node in one['nodes']]}"
            for one in found["violations"]
        ]
        assert wrong == [], f"{page.url}: {wrong}"


async def stays(page: Page) -> None:
    """Have a page that looks again by itself stay as it is: else it may go in the middle of what is done with it."""
    still = await page.locator('a[href="?refresh=no"]').get_attribute("href")
    # By its address: a press comes too late for a page that looks again in the same moment.
    await page.goto(urljoin(page.url, still))
    await page.wait_for_selector("text=This page stays as it is")


async def fits(page: Page, what: str, width: int, *, within: str = "document.documentElement") -> None:
    """Wait until nothing of a page is wider than it is, as it soon is not: a page of another size is first drawn anew.

    Args:
        page: which has been made that wide.
        what: it is, for who reads that it does not fit.
        width: of the page, in pixels.
        within: an expression of the elements that have to be as wide as what is in them, with commas.
    """
    wide = f"Math.max(Math.abs(innerWidth - {width}), ...[{within}].map((one) => one.scrollWidth - one.clientWidth))"

    async def is_so() -> bool:
        return bool(await page.evaluate(wide) <= 0)

    try:
        await eventually(is_so, SLOW / 1000)
    except TimeoutError:
        raise AssertionError(
            f"{what} does not fit in {width}: {await page.evaluate(wide)} too wide"
        ) from None


async def give_authenticator(context: BrowserContext, page: Page) -> None:
    """Have a page's passkeys made and used as a laptop with a fingerprint reader would, whose person always agrees."""
    session = await context.new_cdp_session(page)
    await session.send("WebAuthn.enable")
    made = await session.send("WebAuthn.addVirtualAuthenticator", {"options": _AUTHENTICATOR})
    _authenticators[page] = session, made["authenticatorId"]


async def share_passkeys(page: Page, window: Page) -> None:
    """Have a window that a page has opened use the page's passkeys: in Chromium each has a virtual authenticator of its own."""
    await give_authenticator(page.context, window)
    (here, one), (there, other) = _authenticators[page], _authenticators[window]
    kept = await here.send("WebAuthn.getCredentials", {"authenticatorId": one})
    for credential in kept["credentials"]:
        await there.send("WebAuthn.addCredential", {"authenticatorId": other, "credential": credential})
