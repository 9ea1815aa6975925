"""The frame of every door page: what it promises to browsers, and what a hostile text can do to it, which is nothing."""

import re
import unicodedata
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from tests.support.markup import Markup

from doorward.asgi import PAGE_POLICY, RateExceeded
from doorward.errors import NotFound, NotPermitted
from doorward.login import pages
from doorward.login.pages import Door, ago, duration, moment, shown, wants_html

NOON = datetime(2026, 3, 2, 12, 0, 0, tzinfo=UTC)
CSS = pages._FILES["door.css"].decode()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def browser() -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        transport=httpx2.ASGITransport(Starlette(routes=pages.routes())), base_url="http://door.test"
    )


def read(markup: str) -> str:
    """What a person sees of it."""
    return unescape(re.sub(r"<[^>]*>", "", markup))


# Text from outside


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("laptop", "laptop"),
        ("<b>&\"'", "<b>&\"'"),
        ("photo\u202egnp.exe", "photoU+202Egnp.exe"),
        ("a\x00b\x1b[2J\n", "aU+0000bU+001B[2JU+000A"),
        ("a\u200bb\u00adc\ufeff", "aU+200BbU+00ADcU+FEFF"),
        ("\u3164\u2800", "U+3164U+2800"),
        ("two\u00a0words", "twoU+00A0words"),
        ("\ud800", "U+D800"),
        ("Zoë \u05d0\u05d1 机", "Zoë \u05d0\u05d1 机"),
    ],
)
def test_a_text_looks_like_what_it_is(text: str, seen: str) -> None:
    assert read(shown(text)) == seen


@given(st.text(max_size=300))
def test_no_text_breaks_out(text: str) -> None:
    markup = str(shown(text, 200))
    Markup(markup)
    assert markup.startswith("<bdi>")
    assert markup.count("<bdi>") == markup.count("</bdi>") == 1
    assert not [each for each in markup if unicodedata.category(each) in {"Cc", "Cf", "Cs", "Zl", "Zp"}]
    assert set(re.findall(r"<[^>]*>", markup)) <= {
        "<bdi>",
        "</bdi>",
        '<span class="unseen">',
        '<span class="cut">',
        "</span>",
    }


def test_a_long_text_ends() -> None:
    assert read(shown("A" * 10_240, 63)) == "A" * 63 + "… 10,240 characters in all"
    assert read(shown("A" * 10_240, 63, note=False)) == "A" * 63 + "…"
    assert read(shown("A" * 63, 63)) == "A" * 63


def test_code_in_a_sentence_is_marked_and_escaped() -> None:
    assert pages.code_marks("Run `a <b>` & see") == "Run <code>a &lt;b&gt;</code> &amp; see"


# Time


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 seconds"),
        (1, "1 second"),
        (59.9, "59 seconds"),
        (60, "1 minute"),
        (3599, "59 minutes"),
        (7200, "2 hours"),
        (86400, "1 day"),
    ],
)
def test_durations_are_in_their_largest_unit(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_how_long_ago() -> None:
    assert ago(NOON, NOON + timedelta(seconds=9)) == "a moment ago"
    assert ago(NOON, NOON + timedelta(seconds=42)) == "42 seconds ago"
    assert ago(NOON, NOON - timedelta(hours=1)) == "a moment ago"


def test_a_moment_names_its_zone() -> None:
    assert moment(NOON) == '<time datetime="2026-03-02T12:00:00+00:00">12:00 UTC</time>'


# Pages


def refusal(**fields: Any) -> Any:
    error = fields.pop("error", NotFound("there is <nothing>", cure="Run `this`."))
    return pages.refusal(error, tailnet="example.net", **fields)


def test_a_page_is_kept_by_nobody_and_named_to_nobody() -> None:
    response = refusal()
    assert response.status_code == 404
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["x-robots-tag"] == "noindex, nofollow"
    assert response.headers["content-security-policy"] == PAGE_POLICY


def test_a_refusal_says_what_happened_why_and_what_to_do() -> None:
    page = Markup(refusal(why="Because.").body.decode())
    assert "There is <nothing>" in page.text
    assert "Because." in page.text
    assert "Run this." in page.text
    assert "not-found" in page.text
    assert page.all("svg")[1]["aria-label"] == "no way in"
    assert "http-equiv" not in refusal().body.decode()


def test_a_barred_door_has_its_own_words() -> None:
    page = Markup(refusal(error=NotPermitted("no"), door=Door.BARRED).body.decode())
    assert page.all("body") == [{"class": "barred"}]
    assert "Refused" in page.text


def test_a_rate_limit_says_when_to_come_back() -> None:
    response = refusal(error=RateExceeded(2.2), refresh=7)
    assert response.status_code == 429
    assert response.headers["retry-after"] == "3"
    assert {"http-equiv": "refresh", "content": "7"} in Markup(response.body.decode()).all("meta")


def test_the_frame_loads_nothing_but_our_own_files_under_their_version() -> None:
    page = Markup(refusal().body.decode())
    addresses = {each["href"] for each in page.all("link")}
    assert addresses == {
        f"/_doorward/door.css?v={pages._VERSIONS['door.css']}",
        f"/_doorward/door.svg?v={pages._VERSIONS['door.svg']}",
    }
    assert not [attributes for _, attributes in page.tags if "src" in attributes]


def test_a_person_keeps_a_colour_and_gets_a_letter() -> None:
    assert pages.arch("alice", 7) == pages.arch("alice", 7)
    assert ">A</span>" in pages.arch("alice", 7)
    assert ">?</span>" in pages.arch("<>", 7)
    hues = {str(pages.arch("x", number)).partition("hue")[2][0] for number in range(60)}
    assert hues == set("01234")


def test_a_missing_value_is_an_error_and_not_an_empty_place() -> None:
    with pytest.raises(Exception, match="is undefined"):
        pages.page("whoami.html", tailnet="example.net", door=Door.OPEN, label="inside")


# Colours: every class of a page is one of the stylesheet's; every text colour is readable in both schemes.


def test_the_stylesheet_names_each_colour_for_both_schemes() -> None:
    names = set(re.findall(r"(--[\w-]+): light-dark\(", CSS))
    used = set(re.findall(r"var\((--[\w-]+)\)", CSS))
    assert used <= names | {"--w", "--state", "--state-f", "--mono"}
    assert names <= used


def luminance(colour: str) -> float:
    digits = colour.lstrip("#")
    digits = "".join(each * 2 for each in digits) if len(digits) == 3 else digits
    channels = [int(digits[start : start + 2], 16) / 255 for start in (0, 2, 4)]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's contrast ratio."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("ink", ["ink", "ink2", "ink3", "link", "open", "ajar", "shut"])
@pytest.mark.parametrize("ground", ["wall", "room", "sunken"])
def test_text_is_readable(ink: str, ground: str) -> None:
    tokens = dict(re.findall(r"--([\w-]+): light-dark\((#\w+, #\w+)\)", CSS))
    for text, back in zip(tokens[ink].split(", "), tokens[ground].split(", "), strict=True):
        assert contrast(text, back) >= 4.5


def test_letters_on_arches_are_readable() -> None:
    pairs = re.findall(r"\.hue\d .*light-dark\((#\w+), (#\w+)\);.*light-dark\((#\w+), (#\w+)\)", CSS)
    assert len(pairs) == 5
    for light, dark, on_light, on_dark in pairs:
        assert contrast(light, on_light) >= 4.5
        assert contrast(dark, on_dark) >= 4.5


# What a page loads


async def test_a_file_under_its_version_is_kept_for_ever() -> None:
    async with browser() as client:
        answer = await client.get(pages._static_address("door.css"))
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/css; charset=utf-8"
        assert "immutable" in answer.headers["cache-control"]
        again = await client.get(
            pages._static_address("door.css"), headers={"If-None-Match": answer.headers["etag"]}
        )
        assert again.status_code == 304
        assert again.content == b""


@pytest.mark.parametrize("query", ["", "?v=0123456789ab"])
async def test_another_version_is_asked_for_again(query: str) -> None:
    async with browser() as client:
        answer = await client.get(f"/_doorward/door.svg{query}")
    assert answer.headers["content-type"] == "image/svg+xml"
    assert answer.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("name", ["frame.html", "..%2Fpages.py", "door.css%00", ""])
async def test_nothing_else_is_served(name: str) -> None:
    async with browser() as client:
        assert (await client.get(f"/_doorward/{name}")).status_code == 404


# Who likes HTML


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
        ("*/*", False),
        ("", False),
        ("application/json", False),
        ("application/json, text/html;q=0.5", False),
        ("text/html;q=0.5, application/json;q=0.4", True),
        ("TEXT/HTML", True),
        ("text/html;q=0", False),
        ("text/html;q=x", False),
        (";;,,=,", False),
    ],
)
def test_only_who_names_html_gets_it(accept: str, html: bool) -> None:
    assert wants_html(Request({"type": "http", "headers": [(b"accept", accept.encode())]})) is html
