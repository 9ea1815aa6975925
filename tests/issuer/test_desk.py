import pytest
from starlette.requests import Request
from starlette.responses import Response
from tests.support.office import Office

from doorward.issuer.desk import FORM, one, opened, read_pairs
from doorward.issuer.errors import TokenError
from doorward.login.doors import WrongDoor


def request(body: bytes, kind: str = FORM, host: str = "door.tailnet.internal:8443") -> Request:
    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(b"content-type", kind.encode()), (b"host", host.encode())]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": headers}, receive)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"a=1", "application/json"),
        (b"a=1", ""),
        (b"a=%ff", FORM),
        (b"a=\xff", FORM),
        (b"&".join(b"a=1" for _ in range(61)), FORM),
        (b"a=" + b"x" * 40_000, FORM),
    ],
)
async def test_what_is_no_form_is_refused(body: bytes, kind: str) -> None:
    with pytest.raises(TokenError) as caught:
        await read_pairs(request(body, kind))
    assert caught.value.code == "invalid_request"


async def test_a_field_is_read_once() -> None:
    pairs = await read_pairs(request(b"a=1&b=&b=2", FORM + "; charset=utf-8"))
    assert one(pairs, "a") == "1"
    assert one(pairs, "c") == ""
    with pytest.raises(TokenError, match="twice"):
        one(pairs, "b")


async def test_what_an_app_does_is_on_record(office: Office) -> None:
    party = await office.app()
    desk = office.issuer._desk
    await desk.note(None, party.app, "app.token", resources=[])
    (event,) = await office.audited("app.token")
    assert (event.actor, event.target) == ("app:grafana", "app:grafana")
    desk.require_door(request(b""))
    with pytest.raises(WrongDoor):
        desk.require_door(request(b"", host="evil.example"))


async def test_what_any_page_may_read_carries_no_credentials() -> None:
    headers = opened(Response()).headers
    assert headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in headers
