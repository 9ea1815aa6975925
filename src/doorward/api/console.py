"""The console's pages: who sits before them, the machines that are for them, and what of it changes while they look."""

from starlette.responses import Response, StreamingResponse

from doorward import __version__
from doorward.api import console_types as types
from doorward.api.access import Permission
from doorward.api.context import Browser, Call
from doorward.api.feeds import TooManyStreams
from doorward.api.machines import Board
from doorward.asgi import operation
from doorward.errors import BadInput, NotPermitted
from doorward.tailnet.snapshot import Snapshot


class NoStream(BadInput):
    """What a stream alone can answer was asked for as something else (RFC 9110, section 15.5.7)."""

    status = 406
    problem = "not-acceptable"

    def __init__(self) -> None:
        super().__init__(
            "this is a stream of events",
            cure="Ask with the header Accept: text/event-stream, as EventSource does.",
        )


def person_of(call: Call) -> Browser:
    """Whose browser asks. Raises NotPermitted for a program, and for the administrator's socket."""
    if call.browser is None:
        raise NotPermitted(
            "this is for a person in a browser", cure="Open the door's own pages and do it there."
        )
    return call.browser


@operation("GET", "/console", needs=Permission.CONSOLE)
async def get_console(call: Call) -> types.Console:
    """Say who sits before the page, and how much there is to see."""
    browser = person_of(call)
    board = call.context.feeds.board(browser.user.id)
    await board.refresh()
    return console_of(call.snapshot, browser, board)


def console_of(snapshot: Snapshot, browser: Browser, board: Board) -> types.Console:
    """Who sits before a page; ``board`` is theirs, and up to date."""
    user, settings = snapshot.users.get(browser.user.id, browser.user), snapshot.settings
    session = None if browser.signed_in is None else browser.signed_in.session
    return types.Console(
        tailnet=settings.display_name or settings.domain,
        version=__version__,
        user=types.Me(
            id=user.id, name=user.name, display_name=user.display_name or user.name, role=user.role.value
        ),
        signed_in=session is not None,
        method="" if session is None else session.method,
        proven=None if session is None else session.proven,
        device=None if browser.device is None else browser.device.name,
        counts=board.counts(),
    )


@operation("GET", "/console/machines", needs=Permission.CONSOLE)
async def list_machines(call: Call) -> types.Machines:
    """List the machines that the person sees, each with their ways in from a browser."""
    board = call.context.feeds.board(person_of(call).user.id)
    await board.refresh()
    return types.Machines(machines=board.whole())


@operation("GET", "/console/events", needs=Permission.CONSOLE, raises=[NoStream, TooManyStreams])
async def listen(call: Call) -> Response:
    """Tell a page of what changes, as server-sent events: ``machines`` and ``session``.

    A page that connects, or connects again, asks for all machines once the stream has begun.
    """
    browser, feeds = person_of(call), call.context.feeds
    if "text/event-stream" not in call.accepts:
        raise NoStream
    feeds.require_room(browser.user.id)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # no proxy may keep it back
    session = None if browser.signed_in is None else browser.signed_in.session
    return StreamingResponse(
        feeds.listen(browser.user.id, session), headers=headers, media_type="text/event-stream"
    )


OPERATIONS = (get_console, list_machines, listen)
