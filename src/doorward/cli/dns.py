"""``doorward dns``."""

from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from doorward.api import types
from doorward.cli import output
from doorward.cli.connection import Target, read_text
from doorward.errors import BadInput

app = App(
    name="dns",
    help="""Names: search domains, nameservers, split DNS, records of your own.

    They are one object in HuJSON (JSON with comments and trailing commas). What is left out has its default:

        {
            "magic_dns": true,                            nodes find each other by name
            "search": ["corp.example"],                   after the tailnet's own domain
            "nameservers": ["192.0.2.53"],                for all other names; empty: as each device has it
            "split": {"corp.example": ["10.0.0.53"]},     for names below a domain
            "records": [{"name": "wiki.corp.example", "address": "100.64.0.7"}],
        }
    """,
)

File = Annotated[Path, Parameter(name="FILE", allow_leading_hyphen=True)]


@app.command(name="get")
def get_dns(*, target: Target | None = None) -> None:
    """Print what nodes are told about DNS, as JSON that `dns set` takes.

    Example: `doorward dns get > dns.hujson`

    Args:
        target: Which server.
    """
    output.as_json((target or Target()).call("GET", "/dns", types.DNS))


@app.command(name="set")
def set_dns(file: File, /, *, target: Target | None = None) -> None:
    """Replace what nodes are told about DNS. They follow within a second.

    Example: `doorward dns set dns.hujson`

    Exit codes: 0 it is in force; 1 it is refused, and nothing has changed.

    Args:
        file: The object; `-` reads stdin.
        target: Which server.
    """
    (target or Target()).call("PUT", "/dns", types.DNS, body=_read(file))
    output.line("Nodes are told of it now.")


def _read(file: Path) -> types.DNS:
    from doorward.protocol import hujson  # noqa: PLC0415 - few commands need it

    text = read_text(file)
    name = "stdin" if str(file) == "-" else str(file)
    try:
        return msgspec.convert(hujson.plain(hujson.parse(text)), types.DNS)
    except hujson.HujsonError as error:
        raise BadInput(error.message, cure=error.cure, place=f"{name}:{error.place}") from None
    except (msgspec.ValidationError, UnicodeError) as error:
        raise BadInput(str(error), cure="`doorward dns --help` shows an example.", place=name) from None
