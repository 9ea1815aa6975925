"""What clients may ask and doorward does not serve (yet): an honest answer, in words that reach the person.

Stock clients come up without any of these (control.md, section 9).
"""

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

_REASONS = {
    "set-dns": "doorward cannot publish DNS records for certificates yet; use `tailscale serve --http` or --tcp",
    "id-token": "doorward does not issue ID tokens yet",
    "feature/query": "doorward cannot switch this feature on: it needs certificates, which doorward does not arrange yet; "
    "`tailscale serve --http=80` needs none",
    "set-device-attr": "doorward does not keep device attributes yet",
    "audit-log": "doorward does not take client audit logs yet",
}


async def update_health(request: Request) -> Response:
    """Clients before 1.90 report their health; they only want to be thanked."""
    await request.body()
    return Response(status_code=204)


async def unserved(request: Request) -> Response:
    """501 with the reason; a client passes the text on to the person who asked."""
    path = request.path_params["path"]
    reason = next((text for start, text in _REASONS.items() if path.startswith(start)), None)
    if reason is None:
        return PlainTextResponse("there is nothing here\n", status_code=404)
    return PlainTextResponse(reason + "\n", status_code=501)


async def whoami(request: Request) -> Response:
    """For ``tailscale debug ts2021``: which machine key this connection has proven."""
    return PlainTextResponse(f"{request.state.machine_key}\n")
