import pytest

from doorward.identity.caller import KEY, Identity, caller, token_of


def test_the_scope_says_who() -> None:
    who = Identity(subject="n1")
    assert caller({KEY: who}) is who
    assert caller({KEY: None}) is None


def test_without_the_middleware_there_is_no_answer() -> None:
    with pytest.raises(KeyError):
        caller({})


def test_capabilities_are_lists_or_nothing() -> None:
    who = Identity(subject="n1", capabilities={"example.com/a": [{"x": 1}], "example.com/b": None})
    assert who.capability("example.com/a") == [{"x": 1}]
    assert who.capability("example.com/b") == []
    assert who.capability("example.com/c") == []


def test_who_acts_for_them_is_told_nearest_first() -> None:
    act = {"sub": "gateway", "act": {"sub": "client", "act": {"sub": 7}}}
    assert Identity(subject="s1", claims={"act": act}).actors == ("gateway", "client")
    for odd in ({}, {"act": "x"}, {"act": {"act": {"sub": "x"}}}):
        assert Identity(subject="s1", claims=odd).actors == ()


def test_the_token_is_told_to_who_asks_for_it_and_stands_nowhere_else() -> None:
    who = Identity(subject="s1", claims={"sub": "s1"})
    scope = {KEY: who, "headers": [(b"host", b"a"), (b"Authorization", b"DPoP  abc ")]}
    assert token_of(scope) == "abc"
    assert "abc" not in repr(who)
    assert token_of({**scope, KEY: Identity(subject="n1", login="ann")}) == ""
    assert token_of({**scope, KEY: None}) == ""
