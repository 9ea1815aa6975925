"""Ways to sign in, put into the store as if a person had done it."""

from typing import Any

from tests.support import nouns
from tests.support.world import World

from doorward.model import Identity, Passkey, Provider, Session, User
from doorward.store import signin
from doorward.tailnet import secrets

ORIGIN = "https://door.test"


async def give_passkey(world: World, user: User, name: str = "laptop") -> Passkey:
    """A passkey of theirs."""
    draft = Passkey(
        id=0,
        user_id=user.id,
        credential=f"{user.name} {name}".encode(),
        public_key=b"cose",
        count=0,
        name=name,
        place="door.test",
        created=world.clock.now(),
    )
    return await world.registry.writer.database.run(signin.insert_passkey, draft)


def cookie(user: User, secret: str = "cookie") -> str:
    """What the browser of a session of theirs sends."""
    return f"{user.name}-{secret}"


async def sign_in(world: World, user: User, secret: str = "cookie", **fields: Any) -> Session:
    """A session of theirs, proven this moment."""
    draft = nouns.session(
        user.id,
        world.clock.now(),
        **{"secret_hash": secrets.digest(cookie(user, secret)), "origin": ORIGIN, **fields},
    )
    return await world.registry.writer.database.run(signin.insert_session, draft)


async def give_identity(world: World, user: User) -> Identity:
    """A subject of an outside provider that is them."""
    now = world.clock.now()
    database = world.registry.writer.database
    provider = Provider(id=0, name="corp", issuer="https://id.test", client_id="doorward", created=now)
    made = await database.run(signin.insert_provider, provider)
    draft = Identity(id=0, provider_id=made.id, subject="s", user_id=user.id, created=now)
    return await database.run(signin.insert_identity, draft)


async def give_recovery_codes(world: World, user: User, *codes: str) -> None:
    """Recovery codes of theirs."""
    hashes = [secrets.digest(code) for code in codes]
    await world.registry.writer.database.run(signin.replace_recovery_codes, user.id, hashes)
