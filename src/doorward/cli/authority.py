"""``doorward ca``."""

from doorward.cli import output
from doorward.cli.connection import Target
from doorward.clock import SystemClock
from doorward.errors import NotPermitted


def authority(*, target: Target | None = None) -> None:
    """Print the certificate of doorward's own authority, in PEM; make the authority if there is none yet.

    The authority signs the certificates of the door and the relay where you have given none of your own. Browsers, and
    clients older than 1.82, trust it once it is added to the machine's trust store. It works on the data directory, whether
    the server runs or not; it says nothing about a server elsewhere.

    Example: `doorward ca > /usr/local/share/ca-certificates/doorward.crt && update-ca-certificates`

    Args:
        target: Which server.
    """
    from doorward.server.tls import Authority  # noqa: PLC0415 - it loads the cryptography that no other command needs

    folder = (target or Target()).folder()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        output.raw(Authority.open(folder / "tls", SystemClock()).pem)
    except PermissionError:
        raise NotPermitted(
            f"{folder} is somebody else's data directory", cure="Run this as the user that runs doorward."
        ) from None
