"""Who has to go when there are too many, and who never."""

from hypothesis import given
from hypothesis import strategies as st

from doorward.transport.lobby import Guest, Lobby


class Visit:
    """A guest, and whether its connection was cut."""

    def __init__(self, lobby: Lobby, source: str) -> None:
        self.was_cut = False
        guest = lobby.enter(source)
        assert guest is not None
        self.guest = guest
        guest.closes_by(self._cut)

    def _cut(self) -> None:
        self.was_cut = True


def test_the_busiest_source_makes_room_by_its_idlest() -> None:
    lobby = Lobby(guests=4, room=100)
    alone = Visit(lobby, "192.0.2.1")
    flood = [Visit(lobby, "192.0.2.66") for _ in range(3)]
    flood[0].guest.touch()
    Visit(lobby, "192.0.2.66")
    assert [visit.was_cut for visit in flood] == [False, True, False]
    other = Visit(lobby, "192.0.2.2")
    assert [visit.was_cut for visit in flood] == [False, True, True]
    assert not alone.was_cut
    assert not other.was_cut
    assert len(lobby) == 4


def test_nodes_and_those_who_wait_for_us_stay() -> None:
    lobby = Lobby(guests=2, room=100)
    node, waiting, idle = (Visit(lobby, "a") for _ in range(3))
    assert node.was_cut  # not settled yet, and the idlest of three
    waiting.guest.wait()
    later = Visit(lobby, "a")
    assert idle.was_cut
    later.guest.wait()
    assert lobby.enter("a") is None  # both wait for us: nobody can make room
    waiting.guest.go_on()
    waiting.guest.settle()
    for _ in range(10):
        Visit(lobby, "a")
    assert not waiting.was_cut
    assert not later.was_cut
    waiting.guest.unsettle()
    for _ in range(2):
        Visit(lobby, "a")
    assert waiting.was_cut


def test_beyond_the_room_nobody_comes_in_but_for_a_guest_that_goes() -> None:
    lobby = Lobby(guests=100, room=3)
    nodes = [Visit(lobby, "a") for _ in range(2)]
    for visit in nodes:
        visit.guest.settle()
    stranger = Visit(lobby, "b")
    newcomer = Visit(lobby, "c")
    assert stranger.was_cut
    newcomer.guest.settle()
    assert lobby.enter("d") is None
    nodes[0].guest.leave()
    nodes[0].guest.leave()  # twice is once
    assert len(lobby) == 2
    assert lobby.enter("d") is not None


def test_a_guest_of_no_lobby_is_nobodys_business() -> None:
    guest = Guest("a")
    guest.closes_by(lambda: None)
    guest.wait()
    guest.settle()
    guest.unsettle()
    guest.touch()
    guest.leave()
    assert not guest.is_settled


_acts = st.lists(
    st.tuples(
        st.sampled_from(["enter", "settle", "unsettle", "wait", "go on", "touch", "leave"]),
        st.integers(0, 7),
        st.sampled_from("abc"),
    ),
    max_size=60,
)


@given(_acts)
def test_the_counts_are_right_whatever_happens(acts: list[tuple[str, int, str]]) -> None:
    lobby = Lobby(guests=5, room=6)
    visits: list[Visit] = []
    gone: set[int] = set()
    for act, number, source in acts:
        if act == "enter":
            guest = lobby.enter(source)
            if guest is not None:
                visit = Visit.__new__(Visit)
                visit.was_cut, visit.guest = False, guest
                guest.closes_by(visit._cut)
                visits.append(visit)
        elif number < len(visits):
            guest = visits[number].guest
            if act == "leave":
                gone.add(number)
            {
                "settle": guest.settle,
                "unsettle": guest.unsettle,
                "wait": guest.wait,
                "go on": guest.go_on,
                "touch": guest.touch,
                "leave": guest.leave,
            }[act]()
    there = [visit for number, visit in enumerate(visits) if not visit.was_cut and number not in gone]
    assert len(lobby) == len(there) <= 6
    idle = [one for one in there if not one.guest.is_settled and not one.guest._waits_for_us]
    assert lobby.idle == len(idle)
    for left in reversed(range(lobby.idle)):
        assert lobby.make_room("test")
        assert lobby.idle == left
    assert not lobby.make_room("test")
