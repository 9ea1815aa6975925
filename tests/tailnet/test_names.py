import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.errors import BadInput
from doorward.tailnet.names import check_label, label_of, unique

LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@pytest.mark.parametrize(
    ("hostname", "label"),
    [
        ("laptop", "laptop"),
        ("Ann's MacBook Pro.local", "ann-s-macbook-pro"),
        ("web-1.example.com", "web-1"),
        ("__", "node"),
        ("", "node"),
        ("机器", "node"),
        ("a" * 100, "a" * 63),
        ("-x-", "x"),
    ],
)
def test_hostnames_become_labels(hostname: str, label: str) -> None:
    assert label_of(hostname) == label


@given(st.text())
def test_whatever_a_client_says_becomes_a_label(hostname: str) -> None:
    assert LABEL.fullmatch(label_of(hostname))


@given(st.from_regex(LABEL, fullmatch=True), st.integers(0, 30))
def test_a_taken_name_gets_a_number(base: str, others: int) -> None:
    taken: set[str] = set()
    for _ in range(others + 1):
        name = unique(base, taken.__contains__)
        assert LABEL.fullmatch(name)
        assert name not in taken
        taken.add(name)


def test_the_first_number_is_one() -> None:
    assert unique("web", {"web", "web-1"}.__contains__) == "web-2"


def test_a_chosen_name_is_checked() -> None:
    assert check_label(" Web-1 ") == "web-1"
    for name in ("", "a b", "-a", "a.b", "x" * 64, "ä"):
        with pytest.raises(BadInput, match="cannot be a node's name"):
            check_label(name)
