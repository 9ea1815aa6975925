from tests.support.office import Office

APP = "doorward.dev/cap/app"


async def test_oidcc_scope_profile_and_email_are_told_by_userinfo(office: Office) -> None:
    await office.person("ann")
    party = await office.app()
    claims = await party.sign_in(scope="openid profile")
    assert (await party.userinfo()).json().keys() == {"sub", "name", "preferred_username"}
    await party.sign_in(scope="openid email")
    assert (await party.userinfo()).json().keys() == {"sub", "email"}
    assert not {"name", "email"} & claims.keys()


async def test_the_policy_gives_roles_groups_and_claims(office: Office) -> None:
    await office.person("ann")
    party = await office.app()
    entry = '{"roles": ["editor"], "groups": ["extra"], "claims": {"team": "ops", "sub": "eve"}}'
    await office.policy(
        f'{{"groups": {{"group:ops": ["ann"]}}, "grants": [{{"src": ["group:ops"], "dst": ["*"], '
        f'"app": {{"{APP}": [{entry}]}}}}]}}'
    )
    claims = await party.sign_in(scope="openid groups")
    assert (claims["roles"], claims["team"]) == (["editor"], "ops")
    assert claims["sub"] != "eve"
    told = (await party.userinfo()).json()
    assert told == {"sub": claims["sub"], "roles": ["editor"], "team": "ops", "groups": ["extra", "ops"]}
    said = (await party.post("/introspect", token=party.tokens["access_token"])).json()
    assert (said["groups"], said["roles"]) == (["extra", "ops"], ["editor"])


async def test_subjects_are_opaque_and_outlive_names(office: Office) -> None:
    """T22."""
    await office.person("ann")
    grafana, wiki = await office.app(), await office.app("wiki")
    one, two = await grafana.sign_in(), await wiki.sign_in()
    assert one["sub"] == two["sub"]
    assert "ann" not in one["sub"]
    assert len(one["sub"]) == 24
    node = office.identity
    assert node is not None
    office.identity = None
    await office.registry.delete_node("cli", node.id)
    await office.registry.delete_user("cli", "ann")
    await office.person("ann", 2)
    assert (await grafana.sign_in())["sub"] != one["sub"]


async def test_the_device_is_told_where_it_is_asked_for_and_has_vouched(office: Office) -> None:
    laptop = await office.person("ann")
    party = await office.app()
    claims = await party.sign_in(scope="openid device")
    told = (await party.userinfo()).json()
    assert told == {
        "sub": claims["sub"],
        "node": f"{laptop.name}.tailnet.internal",
        "nid": laptop.id,
        "addresses": [f"{laptop.ipv4}/32", f"{laptop.ipv6}/128"],
        "tailnet": "tailnet.internal",
    }
    assert not {"node", "nid", "addresses", "tailnet"} & claims.keys()
    await party.sign_in(scope="openid profile")
    assert not {"node", "nid", "addresses", "tailnet"} & (await party.userinfo()).json().keys()
    limit = '{"apps": ["grafana"], "scopes": ["profile"]}'
    await office.policy(f'{{"grants": [{{"src": ["ann"], "dst": ["*"], "app": {{"{APP}": [{limit}]}}}}]}}')
    await party.sign_in(scope="openid device")
    assert (await party.userinfo()).json().keys() == {"sub"}


async def test_of_who_comes_from_elsewhere_no_device_is_told(office: Office) -> None:
    browser = await office.resident("ann")
    party = await office.app()
    await party.send(browser, scope="openid device")
    assert (await party.redeem()).status_code == 200, party.answer
    assert (await party.userinfo()).json().keys() == {"sub"}
