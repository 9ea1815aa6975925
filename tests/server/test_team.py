"""What travels from the parent to a worker."""

from datetime import UTC, datetime
from pathlib import Path

from tests.support.workers import settings_in

from doorward.config.settings import Database
from doorward.server.team import Team, decode_payload, encode_payload

PATHS = tuple(Path(f"/data/worker-{number}.sock") for number in (1, 2, 3))


def test_a_payload_comes_out_as_it_went_in() -> None:
    settings = settings_in(Path("/data"), database=Database(url="postgresql://x:secret@/y"), workers=3)
    team = Team(number=2, paths=PATHS, mesh_key="5a" * 32, started=datetime(2026, 1, 2, tzinfo=UTC))
    assert decode_payload(encode_payload(settings, team)) == (settings, team)
    assert decode_payload(encode_payload(settings, Team())) == (settings, Team())


def test_a_team_of_one_has_nobody_else() -> None:
    alone = Team()
    assert (alone.size, alone.others(), alone.path_of(1), alone.path_of(2)) == (1, [], None, None)
    assert alone.installation("abc") == "abc"


def test_each_knows_the_others_by_their_number() -> None:
    second = Team(number=2, paths=PATHS)
    assert second.size == 3
    assert second.others() == [PATHS[0], PATHS[2]]
    assert second.path_of(1) == PATHS[0]
    assert [second.path_of(number) for number in (0, 2, 4)] == [None, None, None]


def test_the_first_is_the_one_that_a_lone_worker_was() -> None:
    assert Team(number=1, paths=PATHS).installation("abc") == "abc"
    assert Team(number=3, paths=PATHS).installation("abc") == "abc/3"


def test_the_mesh_key_is_not_shown() -> None:
    assert "5a5a" not in repr(Team(mesh_key="5a" * 32))
