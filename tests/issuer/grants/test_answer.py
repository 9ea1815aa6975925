from tests.support.office import Office

from doorward.issuer.grants.answer import narrowed

APP = "doorward.dev/cap/app"


def test_less_may_be_asked_for_and_never_more() -> None:
    assert narrowed((), ("a", "b")) == ("a", "b")
    assert narrowed(("b",), ("a", "b")) == ("b",)
    assert narrowed(("c",), ("a", "b")) is None


async def test_a_scope_that_the_policy_took_away_is_left_out_at_the_next_token(office: Office) -> None:
    await office.person("ann")
    party = await office.app()
    await party.sign_in(scope="openid email offline_access")
    entry = '{"scopes": ["offline_access"]}'
    await office.policy(f'{{"grants": [{{"src": ["ann"], "dst": ["*"], "app": {{"{APP}": [{entry}]}}}}]}}')
    await party.refresh()
    assert party.tokens["scope"] == "openid offline_access"
    assert "email" not in (await party.userinfo()).json()
