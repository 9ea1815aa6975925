"""What a page of somebody else tries in a real browser on a device of the tailnet, whose person would be signed in silently.

The page is served from this machine, so the browser's own rules about private networks (Local Network Access) are no help here, and once
under a name of the tailnet's own domain: to the browser that is the same site as the door, and cookies go along.
"""

import json
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from playwright.async_api import Page, Request
from tests.interop.test_apps import ask_token
from tests.interop.test_door import ask_door
from tests.support.chromium import chromium
from tests.support.machines import machines
from tests.support.relay import make_leaf
from tests.support.server import Server
from tests.support.waiting import until
from tests.support.website import Web, ok, web

from doorward.issuer.desk import CODE

pytestmark = [pytest.mark.interop, pytest.mark.timeout(180)]

LATE = 40  # seconds in which a browser has done something on a busy machine
WIKI = "https://wiki.example.com/cb"
EVIL = "https://evil.example.net"
NEIGHBOUR = "https://evil.tailnet.internal"  # a device of the tailnet whose owner is the attacker
TRAP = "https://evil.example.net/cb"
# The attacker has the challenge made, and so knows what belongs to it (RFC 7636 appendix B).
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"

# Each has the browser ask for an address, in all the ways that a page has without being a whole page there.
_ATTEMPTS = {
    "frame": """(url) => { const it = document.createElement("iframe"); it.src = url; document.body.append(it) }""",
    "sandbox": """(url) => { const it = document.createElement("iframe");
        it.sandbox = "allow-scripts allow-forms"; it.src = url; document.body.append(it) }""",
    "object": """(url) => { const it = document.createElement("object"); it.type = "text/html";
        it.data = url; document.body.append(it) }""",
    "embed": """(url) => { const it = document.createElement("embed"); it.type = "text/html";
        it.src = url; document.body.append(it) }""",
    "quiet": """(url) => { fetch(url, { mode: "no-cors", credentials: "include" }).catch(() => 0) }""",
    "open": """(url) => { fetch(url, { credentials: "include" }).catch(() => 0) }""",
    "posted": """(url) => { fetch(url, { method: "POST", mode: "no-cors", credentials: "include",
        body: new URLSearchParams(new URL(url).search) }).catch(() => 0) }""",
    "beacon": """(url) => { navigator.sendBeacon(url, new URLSearchParams(new URL(url).search)) }""",
    "image": """(url) => { new Image().src = url }""",
    "script": """(url) => { const it = document.createElement("script"); it.src = url; document.body.append(it) }""",
    "module": """(url) => { import(url).catch(() => 0) }""",
    "style": """(url) => { const it = document.createElement("link"); it.rel = "stylesheet"; it.href = url;
        document.head.append(it) }""",
    "video": """(url) => { const it = document.createElement("video"); it.src = url; document.body.append(it) }""",
    "ahead": """(url) => { const it = document.createElement("link"); it.rel = "prefetch"; it.href = url;
        document.head.append(it) }""",
    "events": """(url) => { const it = new EventSource(url, { withCredentials: true });
        it.onerror = () => it.close() }""",
    "get": """(url) => window.sendForm("get", url, "trap-get")""",
    "post": """(url) => window.sendForm("post", url, "trap-post")""",
}
# A form that sends itself, into a frame of this name or as the whole page.
_FORMS = """<!doctype html><title>a page</title><body><script>
window.sendForm = (method, url, into, more) => {
    if (into !== "_self") {
        // A frame of its own each time: a second form for the same one takes the place of the first, which then is never sent.
        into += document.querySelectorAll("iframe").length
        const frame = document.createElement("iframe"); frame.name = into; document.body.append(frame) }
    const form = document.createElement("form"); form.method = method; form.action = url; form.target = into;
    const fields = [...new URL(url).searchParams, ...Object.entries(more || {})];
    for (const [name, value] of fields) {
        const field = document.createElement("input"); field.name = name; field.value = value; form.append(field) }
    document.body.append(form); form.submit() }
</script>"""
# What stands behind a button of ours, by hand: who may be asked right now, and yes.
_ANSWERS = (
    "/authorize/answer",
    "/authorize/elsewhere",
    "/device",
    "/device/answer",
    "/end_session/answer",
    "/signout",
    "/register",
    "/api/v1/apps",
)

_REFUSED = {"401", "403", "404", "405", "failed"}


def _reply(target: str, _headers: dict[str, str]) -> bytes | None:
    return ok(_FORMS.encode() if target == "/" else b"<title>app</title>", "content-type: text/html")


class _Watched:
    """What came of each thing that the browser asked the door for, by the word in its address (``state``)."""

    def __init__(self, page: Page, issuer: str) -> None:
        self.over: dict[str, set[str]] = {}
        self._issuer = issuer
        page.context.on("response", lambda one: self._note(one.request, str(one.status)))
        page.context.on("requestfailed", lambda one: self._note(one, "failed"))

    def _note(self, request: Request, outcome: str) -> None:
        if request.url.startswith(self._issuer):
            for word in (f"{request.url}&{request.post_data or ''}").replace("?", "&").split("&"):
                if word.startswith("state="):
                    self.over.setdefault(word.removeprefix("state="), set()).add(outcome)

    async def all_over(self, words: set[str]) -> None:
        """Wait until the browser is done with all of them, whatever that was."""
        await until(lambda: self.over.keys() >= words, LATE)


def _url(app: dict[str, Any], redirect: str, **more: str) -> str:
    asked = {
        "client_id": app["client_id"],
        "redirect_uri": redirect,
        "response_type": "code",
        "scope": "openid profile",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
    }
    return f"{app['issuer']}/authorize?{urlencode(asked | more)}"


async def _signed_in(server: Server) -> int:
    """How often somebody was, as the audit log has it: with each code goes a line, in one transaction."""
    return (await server.run("audit", "list", "--json")).stdout.count('"app.signin"')


async def _registered(server: Server) -> int:
    return len(await server.json("apps", "list"))


def _heard(site: Web, host: str) -> list[str]:
    """What the site of a host was asked for, but for its first page and the browser's own."""
    asked = [head.split()[1] for head, headers, _ in site.seen if headers["host"] == urlsplit(host).netloc]
    return [one for one in asked if one not in {"/", "/favicon.ico"}]


def _tells_no_code(site: Web) -> bool:
    return not any(CODE in f"{head}{headers}{body!r}" for head, headers, body in site.seen)


async def test_t4_another_s_page_gets_no_code_and_learns_of_nobody(server: Server, tmp_path: Path) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf = make_leaf()
    (tmp_path / "site.pem").write_bytes(leaf.pem + leaf.key_pem)
    tls.load_cert_chain(tmp_path / "site.pem")
    async with machines(server, "laptop") as (laptop,), web(_reply, tls=tls) as site:
        await server.own_node()
        # Programs of the person may register apps, so that nothing but how it asks keeps a page from it.
        await server.set_policy(
            '{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}, '
            '{"src": ["*"], "dst": ["*"], "app": {"doorward.dev/cap/register-apps": [{}]}}]}'
        )
        made = await server.json("apps", "create", "wiki", "--redirect", WIKI)
        wiki = made["app"]
        said = {"redirect_uris": [TRAP], "client_name": "Trap", "token_endpoint_auth_method": "none"}
        words = ("--json", json.dumps(said))
        registered = await ask_door(server, laptop, "/register", *words)
        assert registered.status == 201, registered.text
        trap = {"issuer": wiki["issuer"], "client_id": registered.json()["client_id"]}
        apps = await _registered(server)
        hosts = [urlsplit(one).netloc for one in (WIKI, EVIL, NEIGHBOUR)]
        sites = dict.fromkeys(hosts, (site.port, leaf.pem))
        async with chromium(server, tmp_path / "profile", through=laptop, sites=sites) as page:
            watched = _Watched(page, wiki["issuer"])
            for place in (EVIL, NEIGHBOUR):
                await page.goto(f"{place}/")
                await _try_hidden(page, watched, urlsplit(place).netloc, wiki, trap)
            assert await _signed_in(server) == 0
            assert await _registered(server) == apps
            assert _heard(site, WIKI) == _heard(site, EVIL) == _heard(site, NEIGHBOUR) == []
            for place in (EVIL, NEIGHBOUR):
                await _try_openly(page, site, place, wiki, trap)
            assert await _signed_in(server) == 0
            assert _heard(site, EVIL) == _heard(site, NEIGHBOUR) == []
            code = await _sign_in_by_force(page, site, wiki)
            assert await _signed_in(server) == 1
            assert _tells_no_code(site) is False  # the app was told; nobody else was:
            assert _heard(site, EVIL) == _heard(site, NEIGHBOUR) == []
        # T2: the app does not take that code for an answer to what it asked itself, since it has another verifier.
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": WIKI}
        answer = await ask_token(server, laptop, made, **form, code_verifier="v" * 43)
        assert answer.json()["error"] == "invalid_grant"


async def _try_hidden(
    page: Page, watched: _Watched, name: str, wiki: dict[str, Any], trap: dict[str, Any]
) -> None:
    """T4, T1, T6: all that a page does without going anywhere."""
    words: set[str] = set()
    requests = [_url(wiki, WIKI), _url(wiki, WIKI, prompt="none"), _url(trap, TRAP)]
    # No more than one device may ask for at a time: what is told 429 shows nothing.
    for number, url in enumerate(requests if name in EVIL else requests[:1]):
        for way, attempt in _ATTEMPTS.items():
            word = f"{name}-{number}-{way}"
            words.add(word)
            await page.evaluate(attempt, f"{url}&state={word}")
    for path in (*_ANSWERS, "/end_session"):
        word = f"{name}-{path.replace('/', '.')}"
        words |= {f"{word}-form", f"{word}-fetch"}
        url = f"{wiki['issuer']}{path}?asking=1&answer=yes&user_code=BCDF-GHJK&state={word}"
        await page.evaluate("([url, into]) => window.sendForm('post', url, into)", [f"{url}-form", word])
        await page.evaluate(_ATTEMPTS["posted"], f"{url}-fetch")
    # Registering, with what a page may say without being asked first, and with what takes a question (CORS).
    told = json.dumps({"redirect_uris": [TRAP]})
    for kind, mode in (("text/plain", "no-cors"), ("application/json", "cors")):
        outcome = await page.evaluate(
            """([url, body, type, mode]) => fetch(url, { method: "POST", mode, credentials: "include", body,
                headers: { "Content-Type": type } }).then((one) => one.status, () => "blocked")""",
            [f"{wiki['issuer']}/register", told, kind, mode],
        )
        assert outcome in {"blocked", 0, 401}, outcome
    # To load something ahead is a hint, which a busy browser may leave.
    await watched.all_over({word for word in words if not word.endswith("-ahead")})
    # Each was refused where it came in: a page, no redirect, nothing that goes on.
    other = {word: seen for word in words if not (seen := watched.over.get(word, set())) <= _REFUSED}
    assert other == {}
    assert all(one.url == page.url or "wiki" not in one.url for one in page.frames)


async def _try_openly(page: Page, site: Web, place: str, wiki: dict[str, Any], trap: dict[str, Any]) -> None:
    """T1, T3, T5: the whole page goes there, or a window that the page has opened."""
    asking: str | None = ""
    # The attacker's app: the person is asked, and nothing is told before they answer. Nobody can be asked in silence, or found out about.
    for prompt, seen in (({}, "text=Sign in to"), ({"prompt": "none"}, "text=Trap")):
        await page.goto(f"{place}/")
        await page.evaluate("(url) => { location.href = url }", _url(trap, TRAP, **prompt))
        await page.wait_for_selector(seen)
        assert page.url.startswith(wiki["issuer"])
        if not prompt:
            asking = await page.locator("input[name=asking]").first.get_attribute("value")
    # The app that signs people in silently, and an address of the attacker's: nobody is sent there, not even with an error.
    for redirect in (TRAP, f"{WIKI}/../evil", f"{WIKI}@evil.example.net/", f"{place}/cb?{WIKI}"):
        await page.goto(f"{place}/")
        async with page.expect_response(lambda one: "/authorize?" in one.url) as answered:
            await page.evaluate("(url) => { location.href = url }", _url(wiki, redirect, state="s"))
        assert (await answered.value).status == 400
        await page.wait_for_url(f"{wiki['issuer']}/authorize?**")
    # That question stands open in this browser, its cookie is here, and the attacker has guessed its number.
    await page.goto(f"{place}/")
    async with page.expect_response(lambda one: "/authorize/answer" in one.url) as answered:
        await page.evaluate(
            "([url, asking]) => window.sendForm('post', url, '_self', { asking, answer: 'yes' })",
            [f"{wiki['issuer']}/authorize/answer", asking],
        )
    assert (await answered.value).status == 403
    await page.wait_for_url(f"{wiki['issuer']}/authorize/answer")
    # A window that the page has opened and holds on to: our page breaks away from it.
    await page.goto(f"{place}/")
    async with page.context.expect_page() as opened:
        await page.evaluate("(url) => { window.held = window.open(url) }", _url(trap, TRAP))
    window = await opened.value
    await window.wait_for_selector("text=Sign in to")
    await page.wait_for_function("window.held.closed")
    assert await window.evaluate("window.opener") is None
    assert _tells_no_code(site)
    await window.close()


async def _sign_in_by_force(page: Page, site: Web, wiki: dict[str, Any]) -> str:
    """T2: a page can have a person signed in to an app of theirs. The code goes to that app alone, and the page sees nothing of it."""
    await page.goto(f"{EVIL}/")
    async with page.context.expect_page() as opened:
        await page.evaluate("(url) => { window.held = window.open(url) }", _url(wiki, WIKI))
    window = await opened.value
    await window.wait_for_url(f"{WIKI}?**")
    for secret in ("location.href", "document.title", "location.search"):
        seen = await page.evaluate(
            f"() => {{ try {{ return window.held.{secret} }} catch (error) {{ return error.name }} }}"
        )
        assert seen == "SecurityError"
    (told,) = _heard(site, WIKI)
    assert f"code={CODE}" in told
    answer = dict(one.split("=") for one in urlsplit(told).query.split("&"))
    await window.close()
    return answer["code"]


async def test_t5_a_click_that_was_meant_for_another_window_is_no_yes(server: Server, tmp_path: Path) -> None:
    async with machines(server, "laptop") as (laptop,):
        await server.own_node()
        made = await server.json("apps", "create", "wiki", "--redirect", WIKI, "--ask")
        async with chromium(server, tmp_path, through=laptop) as page:
            # The browser's clock stands still, but for what is said below.
            await page.clock.install(time=1_000)
            await page.clock.pause_at(2_000)
            await page.goto(_url(made["app"], WIKI))
            buttons = page.locator("form.ways button")
            await page.wait_for_selector("form.ways button:disabled")
            assert await buttons.count() == 3
            assert await page.locator("form.ways button:disabled").count() == 3
            await page.clock.run_for(600)
            await page.wait_for_selector("button.enter:enabled")
            # The page is seen again, under the pointer, in the middle of a double click.
            await page.evaluate("() => { window.dispatchEvent(new Event('focus')) }")
            place = await page.locator("button.enter").bounding_box()
            assert place is not None
            await page.mouse.click(place["x"] + 20, place["y"] + 10)
            await page.clock.run_for(400)
            assert await page.locator("form.ways button:disabled").count() == 3
            assert await _signed_in(server) == 0
            await page.clock.run_for(200)
            async with page.expect_request(lambda one: one.url.startswith(WIKI)) as seen:
                await page.click("button.enter")
            assert f"code={CODE}" in (await seen.value).url
            assert await _signed_in(server) == 1
