from doorward.policy import Diagnostic, PolicyError
from doorward.policy.document import Kind, Selector


def test_an_error_tells_all_in_the_order_of_the_file() -> None:
    error = PolicyError(
        [Diagnostic("p.hujson", 7, 2, "second", "do that"), Diagnostic("p.hujson", 3, 9, "first", "do this")]
    )
    assert str(error) == "p.hujson:3:9: first\np.hujson:7:2: second"
    assert error.place == "p.hujson:3:9"
    assert error.cure == "do this"
    assert error.status == 400
    assert error.public()["diagnostics"] == [
        {"line": 3, "column": 9, "message": "first", "cure": "do this"},
        {"line": 7, "column": 2, "message": "second", "cure": "do that"},
    ]


def test_the_spelling_of_a_selector_does_not_matter() -> None:
    assert Selector(Kind.USER, "a", text="A") == Selector(Kind.USER, "a", text="a")
    assert len({Selector(Kind.USER, "a", text="A"), Selector(Kind.USER, "a", text="a")}) == 1
    assert Selector(Kind.AUTOGROUP, "self").is_autogroup("self")
    assert not Selector(Kind.USER, "self").is_autogroup("self")
