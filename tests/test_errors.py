"""The error tree: each kind has its own public answer, and an answer never says more than it should."""

import pytest

from doorward.errors import (
    BadInput,
    Conflict,
    DoorwardError,
    LocalProtocolError,
    NotFound,
    NotPermitted,
    ProtocolError,
    RemoteProtocolError,
    TooMany,
    Unauthenticated,
    Unavailable,
)

ANSWERS: dict[type[DoorwardError], tuple[int, str]] = {
    DoorwardError: (500, "internal"),
    BadInput: (400, "bad-input"),
    Unauthenticated: (401, "unauthenticated"),
    NotPermitted: (403, "not-permitted"),
    NotFound: (404, "not-found"),
    Conflict: (409, "conflict"),
    TooMany: (429, "too-many"),
    Unavailable: (503, "unavailable"),
    LocalProtocolError: (500, "protocol"),
    RemoteProtocolError: (400, "protocol"),
}


def test_each_kind_has_an_answer_of_its_own() -> None:
    # Clients of the API and scripts tell errors apart by these: a change here breaks them.
    assert {kind: (kind.status, kind.problem) for kind in ANSWERS} == ANSWERS
    assert len(set(ANSWERS.values())) == len(ANSWERS)


def test_every_kind_of_this_module_is_in_the_table() -> None:
    def below(kind: type[DoorwardError]) -> set[type[DoorwardError]]:
        return {kind}.union(*(below(child) for child in kind.__subclasses__()))

    here = {kind for kind in below(DoorwardError) if kind.__module__ == DoorwardError.__module__}
    assert here == {*ANSWERS, ProtocolError}
    assert all(issubclass(kind, ProtocolError) for kind in (LocalProtocolError, RemoteProtocolError))


@pytest.mark.parametrize("kind", ANSWERS)
def test_the_public_answer_is_a_problem_without_the_detail(kind: type[DoorwardError]) -> None:
    bare = kind("it did not work", detail="SELECT secret")
    assert bare.public() == {"type": kind.problem, "title": "it did not work", "status": kind.status}
    full = kind("it did not work", cure="Try again.", place="policy:1:2", detail="SELECT secret")
    assert full.public() == bare.public() | {"cure": "Try again.", "place": "policy:1:2"}
    assert str(full) == "it did not work"
    for shown in (str(full), repr(full), full.sentence(), str(full.public())):
        assert "SELECT" not in shown


@pytest.mark.parametrize(
    ("message", "cure", "sentence"),
    [
        ("no such node", "", "no such node"),
        ("no such node", "List them.", "no such node. List them."),
        ("no such node.", "List them.", "no such node. List them."),
        ("really?", "List them.", "really? List them."),
        ("one of these:", "a, b", "one of these: a, b"),
    ],
)
def test_message_and_cure_are_one_line_that_reads_well(message: str, cure: str, sentence: str) -> None:
    assert DoorwardError(message, cure=cure).sentence() == sentence


def test_the_kind_of_a_subclass_elsewhere_is_inherited() -> None:
    class Full(TooMany):
        pass

    assert Full("the queue is full").public()["status"] == 429
