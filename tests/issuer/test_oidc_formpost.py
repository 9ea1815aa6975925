"""The Form Post OP profile: every module of the Basic one, with the answers in a form that sends itself."""

import pytest
from tests.issuer.test_oidc_basic import Modules
from tests.support.conformance import FORM_POST, Run
from tests.support.office import Office, hidden_fields


class TestFormPost(Modules):
    """response_mode=form_post each time."""

    mode = FORM_POST


@pytest.mark.parametrize("state", ['"><script>x</script>', "a'b&amp;c<d>", "é世\u202e"])
async def test_what_an_app_sends_is_text_in_the_form(office: Office, state: str) -> None:
    await office.person("ann")
    party = await office.app()
    run = Run(office, FORM_POST)
    browser = await run.authorize(party, state=state)
    run.heard(party, browser.page, state=state)
    assert hidden_fields(browser.page)["state"] == state
    assert browser.page.text.count("<script>") == 1
    policy = browser.page.headers["content-security-policy"]
    for rule in ("default-src 'none'", "script-src 'sha256-", "frame-ancestors 'none'"):
        assert rule in policy
    run.tokens(party, await party.redeem())
