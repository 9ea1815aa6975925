"""A terminal's page, as a person sits before it: what it says, what is typed, what the shell shows.

What a shell prints may be drawn by a graphics card, where no script can read it. So the end of a command is seen by the title
that it gives the window, and what is on the screen is read as people do who have it read to them.
"""

import itertools
import json
from typing import Any

from tests.support.desk import Desk
from tests.support.devtools import LATE, PlainChromium, Tab

_READER = 'localStorage.setItem("doorward.terminal.prefs", JSON.stringify({reader: true}));'
_OPEN = "document.querySelector('.pane-head .cells') !== null"
_KEYS = "document.querySelector('.pane.current .xterm-helper-textarea')"
# What is typed before is thrown away by login(1). A screen that nobody can read has no tree.
_WRITTEN = "document.querySelector('.pane.current .xterm-accessibility-tree')?.textContent.trim() !== ''"
_SCREEN = "[...document.querySelectorAll('.pane.current .xterm-accessibility-tree > div')].map(one => one.textContent)"
_READ = "row => row.replaceAll('\\u00a0', ' ').trimEnd()"
_PASTE = """(() => {
    const carried = new DataTransfer();
    carried.setData("text/plain", TEXT);
    KEYS.dispatchEvent(new ClipboardEvent("paste", {clipboardData: carried, bubbles: true, cancelable: true}));
})()"""
# Resolves with the milliseconds until the window's title begins with a word, from when the keys were pressed.
_TIMED = """new Promise(resolve => {
    const began = performance.now();
    const watch = new MutationObserver(() => {
        if (!document.title.startsWith(WORD)) return;
        watch.disconnect();
        resolve(performance.now() - began);
    });
    watch.observe(document.head, {childList: true, characterData: true, subtree: true});
    KEYS.dispatchEvent(new KeyboardEvent("keydown", {key: PRESSED, keyCode: CODE, bubbles: true, cancelable: true}));
})"""

_words = itertools.count(1)


class Terminal:
    """One page with a terminal on it.

    Args:
        tab: the page.
    """

    def __init__(self, tab: Tab) -> None:
        self.tab = tab

    @classmethod
    async def at(
        cls,
        desk: Desk,
        browser: PlainChromium,
        machine: str,
        account: str = "",
        *,
        reader: bool = True,
        before: str = "",
    ) -> "Terminal":
        """Open the page of a machine and an account, by its address.

        Args:
            desk: who sits there.
            browser: before what.
            machine: by its name.
            account: empty: the page asks.
            reader: whether its screen can be read.
            before: a script that runs in the page before its own do.
        """
        tab = await browser.tab()
        if reader or before:
            await tab.ask("Page.enable")
            for script in (_READER if reader else "", before):
                await tab.ask("Page.addScriptToEvaluateOnNewDocument", source=script)
        await browser.cookie(tab, desk.origin, desk.cookie, desk.secret or await desk.sign_in())
        await tab.go(f"{desk.origin}/terminal/{machine}{account and '/'}{account}")
        return cls(tab)

    async def opened(self, within: float = LATE) -> None:
        """Wait for the shell, and until it has written something."""
        await self.tab.holds(f"{_OPEN} && {_KEYS} !== null && {_WRITTEN}", within)

    async def ended(self, within: float = LATE) -> str:
        """Wait until the shell is over; what the page says of it."""
        said: str = await self.tab.holds(
            "document.querySelector('.pane.current .edge.shut span')?.innerText", within
        )
        return said

    async def again(self) -> None:
        """Press "Open again", below a shell that is over, and wait for the new one."""
        before = json.dumps(await self.shown())
        await self.tab.run("document.querySelector('.pane.current .edge .go').click()")
        await self.opened()
        await self.tab.holds(f"JSON.stringify({_SCREEN}.map({_READ})) !== JSON.stringify({before})")

    async def says(self, text: str, within: float = LATE) -> None:
        """Wait until the page says something, beside what the shell shows."""
        await self.tab.shows(text, within)

    async def type(self, text: str) -> None:
        """Type into the terminal that has the keys, a line in one go, as from a clipboard; a line's end is Enter."""
        for line in text.splitlines(keepends=True):
            await self.paste(line.rstrip("\n"))
            if line.endswith("\n"):
                await self.press("Enter", 13)

    async def paste(self, text: str) -> None:
        """Paste a text from the clipboard."""
        await self.tab.run(_PASTE.replace("KEYS", _KEYS).replace("TEXT", json.dumps(text)))

    async def press(self, key: str, code: int, **more: bool) -> None:
        """Press a key, with ``ctrlKey`` and such."""
        given = {"key": key, "keyCode": code, "bubbles": True, "cancelable": True, **more}
        down, up = (
            f"{_KEYS}.dispatchEvent(new KeyboardEvent({kind!r}, {json.dumps(given)}))"
            for kind in ("keydown", "keyup")
        )
        await self.tab.run(f"{down}, {up}")

    async def run(self, command: str, within: float = LATE) -> float:
        """Run a command in the shell to its end; returns the seconds it took, from Enter until the page knew."""
        word = f"ended-{next(_words)}"
        # In pieces, so that the line with the command is no title itself.
        await self.type(f"{command}; printf '\\033]0;%s\\007' {word}")
        return await self.timed(word, within)

    async def timed(self, word: str, within: float = LATE, *, key: str = "Enter", code: int = 13) -> float:
        """Press a key; the seconds until the shell has given the window a title that begins with ``word``."""
        script = _TIMED.replace("WORD", json.dumps(word)).replace("KEYS", _KEYS)
        script = script.replace("PRESSED", json.dumps(key)).replace("CODE", str(code))
        taken: float = await self.tab.run(script, within)
        return taken / 1000

    async def shown(self) -> list[str]:
        """The rows of the screen; for pages that were opened with ``reader``."""
        rows: list[str] = await self.tab.run(_SCREEN)
        return [row.replace("\xa0", " ").rstrip() for row in rows]

    async def shows(self, text: str, within: float = LATE) -> None:
        """Wait until a row of the screen has a text."""
        wanted = f"{_SCREEN}.some(row => row.replaceAll('\\u00a0', ' ').includes({json.dumps(text)}))"
        await self.tab.holds(wanted, within)

    async def size(self) -> Any:
        """Columns and rows, as the page tells them."""
        text = await self.tab.run("document.querySelector('.pane.current .cells').textContent")
        return tuple(map(int, str(text).split("×")))  # noqa: RUF001 - as the page writes it
