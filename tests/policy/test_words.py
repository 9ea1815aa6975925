import pytest

from doorward.policy.words import WordError, closest, did_you_mean


@pytest.mark.parametrize(
    ("word", "known", "found"),
    [
        ("grnats", ["grants", "groups"], "grants"),
        ("SSHTEST", ["sshTests", "tests"], "sshTests"),
        ("tag:sevrer", ["tag:server", "tag:web"], "tag:server"),
        ("tag:x", ["group:x"], ""),
        ("quite else", ["grants"], ""),
        ("x", [], ""),
    ],
)
def test_the_closest_word(word: str, known: list[str], found: str) -> None:
    assert closest(word, known) == found


def test_a_cure_names_it_or_says_something_else() -> None:
    assert did_you_mean("acl", ["acls"], "no") == 'Did you mean "acls"?'
    assert did_you_mean("zzz", ["acls"], "Write acls.") == "Write acls."
    assert WordError("a", "b").cure == "b"
