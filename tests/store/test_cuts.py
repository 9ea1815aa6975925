from datetime import timedelta

import pytest
from tests.support.nouns import NOW, SOON

from doorward.errors import Conflict, NotFound
from doorward.model import Cut
from doorward.store import Database, cuts


def cut(first: int, second: int, **fields: object) -> Cut:
    values = {"id": 0, "first": first, "second": second, "created": NOW, "created_by": "cli"}
    return Cut(**(values | fields))  # type: ignore[arg-type]


async def test_a_cut_is_kept_once_for_each_pair(database: Database) -> None:
    stored = await database.run(cuts.insert, cut(1, 2, expires=SOON, comment="ö"))
    assert await database.read(cuts.load_all) == [stored]
    assert await database.read(cuts.by_pair, 1, 2) == stored
    assert await database.read(cuts.by_pair, 2, 1) is None
    assert await database.read(cuts.by_ids, [stored.id, 4711]) == [stored]
    assert await database.read(cuts.by_ids, []) == []
    with pytest.raises(Conflict) as refused:
        await database.run(cuts.insert, cut(1, 2))
    assert refused.value.place == "cuts.first, cuts.second"
    longer = cut(1, 2, id=stored.id, expires=None)
    assert await database.run(cuts.update, longer) == longer
    assert await database.read(cuts.load_all) == [longer]
    await database.run(cuts.delete, stored.id)
    assert await database.read(cuts.load_all) == []
    for act, wanted in ((cuts.delete, stored.id), (cuts.update, longer)):
        with pytest.raises(NotFound):
            await database.run(act, wanted)  # type: ignore[arg-type]


async def test_those_that_are_over_and_those_of_a_node_are_found(database: Database) -> None:
    made = [
        await database.run(cuts.insert, one)
        for one in (cut(1, 2, expires=SOON), cut(2, 3), cut(3, 4, expires=SOON + timedelta(seconds=1)))
    ]
    assert await database.read(cuts.over, SOON - timedelta(microseconds=1)) == []
    assert await database.read(cuts.over, SOON) == made[:1]
    assert await database.run(cuts.delete_of, (2,)) == [made[0].id, made[1].id]
    assert await database.run(cuts.delete_of, (2,)) == []
    assert await database.read(cuts.load_all) == made[2:]
