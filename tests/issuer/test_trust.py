"""Whose apps may come by themselves."""

import pytest

from doorward.issuer.trust import Trust

DOCUMENT = "https://claude.ai/oauth/client.json"


@pytest.mark.parametrize(
    ("trust", "person", "stranger"),
    [
        (Trust(), True, False),
        (Trust(documents="off"), False, False),
        (Trust(documents="anyone"), True, True),
        (Trust(documents="off", hosts=("claude.ai",)), True, True),
        (Trust(documents="off", hosts=("other.ai",)), False, False),
        (Trust(blocked=("claude.ai",)), False, False),
        (Trust(documents="anyone", blocked=("claude.ai",)), False, False),
        (Trust(hosts=("claude.ai",), blocked=("claude.ai",)), False, False),
        (Trust(documents="anyone", blocked=("*.claude.ai",)), True, True),
    ],
)
def test_at_whose_word_an_address_is_looked_at(trust: Trust, person: bool, stranger: bool) -> None:
    assert trust.looks_at(DOCUMENT, for_person=True) is person
    assert trust.looks_at(DOCUMENT, for_person=False) is stranger


@pytest.mark.parametrize(
    ("pattern", "url", "named"),
    [
        ("claude.ai", "https://claude.ai/x", True),
        ("claude.ai", "https://Claude.AI:8443/x", True),
        ("Claude.ai", "https://claude.ai./x", True),
        ("claude.ai", "https://evil.example/claude.ai", False),
        ("claude.ai", "https://claude.ai@evil.example/x", False),
        ("claude.ai", "https://xclaude.ai/x", False),
        ("claude.ai", "https://claude.ai.evil.example/x", False),
        ("claude.ai", "https://sub.claude.ai/x", False),
        ("*.claude.ai", "https://sub.claude.ai/x", True),
        ("*.claude.ai", "https://a.b.claude.ai/x", True),
        ("*.claude.ai", "https://claude.ai/x", False),
        ("*.claude.ai", "https://xclaude.ai/x", False),
        ("*", "https://claude.ai/x", False),
        ("claude.ai", "https://[::1/", False),
    ],
)
def test_a_host_is_named_whole(pattern: str, url: str, named: bool) -> None:
    assert Trust(hosts=(pattern,)).knows(url) is named
    assert Trust(blocked=(pattern,)).blocks(url) is named


def test_where_an_app_may_be_answered_that_anybody_has_registered() -> None:
    trust = Trust(callbacks=("a.example", "*.b.example"), blocked=("evil.b.example",))
    assert trust.answers("https://a.example/back")
    assert trust.answers("https://x.b.example/back")
    for wrong in (
        "http://a.example/back",
        "https://evil.b.example/back",
        "https://c.example/",
        "a.example:/",
    ):
        assert not trust.answers(wrong)
    assert not Trust(hosts=("a.example",)).answers("https://a.example/back")


def test_whether_there_may_be_any() -> None:
    assert Trust().any_documents
    assert Trust(documents="off", hosts=("claude.ai",)).any_documents
    assert not Trust(documents="off").any_documents
