from datetime import timedelta
from typing import Any

import msgspec
import pytest
from tests.support import nouns
from tests.support.nouns import NOW

from doorward.errors import Conflict, NotFound
from doorward.model import Asking, Identity, Invitation, Passkey, Provider, Session, User
from doorward.store import Database, signin, users

LATER = NOW + timedelta(hours=1)


@pytest.fixture
async def ann(database: Database) -> int:
    return (await database.run(users.insert, User(id=0, name="ann", created=NOW))).id


@pytest.fixture
async def bob(database: Database) -> int:
    return (await database.run(users.insert, User(id=0, name="bob", created=NOW))).id


def passkey(user_id: int, credential: bytes = b"one", **fields: Any) -> Passkey:
    values: dict[str, Any] = {
        "id": 0,
        "user_id": user_id,
        "credential": credential,
        "public_key": b"cose",
        "count": 0,
        "name": "laptop",
        "place": "door.example.com",
        "transports": ("internal", "hybrid"),
        "created": NOW,
    }
    return Passkey(**(values | fields))


def session(user_id: int, secret: bytes = b"hash", **fields: Any) -> Session:
    return nouns.session(user_id, **{"secret_hash": secret, "expires": LATER, **fields})


def asking(secret: bytes = b"hash", **fields: Any) -> Asking:
    values: dict[str, Any] = {
        "id": 0,
        "secret_hash": secret,
        "act": "signin",
        "argument": "{}",
        "user_id": None,
        "origin": "https://door.example.com",
        "challenge": b"c",
        "created": NOW,
        "expires": LATER,
    }
    return Asking(**(values | fields))


def provider(name: str = "corp", **fields: Any) -> Provider:
    values: dict[str, Any] = {
        "id": 0,
        "name": name,
        "issuer": "https://id.example.com",
        "client_id": "doorward",
        "client_secret": "very secret",
        "domains": ("example.com",),
        "created": NOW,
    }
    return Provider(**(values | fields))


async def test_a_passkey_is_found_by_what_browsers_call_it(database: Database, ann: int, bob: int) -> None:
    kept = await database.run(signin.insert_passkey, passkey(ann))
    assert await database.read(signin.passkey_by_credential, b"one") == kept
    assert await database.read(signin.passkeys_of, ann) == [kept]
    assert await database.read(signin.passkeys_of, bob) == []
    with pytest.raises(Conflict) as refused:
        await database.run(signin.insert_passkey, passkey(bob))
    assert refused.value.place == "passkeys.credential"
    await database.run(signin.passkey_used, kept, 7, LATER)
    found = await database.read(signin.passkey_by_credential, b"one")
    assert found is not None
    assert (found.count, found.used, found.name) == (7, LATER, "laptop")
    assert not await database.run(signin.delete_passkey, bob, kept.id)
    assert await database.run(signin.delete_passkey, ann, kept.id)
    with pytest.raises(NotFound):
        await database.run(signin.passkey_used, kept, 8, LATER)


async def test_a_recovery_code_is_good_once(database: Database, ann: int) -> None:
    await database.run(signin.replace_recovery_codes, ann, [b"a", b"b"])
    assert await database.run(signin.take_recovery_code, b"a", NOW) == ann
    assert await database.run(signin.take_recovery_code, b"a", NOW) is None
    assert await database.run(signin.take_recovery_code, b"c", NOW) is None
    assert await database.read(signin.recovery_codes_left, ann) == 1
    await database.run(signin.replace_recovery_codes, ann, [b"d"])
    assert await database.run(signin.take_recovery_code, b"b", NOW) is None


async def test_an_invitation_is_good_once_and_in_time_and_the_newest(database: Database, ann: int) -> None:
    def draft(secret: bytes) -> Invitation:
        return Invitation(id=0, user_id=ann, secret_hash=secret, actor="cli", created=NOW, expires=LATER)

    first = await database.run(signin.insert_invitation, draft(b"a"))
    assert await database.read(signin.invitation_by_hash, b"a") == first
    assert await database.run(signin.take_invitation, b"a", LATER) is None
    await database.run(signin.insert_invitation, draft(b"b"))
    assert await database.run(signin.take_invitation, b"a", NOW) is None
    taken = await database.run(signin.take_invitation, b"b", NOW)
    assert taken is not None
    assert (taken.user_id, taken.used) == (ann, NOW)
    assert await database.run(signin.take_invitation, b"b", NOW) is None
    for secret in (b"c", b"d"):  # for nobody who is there yet
        first_owner = Invitation(
            id=0, user_id=None, secret_hash=secret, actor="system", created=NOW, expires=LATER
        )
        await database.run(signin.insert_invitation, first_owner)
    assert await database.run(signin.take_invitation, b"c", NOW) is None
    assert await database.run(signin.take_invitation, b"d", NOW) is not None


async def test_open_invitations_of_a_person_are_forgotten(database: Database, ann: int, bob: int) -> None:
    for user_id, secret in ((ann, b"a"), (bob, b"b"), (None, b"c")):
        draft = Invitation(id=0, user_id=user_id, secret_hash=secret, actor="cli", created=NOW, expires=LATER)
        await database.run(signin.insert_invitation, draft)
    assert await database.run(signin.forget_invitations, ann) == 1
    assert await database.run(signin.forget_invitations, ann) == 0
    assert await database.run(signin.take_invitation, b"a", NOW) is None
    assert await database.run(signin.take_invitation, b"b", NOW) is not None
    assert await database.run(signin.take_invitation, b"c", NOW) is not None


async def test_sessions_end_one_by_one_and_all_of_a_person(database: Database, ann: int, bob: int) -> None:
    first, second = [
        await database.run(signin.insert_session, session(ann, secret)) for secret in (b"1", b"2")
    ]
    other = await database.run(signin.insert_session, session(bob, b"3"))
    assert await database.read(signin.sessions_by_hash, [b"1", b"x"]) == {b"1": first}
    await database.run(signin.session_seen, first.id, LATER)
    assert (await database.read(signin.session_by_id, first.id)).seen == LATER  # type: ignore[union-attr]
    assert len(await database.read(signin.open_sessions, NOW)) == 3
    assert await database.read(signin.open_sessions, LATER) == []
    assert await database.run(signin.end_sessions, NOW, session_id=first.id) == [first.id]
    assert await database.run(signin.end_sessions, NOW, session_id=first.id) == []
    assert await database.run(signin.end_sessions, NOW, user_id=ann) == [second.id]
    assert await database.read(signin.open_sessions, NOW, ann) == []
    assert await database.read(signin.open_sessions, NOW, bob) == [other]
    ended = (await database.read(signin.sessions_by_hash, [b"1"])).get(b"1")
    assert ended is not None
    assert not ended.is_open(NOW)
    with pytest.raises(ValueError, match="whose"):
        await database.run(signin.end_sessions, NOW)


async def test_sessions_end_by_what_they_were_proven_with(database: Database, ann: int, bob: int) -> None:
    for user_id, secret, method in (
        (ann, b"1", "passkey:1"),
        (ann, b"2", "passkey:11"),
        (bob, b"3", "passkey:1"),
    ):
        await database.run(signin.insert_session, session(user_id, secret, method=method))
    ended = await database.run(signin.end_sessions, NOW, user_id=ann, method="passkey:1")
    left = [each.id for each in await database.read(signin.open_sessions, NOW)]
    assert (len(ended), len(left)) == (1, 2)
    assert set(ended).isdisjoint(left)
    assert await database.run(signin.end_sessions, NOW, user_id=ann, method="passkey:1") == []


async def test_an_open_invitation_is_found_by_its_person(database: Database, ann: int, bob: int) -> None:
    for user_id, secret in ((ann, b"a"), (None, b"c")):
        draft = Invitation(id=0, user_id=user_id, secret_hash=secret, actor="x", created=NOW, expires=LATER)
        await database.run(signin.insert_invitation, draft)
    for user_id, secret in ((ann, b"a"), (None, b"c")):
        found = await database.read(signin.open_invitation, user_id, NOW)
        assert found is not None
        assert found.secret_hash == secret
        assert await database.read(signin.open_invitation, user_id, LATER) is None
    assert await database.read(signin.open_invitation, bob, NOW) is None
    await database.run(signin.take_invitation, b"a", NOW)
    assert await database.read(signin.open_invitation, ann, NOW) is None


async def test_what_people_hold_is_counted(database: Database, ann: int, bob: int) -> None:
    assert await database.read(signin.held, NOW) == {}
    for credential in (b"1", b"2"):
        await database.run(signin.insert_passkey, passkey(ann, credential))
    await database.run(signin.replace_recovery_codes, ann, [b"a", b"b", b"c"])
    await database.run(signin.take_recovery_code, b"a", NOW)
    await database.run(signin.insert_session, session(ann, b"1"))
    await database.run(signin.insert_session, session(ann, b"2", expires=NOW))
    for user_id, secret in ((bob, b"b"), (None, b"c")):
        draft = Invitation(id=0, user_id=user_id, secret_hash=secret, actor="x", created=NOW, expires=LATER)
        await database.run(signin.insert_invitation, draft)
    anns, bobs = signin.Held(passkeys=2, recovery_codes=2, sessions=1), signin.Held(invited=LATER)
    assert await database.read(signin.held, NOW) == {ann: anns, bob: bobs}
    assert await database.read(signin.held, NOW, ann) == {ann: anns}
    assert await database.read(signin.held, LATER, bob) == {}


async def test_an_asking_is_answered_once(database: Database) -> None:
    kept = await database.run(signin.insert_asking, asking())
    assert await database.read(signin.asking_by_hash, b"hash", NOW) == kept
    assert await database.read(signin.asking_by_hash, b"hash", LATER) is None
    assert await database.read(signin.asking_by_id, kept.id, NOW) == kept
    assert await database.read(signin.asking_by_id, kept.id, LATER) is None
    await database.run(signin.send_to_provider, kept.id, 4, "state", "nonce", "verifier")
    sent = await database.read(signin.asking_by_hash, b"hash", NOW)
    assert sent is not None
    assert (sent.provider_id, sent.state, sent.nonce, sent.verifier) == (4, "state", "nonce", "verifier")
    assert "verifier" not in repr(sent)
    assert not await database.run(signin.take_state, kept.id, "another")
    assert await database.run(signin.take_state, kept.id, "state")
    assert not await database.run(signin.take_state, kept.id, "state")
    assert not await database.run(signin.take_state, kept.id, "")
    assert await database.run(signin.take_asking, kept.id, NOW)
    assert not await database.run(signin.take_asking, kept.id, NOW)
    over = await database.run(signin.insert_asking, asking(b"over"))
    await database.run(signin.insert_asking, asking(b"next", created=LATER, expires=LATER))
    assert not await database.run(signin.take_asking, over.id, NOW)


async def test_a_subject_is_one_person(database: Database, ann: int, bob: int) -> None:
    corp = await database.run(signin.insert_provider, provider())
    assert await database.read(signin.all_providers) == [corp]
    assert "very secret" not in repr(corp)
    with pytest.raises(Conflict):
        await database.run(signin.insert_provider, provider())
    draft = Identity(id=0, provider_id=corp.id, subject="s1", user_id=ann, created=NOW)
    kept = await database.run(signin.insert_identity, draft)
    with pytest.raises(Conflict):
        await database.run(
            signin.insert_identity,
            Identity(id=0, provider_id=corp.id, subject="s1", user_id=bob, created=NOW),
        )
    told = msgspec.structs.replace(kept, email="ann@example.com", groups=("eng", "ops"), used=LATER)
    await database.run(signin.update_identity, told)
    assert await database.read(signin.identity, corp.id, "s1") == told
    assert await database.read(signin.identities_at, corp.id) == [told]
    assert await database.read(signin.identity, corp.id, "s2") is None
    assert [one.id for one in await database.read(signin.identities_of, ann)] == [kept.id]
    assert await database.read(signin.can_sign_in, [ann])
    assert not await database.read(signin.can_sign_in, [bob])
    assert await database.run(signin.delete_provider, corp.id) == 1
    assert await database.read(signin.identities_of, ann) == []
    with pytest.raises(NotFound):
        await database.run(signin.update_identity, told)


async def test_a_subject_may_be_nobody_again(database: Database, ann: int) -> None:
    corp = await database.run(signin.insert_provider, provider())
    draft = Identity(id=0, provider_id=corp.id, subject="s1", user_id=ann, created=NOW)
    assert not await database.read(signin.is_linked, ann, "corp")
    kept = await database.run(signin.insert_identity, draft)
    assert await database.read(signin.is_linked, ann, corp.name)
    assert not await database.read(signin.is_linked, ann + 1, corp.name)
    await database.run(signin.delete_identity, kept.id)
    assert not await database.read(signin.is_linked, ann, corp.name)
    assert not await database.read(signin.is_linked, ann, "no such")
    assert await database.read(signin.identity, corp.id, "s1") is None
    with pytest.raises(NotFound):
        await database.run(signin.delete_identity, kept.id)


async def test_a_provider_changes_and_keeps_its_subjects(database: Database, ann: int) -> None:
    corp = await database.run(signin.insert_provider, provider())
    draft = Identity(id=0, provider_id=corp.id, subject="s1", user_id=ann, created=NOW)
    kept = await database.run(signin.insert_identity, draft)
    changed = msgspec.structs.replace(corp, client_secret="another", groups=("eng",))
    await database.run(signin.update_provider, changed)
    assert await database.read(signin.provider_by_name, "corp") == changed
    assert await database.read(signin.provider_by_id, corp.id) == changed
    assert await database.read(signin.identities_at, corp.id) == [kept]
    assert await database.read(signin.provider_by_name, "other") is None
    with pytest.raises(NotFound):
        await database.run(signin.update_provider, msgspec.structs.replace(corp, id=99))


async def test_sessions_end_by_what_proved_them(database: Database, ann: int, bob: int) -> None:
    made = [
        await database.run(signin.insert_session, session(person, bytes([number]), method=method))
        for number, (person, method) in enumerate(
            ((ann, "provider:corp"), (bob, "provider:corp"), (ann, "passkey:1"), (ann, "provider:corp2"))
        )
    ]
    mine = await database.run(signin.end_sessions, NOW, user_id=ann, method="provider:corp")
    assert mine == [made[0].id]
    assert await database.run(signin.end_sessions, NOW, method="provider:corp") == [made[1].id]
    assert [one.id for one in await database.read(signin.open_sessions, NOW)] == [made[2].id, made[3].id]


async def test_nothing_of_a_person_stays_and_nothing_of_another_goes(
    database: Database, ann: int, bob: int
) -> None:
    for number, person in enumerate((ann, bob)):
        secret = bytes([number])
        await database.run(signin.insert_passkey, passkey(person, secret))
        await database.run(signin.insert_session, session(person, secret))
        await database.run(signin.insert_asking, asking(secret, user_id=person))
        await database.run(signin.replace_recovery_codes, person, [secret])
    counts = await database.run(signin.delete_all_of, ann)
    assert counts == {
        "passkeys": 1,
        "identities": 0,
        "sessions": 1,
        "invitations": 0,
        "recovery_codes": 1,
        "askings": 1,
    }
    await database.run(users.delete, ann)
    assert len(await database.read(signin.passkeys_of, bob)) == 1
    assert len(await database.read(signin.open_sessions, NOW)) == 1


async def test_what_is_over_is_forgotten(database: Database, ann: int) -> None:
    await database.run(signin.insert_session, session(ann))
    kept = await database.run(
        signin.insert_session, session(ann, b"other", expires=LATER + timedelta(days=1))
    )
    assert await database.run(signin.delete_over, LATER + timedelta(seconds=1)) == 1
    assert await database.read(signin.open_sessions, NOW) == [kept]
