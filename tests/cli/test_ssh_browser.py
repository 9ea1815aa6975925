"""What the service of a session opens: the pages of one door, a few, and each once."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.waiting import until

from doorward.cli import ssh_browser
from doorward.cli.app import run
from doorward.cli.ssh_browser import MOST, SPAN, Pages, command_for, plain_door, watch
from doorward.engine.localapi import LocalApi
from doorward.errors import BadInput, NotFound

DOOR = "https://door.example.com:8443"
LINK = f"{DOOR}/check/{'abcdefghijklmnopqrstuvwxyz234567'}"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_a_check_s_page_at_the_door_is_opened() -> None:
    assert Pages(DOOR).admit(LINK, 0)
    assert Pages(DOOR + "/").admit(LINK, 0)


@pytest.mark.parametrize(
    "link",
    [
        "",
        DOOR,
        f"{DOOR}/",
        f"{DOOR}/check/",
        LINK[:-1],
        LINK + "a",
        LINK + "\n",
        LINK + "?next=https://evil.example",
        LINK + "#x",
        LINK + "/../../login",
        LINK.replace("abc", "../"),
        LINK.replace("abc", "ABC"),
        LINK.replace("/check/", "/join/"),
        LINK.replace("/check/", "//check/"),
        LINK.replace("https:", "http:"),
        LINK.replace(":8443", ""),
        LINK.replace(":8443", ":8444"),
        LINK.replace("door.example.com", "evil.example"),
        LINK.replace("door.example.com", "doorxexample.com"),
        LINK.replace("https://", "https://door.example.com@"),
        LINK.replace("example.com", "example.com.evil.example"),
        "file:///etc/passwd",
        "javascript:alert(1)",
        " " + LINK,
    ],
)
def test_nothing_else_is(link: str) -> None:
    assert not Pages(DOOR).admit(link, 0)


def test_a_page_is_opened_once_and_only_a_few_in_a_minute() -> None:
    pages = Pages(DOOR)
    links = [LINK[:-2] + f"a{letter}" for letter in "abcdefgh"]
    admitted = [link for link in links if pages.admit(link, 1.0)]
    assert admitted == links[:MOST]
    assert not pages.admit(links[0], 1.0 + SPAN)
    assert pages.admit(links[-1], 1.0 + SPAN)


@pytest.mark.parametrize(
    "door",
    [
        "",
        "door.example.com",
        "https://",
        "https://door.example.com/x?y",
        "https://door.example.com/../x",
        "https://door.example.com//x",
        "https://a@door.example.com",
        'https://door.example.com" x',
        "https://door.example.com:port",
        "https://-e.example.com x",
        "ftp://door.example.com",
        "https://$HOME",
        "https://a..b",
    ],
)
def test_a_door_is_a_scheme_a_host_a_port_and_a_path(door: str) -> None:
    with pytest.raises(BadInput, match="is not a door"):
        plain_door(door)


@pytest.mark.parametrize(
    "door",
    ["http://localhost:8080", "https://[fd7a::1]:1", "https://Door.example.com", "https://a.example/b-c/d"],
)
def test_and_nothing_more(door: str) -> None:
    assert plain_door(door) == door


def test_the_browser_is_the_person_s_choice_or_the_platform_s(tmp_path: Path) -> None:
    for name in ("mine", "xdg-open", "open"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)

    def chosen(browser: str) -> list[str]:
        return command_for(LINK, {"PATH": str(tmp_path), "BROWSER": browser})

    assert chosen("")[1:] == [LINK]
    assert chosen("mine") == ["mine", LINK]
    assert chosen("missing:mine --new 'a b'") == ["mine", "--new", "a b", LINK]
    assert chosen("mine --app=%s -x") == ["mine", f"--app={LINK}", "-x"]
    assert chosen("'half")[1:] == [LINK]
    with pytest.raises(NotFound, match="no program to open links"):
        command_for(LINK, {"PATH": str(tmp_path / "none")})


@contextlib.asynccontextmanager
async def bus(folder: Path, *rounds: list[object]) -> AsyncIterator[Path]:
    """A daemon that announces this, one round for each who listens, and then ends the connection."""
    left = list(rounds)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"GET /localapi/v0/watch-ipn-bus?mask=258 ")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n")
        for notice in left.pop(0) if left else ():
            writer.write(json.dumps(notice).encode() + b"\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(answer, folder / "s"):
        yield folder / "s"


async def test_what_the_daemon_announces_is_opened_also_after_it_was_away(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = LINK[:-1] + "a"
    opened: list[str] = []

    async def note(link: str) -> None:
        opened.append(link)

    first = [
        {"State": 6},
        {"BrowseToURL": LINK},
        {"BrowseToURL": "https://evil.example"},
        {"BrowseToURL": LINK},
    ]
    async with (
        bus(tmp_path, first, [{"BrowseToURL": 7}], [{"BrowseToURL": other}]) as socket,
        asyncio.TaskGroup() as group,
    ):
        watching = group.create_task(watch(LocalApi(socket), Pages(DOOR), note, ssh_browser._say, retry=0.01))
        await until(lambda: len(opened) == 2)
        watching.cancel()
    assert opened == [LINK, other]
    shown = capsys.readouterr()
    listening = f"Listening for pages of {DOOR}."
    assert shown.out.splitlines() == [listening, "tailscaled answered something unexpected", listening]


async def test_a_daemon_that_is_not_there_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def note(_: str) -> None:
        raise AssertionError

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.1):
            await watch(LocalApi(tmp_path / "none"), Pages(DOOR), note, ssh_browser._say, retry=0.001)
    assert capsys.readouterr().out.count("does not answer") == 1


async def test_a_browser_that_does_not_start_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    browser = tmp_path / "browser"
    browser.write_text('#!/bin/sh\necho "$1" > "$0.opened"\n')
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", str(browser))
    await ssh_browser._open(LINK)
    assert (tmp_path / "browser.opened").read_text() == f"{LINK}\n"
    browser.write_text("nothing that runs")
    await ssh_browser._open(LINK)
    assert f"{LINK} cannot be opened" in capsys.readouterr().err


def test_without_a_browser_it_does_not_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("BROWSER", raising=False)
    assert run(["ssh", "browser", "--door", DOOR]) == 1
    assert "no program to open links" in capsys.readouterr().err
