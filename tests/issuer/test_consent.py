from tests.support.office import Office

from doorward.issuer.consent import form_post


async def test_the_page_says_who_what_and_where_to(office: Office) -> None:
    await office.person("ann")
    party = await office.app("wiki", asks=True, resources=("https://mcp.example",))
    page = await party.send(scope="openid email offline_access", resource="https://mcp.example")
    for words in ("wiki", "ann", "ann-1", "grafana.example.com", "your e-mail address", "while you are away"):
        assert words in page.text
    assert "https://mcp.example" in page.text
    assert "Any program on this device" not in page.text


async def test_a_program_on_the_device_is_warned_of(office: Office) -> None:
    await office.person("ann")
    party = await office.app("tool", redirect_uris=("http://127.0.0.1/cb",), public=True)
    assert "Any program on this device" in (await party.send()).text


async def test_a_hint_is_shown_as_what_it_is(office: Office) -> None:
    await office.person("ann")
    party = await office.app()
    page = await party.send(login_hint="<b>bob</b>\u202e")
    assert "<b>bob</b>" not in page.text
    assert "U+202E" in page.text


def test_a_form_goes_where_it_is_sent_and_nowhere_else() -> None:
    page = form_post("example", "https://a.example:1/cb?x=1", [("code", "<1>")])
    text = bytes(page.body).decode()
    assert 'action="https://a.example:1/cb?x=1"' in text
    assert 'value="&lt;1&gt;"' in text
    assert "form-action https://a.example:1;" in page.headers["content-security-policy"]
