import json
import re
from html.parser import HTMLParser

import pytest

from doorward.console.bundle import Needs
from doorward.console.pages import Title, content_policy, data, page

NEEDS = Needs("assets/a.js", ("assets/a.css",), ("assets/b.js",), ("assets/inter.woff2",))


class _Parts(HTMLParser):
    """Everything in a page that a content policy calls inline, and everything it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.inline: list[str] = []
        self.loaded: list[str] = []
        self.root: dict[str, str | None] = {}
        self._in = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = dict(attrs)
        if tag == "html":
            self.root = said
        self.inline += [name for name in said if name == "style" or name.startswith("on")]
        self.loaded += [str(said[name]) for name in ("src", "href") if name in said]
        if tag == "style" or (tag == "script" and "src" not in said):
            self.inline.append(f"{tag} {said.get('type', '')}")


def made(**changed: object) -> str:
    values = {"base": "/", "bootstrap": {"tailnet": "t"}, "sockets": ("wss://door.example",)} | changed
    return bytes(page(Title("Machines", "example.net"), NEEDS, **values).body).decode()  # type: ignore[arg-type]


def test_the_policy_is_exactly_this() -> None:
    assert content_policy(["wss://door.example", "wss://relay.example:8443"]) == (
        "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self' data:; "
        "connect-src 'self' wss://door.example wss://relay.example:8443; worker-src 'self'; manifest-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'self'"
    )


@pytest.mark.parametrize(
    "name", ["wss://a b", "wss://a; script-src *", "wss://*", "https://a", "wss://a/path", "wss://", "", "*"]
)
def test_what_is_no_origin_adds_nothing(name: str) -> None:
    assert content_policy([name, "wss://[fd7a::1]:8443"]) == content_policy(["wss://[fd7a::1]:8443"])


def test_nothing_is_inline_but_data() -> None:
    parts = _Parts(made())
    assert parts.inline == ["script application/json"]
    assert all(re.match(r"/(assets|_doorward)/", one) for one in parts.loaded)
    assert len(parts.loaded) == 5


def test_everything_stands_under_the_path_of_the_console() -> None:
    assert all(one.startswith("/admin/console/") for one in _Parts(made(base="/admin/console/")).loaded)


@pytest.mark.parametrize(
    "text", ["</script><script>alert(1)</script>", "<!--<script>", "\u2028", "&amp;", '"', "\\u003c"]
)
def test_data_cannot_leave_its_element(text: str) -> None:
    assert "<" not in data({"name": text})
    assert json.loads(data({"name": text})) == {"name": text}


def test_names_are_text() -> None:
    shown = bytes(
        page(Title("<b>", '"x'), NEEDS, base='/"<', bootstrap=None, sockets=()).body,
    ).decode()
    assert "<title>&lt;b&gt; · &quot;x</title>" in shown
    assert 'href="/&quot;&lt;assets/a.css"' in shown


@pytest.mark.parametrize(
    ("chosen", "root"),
    [("", None), ("dark", "dark"), ("light", "light"), ('dark" onload="x', None)],
)
def test_what_the_person_chose_counts_from_the_first_moment(chosen: str, root: str | None) -> None:
    assert _Parts(made(scheme=chosen)).root.get("data-scheme") == root
