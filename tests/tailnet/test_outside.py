"""Who the subjects of outside providers are here, and who lets them in."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support import nouns
from tests.support.neighbours import pair
from tests.support.nouns import NOW
from tests.support.postgres import Cluster
from tests.support.waiting import until
from tests.support.world import World, open_world

from doorward.errors import BadInput, Conflict, DoorwardError, NotFound, NotPermitted
from doorward.model import Claims, Provider, User
from doorward.store import signin
from doorward.tailnet.outside import check_provider, group_domains
from doorward.tailnet.registry import Registry

ISSUER = "https://id.example.com/realms/x"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def world(tmp_path: Path) -> Any:
    async with open_world(tmp_path) as made:
        yield made


def draft(name: str = "corp", **fields: Any) -> Provider:
    values: dict[str, Any] = {
        "id": 0,
        "name": name,
        "issuer": ISSUER,
        "client_id": "doorward",
        "client_secret": "top secret",
        "created": NOW,
    }
    return Provider(**(values | fields))


def says(subject: str = "s1", **fields: Any) -> Claims:
    return Claims(issuer=fields.pop("issuer", ISSUER), subject=subject, **fields)


def ann(subject: str = "s1", **fields: Any) -> Claims:
    return says(subject, **({"email": "ann@example.com", "email_verified": True, "name": "Ann"} | fields))


async def provided(world: World, name: str = "corp", **fields: Any) -> Provider:
    return await world.registry.outside.add("cli", draft(name, **({"domains": ("example.com",)} | fields)))


async def events(world: World, action: str = "") -> list[tuple[str, str, str, dict[str, Any]]]:
    found = await world.registry.audit(**({"action": action} if action else {}))
    return [(one.actor, one.action, one.target, one.details) for one in reversed(found)]


async def begin_session(world: World, user: User, method: str, secret: bytes) -> int:
    session = nouns.session(user.id, world.clock.now(), secret_hash=secret, method=method)
    return (await world.registry.writer.database.run(signin.insert_session, session)).id


async def open_sessions(world: World) -> list[int]:
    found = await world.registry.writer.database.read(signin.open_sessions, world.clock.now())
    return [one.id for one in found]


# -- providers


def test_a_provider_is_tidied() -> None:
    good = check_provider(
        draft(
            scopes=("email", "groups", "email"),
            domains=("@Example.com", "example.com "),
            users=("Bob@Example.org",),
            groups=("eng", "eng", "Domain Users"),
        )
    )
    assert good.scopes == ("openid", "email", "groups")
    assert good.domains == ("example.com",)
    assert good.users == ("bob@example.org",)
    assert good.groups == ("Domain Users", "eng")


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"name": "Corp"}, "name"),
        ({"name": "a.b"}, "name"),
        ({"name": "x" * 40}, "name"),
        ({"issuer": "http://id.example.com"}, "issuer"),
        ({"issuer": "https://id.example.com?x=1"}, "issuer"),
        ({"issuer": "https://id.example.com#x"}, "issuer"),
        ({"issuer": "https://a:b@id.example.com"}, "issuer"),
        ({"issuer": "https://[x"}, "issuer"),
        ({"issuer": "ftp://id.example.com"}, "issuer"),
        ({"issuer": "https://"}, "issuer"),
        ({"issuer": ""}, "issuer"),
        ({"client_id": " "}, "client_id"),
        ({"client_id": "x" * 3000}, "client_id"),
        ({"groups_claim": ""}, "groups_claim"),
        ({"scopes": ("open id",)}, "scopes"),
        ({"domains": ("com",)}, "domains"),
        ({"domains": ("*.example.com",)}, "domains"),
        ({"users": ("ann",)}, "users"),
        ({"groups": ("",)}, "groups"),
        ({"groups": tuple(map(str, range(1001)))}, "groups"),
        ({"domains": tuple(f"a{number}.example.com" for number in range(1001))}, "domains"),
    ],
    ids=str,
)
def test_a_provider_that_cannot_be(fields: dict[str, Any], place: str) -> None:
    with pytest.raises(BadInput) as refused:
        check_provider(draft(**fields))
    assert refused.value.place == f"$.{place}"
    assert refused.value.cure
    assert "x" * 100 not in refused.value.sentence()


def test_http_is_for_this_very_machine() -> None:
    for host in ("127.0.0.1:9", "localhost", "[::1]:80"):
        assert check_provider(draft(issuer=f"http://{host}")).issuer == f"http://{host}"


async def test_providers_come_change_and_go(world: World) -> None:
    outside = world.registry.outside
    made = await provided(world)
    assert await outside.providers() == [made]
    with pytest.raises(Conflict, match="already"):
        await provided(world)
    changed = await outside.change("cli", "corp", {"client_secret": "newer", "groups": ("eng",)})
    assert (changed.client_secret, changed.groups, changed.domains) == ("newer", ("eng",), ("example.com",))
    assert await outside.change("cli", "corp", {"groups": ("eng",)}) == changed  # nothing to say
    with pytest.raises(BadInput, match="issuer of a provider stays"):
        await outside.change("cli", "corp", {"issuer": "https://evil.example.com"})
    with pytest.raises(BadInput):
        await outside.change("cli", "corp", {"domains": ("x",)})
    assert await outside.remove("cli", "corp") == 0
    for again in (outside.provider("corp"), outside.remove("cli", "corp"), outside.change("cli", "corp", {})):
        with pytest.raises(NotFound):
            await again
    written = await events(world)
    assert [action for _, action, _, _ in written[-3:]] == [
        "provider.add",
        "provider.change",
        "provider.remove",
    ]
    assert written[-3][3]["client_secret"] == "set"
    assert written[-2][3] == {
        "client_secret": "changed",
        "groups": ["eng"],
        "before": {"groups": []},
    }
    assert not any(word in str(written) for word in ("top secret", "newer"))


# -- who comes in


async def test_somebody_of_an_allowed_domain_comes_in(world: World) -> None:
    corp = await provided(world)
    user = await world.registry.outside.signed_in(corp, ann(groups=("eng", "ops")))
    assert (user.name, user.email, user.display_name) == ("ann@example.com", "ann@example.com", "Ann")
    assert user.groups == ("eng@example.com", "ops@example.com")
    assert user.role == "member"
    assert world.registry.snapshot.users[user.id] == user
    again = await world.registry.outside.signed_in(corp, ann(groups=("eng", "ops")))
    assert again == user
    (identity,) = await world.registry.outside.identities(user)
    assert (identity.subject, identity.email, identity.groups) == ("s1", "ann@example.com", ("eng", "ops"))
    written = await events(world)
    assert [(actor, action) for actor, action, _, _ in written[-2:]] == [
        ("provider:corp", "user.create"),
        ("provider:corp", "user.update"),
    ]


LETS_IN: list[tuple[dict[str, Any], Claims, str]] = [
    ({"users": ("ann@example.com",)}, ann(), "ann@example.com"),
    ({"groups": ("eng",)}, says(groups=("eng",), preferred_username="Ann.B@evil.example.com"), "ann.b@corp"),
    ({"groups": ("eng",)}, says("auth0|77", groups=("eng",)), "auth0-77@corp"),
    # An address that nobody vouches for is no name, whatever lets them in.
    (
        {"groups": ("eng",), "domains": ("example.com",)},
        ann(email_verified=False, groups=("eng",)),
        "s1@corp",
    ),
    ({"groups": ("eng",)}, ann(groups=("eng",), preferred_username="ann@example.com"), "ann@corp"),
]


@pytest.mark.parametrize(("rules", "claims", "name"), LETS_IN, ids=str)
async def test_each_rule_lets_in_whom_it_names(
    world: World, rules: dict[str, Any], claims: Claims, name: str
) -> None:
    corp = await provided(world, **({"domains": ()} | rules))
    user = await world.registry.outside.signed_in(corp, claims)
    assert user.name == name
    assert user.email == (name if name == "ann@example.com" else "")


KEEPS_OUT: list[tuple[dict[str, Any], Claims]] = [
    ({}, ann()),
    ({"domains": ("example.com",)}, ann(email_verified=False)),
    ({"domains": ("example.com",)}, ann(email="")),
    ({"domains": ("example.com",)}, ann(email="ann@sub.example.com")),
    ({"domains": ("example.com",)}, ann(email="ann@evilexample.com")),
    ({"domains": ("example.com",)}, says(preferred_username="ann@example.com")),
    ({"users": ("ann@example.com",)}, ann(email_verified=False)),
    ({"users": ("ann@example.com",)}, ann(email="bob@example.com")),
    ({"groups": ("eng",)}, ann(groups=("Eng", "engine"))),
    ({"groups": ("eng",)}, says("|||", groups=("eng",))),
]


@pytest.mark.parametrize(("rules", "claims"), KEEPS_OUT, ids=str)
async def test_nobody_else_comes_in(world: World, rules: dict[str, Any], claims: Claims) -> None:
    corp = await provided(world, **({"domains": ()} | rules))
    with pytest.raises(NotPermitted) as refused:
        await world.registry.outside.signed_in(corp, claims)
    assert refused.value.cure
    assert not world.registry.snapshot.users
    ((actor, _, _, details),) = await events(world, "signin.refuse")
    assert (actor, details["subject"]) == ("provider:corp", claims.subject)


async def test_who_is_asked_for_a_proof_does_not_become_somebody(world: World) -> None:
    corp = await provided(world)
    with pytest.raises(NotPermitted, match="nobody here"):
        await world.registry.outside.signed_in(corp, ann(), admit=False)
    assert not world.registry.snapshot.users


@pytest.mark.parametrize("known", [{"name": "ann@example.com"}, {"name": "ann", "email": "Ann@Example.com"}])
async def test_a_name_that_is_somebody_s_links_nothing(world: World, known: dict[str, str]) -> None:
    corp = await provided(world)
    before = await world.registry.create_user("cli", **known)  # type: ignore[arg-type]
    with pytest.raises(Conflict) as refused:
        await world.registry.outside.signed_in(corp, ann("s 1"))
    assert f"doorward users link {before.name} corp 's 1'" in refused.value.cure
    assert await world.registry.outside.identities(before) == []
    assert list(world.registry.snapshot.users.values()) == [before]
    # What the message says helps.
    await world.registry.outside.link("cli", before.name, "corp", "s 1")
    assert (await world.registry.outside.signed_in(corp, ann("s 1"))).id == before.id


async def test_the_suspended_do_not_sign_in(world: World) -> None:
    corp = await provided(world)
    user = await world.registry.outside.signed_in(corp, ann())
    await world.registry.suspend_user("cli", user.name, suspended=True)
    with pytest.raises(NotPermitted, match="suspended"):
        await world.registry.outside.signed_in(corp, ann(name="Another", groups=("eng",)))
    with pytest.raises(NotPermitted, match="suspended"):
        await world.registry.outside.link_identity("user:ann", user.name, corp, ann("s2"))
    kept = world.registry.snapshot.users[user.id]
    assert (kept.display_name, kept.groups, len(await world.registry.outside.identities(user))) == (
        "Ann",
        (),
        1,
    )


async def test_a_provider_that_is_gone_signs_nobody_in(world: World) -> None:
    corp = await provided(world)
    await world.registry.outside.signed_in(corp, ann())
    await world.registry.outside.remove("cli", "corp")
    with pytest.raises(NotFound):
        await world.registry.outside.signed_in(corp, ann())
    again = await provided(world)  # of the same name, and yet another: its subjects are nobody
    with pytest.raises(Conflict):
        await world.registry.outside.signed_in(again, ann())


# -- profile and groups


async def test_the_profile_follows_the_provider(world: World) -> None:
    corp = await provided(world)
    user = await world.registry.outside.signed_in(corp, ann(groups=("eng",)))
    married = ann(email="ann.b@example.com", name="Ann B", groups=())
    user = await world.registry.outside.signed_in(corp, married)
    assert (user.name, user.email, user.display_name, user.groups) == (
        "ann@example.com",
        "ann.b@example.com",
        "Ann B",
        (),
    )
    # Not vouched for, of a domain that is not theirs to speak of, or none at all: what there is stays.
    for claims in (
        ann(email="boss@example.com", email_verified=False),
        ann(email="boss@example.org"),
        ann(email="", name=""),
    ):
        user = await world.registry.outside.signed_in(corp, claims)
        assert (user.email, user.display_name) == (
            "ann.b@example.com",
            "Ann",
        )


async def test_an_address_of_somebody_else_s_is_never_shared(world: World) -> None:
    """The policy would name neither of two who have it; one could so take another's access away."""
    corp = await provided(world)
    bob = await world.registry.create_user("cli", "bob", email="bob@example.com")
    user = await world.registry.outside.signed_in(corp, ann())
    user = await world.registry.outside.signed_in(corp, ann(email="bob@example.com"))
    assert user.email == "ann@example.com"
    linked = await world.registry.outside.link_identity(
        "user:bob", "bob", corp, ann("s9", email="x@example.com")
    )
    assert linked == msgspec.structs.replace(bob, display_name="Ann")  # an administrator's address stays


async def test_groups_are_what_all_providers_say(world: World) -> None:
    corp = await provided(world)
    home = await provided(world, "home", issuer="https://sso.home.example", domains=())
    assert group_domains(home) == ("sso.home.example",)
    user = await world.registry.outside.signed_in(
        corp, ann(groups=("eng", "ops@example.com", "x@evil.example"))
    )
    await world.registry.outside.link_identity(
        "user:ann", user.name, home, says("h1", issuer=home.issuer, groups=("family",))
    )
    found = world.registry.snapshot.users[user.id]
    both = ("eng@example.com", "family@sso.home.example", "ops@example.com", "x@evil.example@example.com")
    assert found.groups == both
    await world.registry.outside.signed_in(corp, ann())
    assert world.registry.snapshot.users[user.id].groups == ("family@sso.home.example",)
    await world.registry.outside.change("cli", "home", {"domains": ("home.example", "example.net")})
    assert world.registry.snapshot.users[user.id].groups == ("family@example.net", "family@home.example")
    await world.registry.outside.remove("cli", "home")
    assert world.registry.snapshot.users[user.id].groups == ()


async def test_the_policy_follows_groups_at_once(world: World) -> None:
    corp = await provided(world)
    await world.registry.set_policy(
        "cli",
        '{"tagOwners": {"tag:web": []}, "grants": [{"src": ["group:eng@example.com"], "dst": ["tag:web"], "ip": ["*"]}]}',
    )
    user = await world.registry.outside.signed_in(corp, ann())
    laptop = await world.join(1, "laptop", user.name)
    web = await world.join(2, "web", None, "tag:web")
    told: list[Any] = []
    world.registry.writer.watch(lambda before, after, ids: told.append(ids))
    assert not world.registry.snapshot.policy.can_see(laptop.id, web.id)
    await world.registry.outside.signed_in(corp, ann(groups=("eng",)))
    assert world.registry.snapshot.policy.can_see(laptop.id, web.id)
    assert told == [None]  # everybody's map is looked at
    await world.registry.outside.signed_in(corp, ann(groups=("eng",)))
    assert told == [None]  # no news, no work
    await world.registry.outside.signed_in(corp, ann())
    assert not world.registry.snapshot.policy.can_see(laptop.id, web.id)
    again = await Registry.open(
        world.registry.writer.database,
        world.registry.snapshot.settings,
        world.clock,
        lambda size: b"x" * size,
    )
    assert again.snapshot.users == world.registry.snapshot.users


# -- links


async def test_a_subject_is_one_person_only(world: World) -> None:
    outside = world.registry.outside
    corp = await provided(world)
    await world.registry.create_user("cli", "bob")
    user = await outside.signed_in(corp, ann())
    link = await outside.link("cli", "bob", "corp", "s2")
    assert await outside.link("cli", "bob", "corp", "s2") == link  # again is no error
    for attempt in (
        outside.link("cli", "bob", "corp", "s1"),
        outside.link_identity("user:bob", "bob", corp, ann()),
    ):
        with pytest.raises(Conflict, match=r"is ann@example\.com already"):
            await attempt
    with pytest.raises(NotFound):
        await outside.link("cli", "nobody", "corp", "s3")
    with pytest.raises(NotFound):
        await outside.link("cli", "bob", "nowhere", "s3")
    for subject in ("", "s" * 256, "a\nb", "ü"):
        with pytest.raises(BadInput):
            await outside.link("cli", "bob", "corp", subject)
    linked = await events(world, "user.link")
    assert [(actor, target, details) for actor, _, target, details in linked] == [
        ("cli", "user:bob", {"provider": "corp", "subject": "s2"})
    ]
    assert user.name == "ann@example.com"


async def test_unlinking_ends_what_was_begun_by_it(world: World) -> None:
    outside = world.registry.outside
    corp = await provided(world)
    user = await outside.signed_in(corp, ann(groups=("eng",)))
    bob = await world.registry.create_user("cli", "bob")
    made = [
        await begin_session(world, person, method, bytes([number]))
        for number, (person, method) in enumerate(
            ((user, "provider:corp"), (user, "passkey:1"), (bob, "provider:corp"))
        )
    ]
    assert await outside.unlink("cli", user.name, "corp") == 1
    assert world.registry.snapshot.users[user.id].groups == ()
    assert await open_sessions(world) == made[1:]
    with pytest.raises(NotFound, match="does not sign in by corp"):
        await outside.unlink("cli", user.name, "corp")
    await outside.remove("cli", "corp")
    assert await open_sessions(world) == made[1:2]


async def test_people_can_be_deleted_with_their_links(world: World) -> None:
    corp = await provided(world)
    user = await world.registry.outside.signed_in(corp, ann())
    await world.registry.delete_user("cli", user.name)
    assert (await world.registry.outside.signed_in(corp, ann())).id != user.id


async def test_a_refusal_changes_nothing(world: World) -> None:
    corp = await provided(world)
    await world.registry.create_user("cli", "ann@example.com")
    before = (world.registry.snapshot, len(await events(world)))
    with pytest.raises(DoorwardError):
        await world.registry.outside.signed_in(corp, ann())
    assert world.registry.snapshot is before[0]
    assert len(await events(world)) == before[1] + 1  # the refusal itself


async def test_several_processes_make_one_person_of_one_subject(postgres: Cluster) -> None:
    address = postgres.create_database()
    try:
        async with pair(address) as (one, two):
            corp = await one.outside.add("cli", draft(domains=("example.com",)))
            found = await asyncio.gather(
                *(registry.outside.signed_in(corp, ann(groups=("eng",))) for registry in (one, two) * 5)
            )
            assert len({user.id for user in found}) == 1
            assert found[0].groups == ("eng@example.com",)
            await one.outside.signed_in(corp, ann(groups=("ops",)))
            await until(lambda: two.snapshot.users[found[0].id].groups == ("ops@example.com",), 5)
    finally:
        postgres.drop_database(address)
