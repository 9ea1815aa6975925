import msgspec
import pytest

from doorward.store import Database, settings


class Cursor(msgspec.Struct, frozen=True):
    next: str
    tries: int = 0


async def test_a_setting_is_kept_replaced_and_removed(database: Database) -> None:
    assert await database.read(settings.get, "cursor", Cursor) is None
    await database.run(settings.put, "cursor", Cursor("100.64.0.1"))
    await database.run(settings.put, "cursor", Cursor("100.64.0.2", tries=3))
    assert await database.read(settings.get, "cursor", Cursor) == Cursor("100.64.0.2", tries=3)
    assert (await database.read(settings.load_all))["cursor"] == {"next": "100.64.0.2", "tries": 3}
    await database.run(settings.remove, "cursor")
    await database.run(settings.remove, "cursor")
    assert await database.read(settings.get, "cursor", Cursor) is None


async def test_a_setting_of_another_kind_is_an_error(database: Database) -> None:
    await database.run(settings.put, "cursor", 5)
    with pytest.raises(msgspec.ValidationError):
        await database.read(settings.get, "cursor", Cursor)
