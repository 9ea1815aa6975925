"""Everything that an app and a person do with secrets, once well and once badly, and a look at what was logged and noted of it."""

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from tests.support.office import PAGE, VERIFIER, Office

from doorward.issuer.grants.device_code import DEVICE_CODE
from doorward.store import audit
from doorward.telemetry import configure, log


@pytest.fixture
def heard() -> Iterator[io.StringIO]:
    """All that is logged, the least of it too; afterwards the log is as it was."""
    before, stream = structlog.get_config(), io.StringIO()
    configure(level="debug", stream=stream)
    yield stream
    structlog.configure(**before)


async def test_no_secret_is_in_the_log_or_on_record(office: Office, heard: io.StringIO) -> None:
    await office.person("ann")
    secrets: list[str] = [VERIFIER]

    def keep(answer: dict[str, Any]) -> None:
        names = (
            "code",
            "access_token",
            "id_token",
            "refresh_token",
            "device_code",
            "user_code",
            "request_uri",
        )
        secrets.extend(str(answer[name]) for name in names if name in answer)

    party = await office.app(device=True)
    secrets.append(party.secret)
    # Signed in, with the tokens used in every way, and each shown a second time.
    await party.send(scope="openid profile offline_access", state="a-state-of-its-own")
    keep(party.answer)
    await party.redeem(code_verifier="w" * 43)
    await party.redeem()
    keep(party.tokens)
    first = party.tokens["refresh_token"]
    assert (await party.userinfo()).status_code == 200
    await party.post("/introspect", token=party.tokens["access_token"])
    await party.refresh()
    keep(party.tokens)
    await party.refresh(first)
    await party.redeem()
    assert (await party.userinfo()).status_code == 401
    await party.post("/revoke", token=party.tokens["refresh_token"])
    await party.post(
        "/token", how="post", grant_type="nonsense", code="dwcode-of-nobody", client_secret="dwapp-wrong"
    )
    secrets += ["dwcode-of-nobody", "dwapp-wrong"]
    # Left here before the browser came.
    form = {"redirect_uri": party.app.redirect_uris[0], "response_type": "code", "scope": "openid"}
    pushed = await party.post("/par", **form)
    keep(pushed.json())
    await party.send(request_uri=pushed.json()["request_uri"])
    keep(party.answer)
    # On a device without a browser.
    started = (await party.post("/device_authorization", scope="openid")).json()
    keep(started)
    browser = office.browser()
    await browser.post("/device", user_code=started["user_code"])
    await browser.post("/device/answer", asking=browser.field("asking"), answer="yes")
    keep((await party.post("/token", grant_type=DEVICE_CODE, device_code=started["device_code"])).json())
    # And in a browser outside, whose cookies are secrets, too.
    office.identity = None
    outside = office.browser()
    await party.send(outside)
    await outside.post("/authorize/elsewhere", asking=outside.field("asking"))
    await outside.client.get(outside.page.headers["location"], headers=PAGE)
    secrets.extend(value for value in outside.client.cookies.values() if value)
    log("issuer").debug("the log can be heard")
    said = heard.getvalue()
    noted = json.dumps([repr(one) for one in await office.registry.writer.database.read(audit.load)])
    assert "the log can be heard" in said
    assert "app.signin" in noted
    assert "app.replay" in noted
    assert len(secrets) > 15
    for secret in secrets:
        assert len(secret) > 8
        tail = secret[-16:]  # what is behind its kind; all of a short one
        for text in (said, noted):
            assert tail not in text
