from datetime import timedelta
from typing import Any

import pytest
from tests.support.nouns import NOW

from doorward.errors import Conflict
from doorward.model import Check, CheckState
from doorward.store import Database, checks

END = NOW + timedelta(minutes=10)


def check(number: int, **fields: Any) -> Check:
    values: dict[str, Any] = {
        "id": 0,
        "link": f"link{number}",
        "code": "ABC-DEF",
        "source_id": 1,
        "target_id": 2,
        "user_id": 3,
        "ssh_user": "root",
        "account": "root",
        "rule": "ssh[0]",
        "rule_digest": "0" * 32,
        "period": 3600,
        "approvers": ("ann", "group:ö"),
        "created": NOW,
        "expires": END,
    }
    return Check(**(values | fields))


async def test_a_check_is_kept_with_all_that_it_is_bound_to(database: Database) -> None:
    stored = await database.run(checks.insert, check(1, user_id=None))
    assert await database.read(checks.by_id, stored.id) == stored
    assert await database.read(checks.load_all) == [stored]
    assert await database.read(checks.by_ids, [stored.id, 4711]) == [stored]
    assert await database.read(checks.by_ids, []) == []
    assert await database.read(checks.by_id, 4711) is None
    with pytest.raises(Conflict) as refused:
        await database.run(checks.insert, check(1))
    assert refused.value.place == "ssh_checks.link"


async def test_it_is_decided_once_and_in_time(database: Database) -> None:
    first, second = [await database.run(checks.insert, check(number)) for number in (1, 2)]
    until = NOW + timedelta(hours=1)
    approved = (first.id, CheckState.APPROVED, "cli", NOW, until)
    assert await database.run(checks.decide, *approved)
    assert not await database.run(checks.decide, first.id, CheckState.DENIED, "token:1", NOW, None)
    assert not await database.run(checks.decide, second.id, CheckState.APPROVED, "cli", END, until)
    found = await database.read(checks.by_id, first.id)
    assert found is not None
    assert (found.state, found.decided, found.decided_by, found.until) == (
        CheckState.APPROVED,
        NOW,
        "cli",
        until,
    )
    assert await database.read(checks.of_source, 1, NOW) == [second]
    assert await database.read(checks.of_source, 1, END) == []
    assert await database.read(checks.of_source, 2, NOW) == []


async def test_what_counts_no_longer_is_forgotten(database: Database) -> None:
    waits = await database.run(checks.insert, check(1, expires=END + timedelta(seconds=1)))
    over = await database.run(checks.insert, check(2))
    counts = await database.run(checks.insert, check(3))
    await database.run(checks.decide, counts.id, CheckState.APPROVED, "cli", NOW, END + timedelta(hours=1))
    assert await database.run(checks.delete_over, NOW) == []
    assert await database.run(checks.delete_over, END) == [over.id]
    assert [each.id for each in await database.read(checks.load_all)] == [waits.id, counts.id]
    assert await database.run(checks.delete_over, END + timedelta(hours=1)) == [waits.id, counts.id]
