"""One-time links, and where they are shown: each is as good as the account it opens.

On a terminal somebody reads it now. Anything else may be kept (a log, a pipeline's output, a file that others read), so
there the link goes into a file of mode 0600, and only where that is gets printed.
"""

import re
import sys
from pathlib import Path

import msgspec

from doorward.api import types
from doorward.cli import output
from doorward.cli.times import exact
from doorward.config.folders import save_private
from doorward.errors import Unavailable


class _Kept(types.Answer, frozen=True, kw_only=True):
    """An invitation whose links are in a file."""

    user: str | None
    expires: str
    file: str


def hand_over(made: types.MadeInvitation, folder: Path, *, json: bool, kind: str = "invitation") -> None:
    """Give an invitation's link to whoever ran the command: alone on stdout, or the path of the file that it is in.

    Args:
        made: the invitation; its first link is the one that is printed.
        folder: where the file is made.
        json: print an object: with the links on a terminal, else with the file's path.
        kind: what the file is called.

    Raises Unavailable when the file cannot be made.
    """
    if sys.stdout.isatty():
        if json:
            output.as_json(made)
        else:
            _show(made)
        return
    file = folder / f"{kind}-{re.sub('[^A-Za-z0-9@._+-]', '_', made.user or 'first-owner')}.txt"
    try:
        save_private(file, "".join(f"{each.url}\n" for each in made.links))
    except OSError as error:
        raise Unavailable(
            f"the file for the link cannot be made: {error.strerror}",
            cure="Run this on a terminal, which shows the link itself.",
            place=str(file),
        ) from None
    if json:
        expires = msgspec.to_builtins(made.expires)
        output.as_json(_Kept(user=made.user, expires=expires, file=str(file)))
    else:
        output.line(str(file))


def _show(made: types.MadeInvitation) -> None:
    first, *others = made.links
    output.line(first.url)
    # Below it, for people; and a link must not get into a file by this way either.
    if sys.stderr.isatty():
        output.note(f"It works once, until {exact(made.expires)}, {first.where}.")
        for each in others:
            output.note(f"The same, {each.where}: {each.url}")
