"""Differences between texts: they turn the old into the new, and no text takes long."""

import re
import time

from hypothesis import given
from hypothesis import strategies as st

from doorward.policy.textdiff import count_changes, unified

TEXTS = st.lists(st.sampled_from(["a", "b", "c", "{", "}", "", "x\x0by"]), max_size=30).map("\n".join)


def applied(old: str, difference: str) -> str:
    """What a reader of the unified form makes of the old text: every line of it is checked on the way."""
    before = re.findall(r"[^\n]*\n|[^\n]+", old)
    made: list[str] = []
    at = 0
    lines = difference.split("\n")[2:-1]
    for index, line in enumerate(lines):
        if hunk := re.fullmatch(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@", line):
            start = int(hunk[1]) - (hunk[2] != "0")
            made += before[at:start]
            at = start
            assert len(made) == int(hunk[3]) - (hunk[4] != "0")
        elif line[0] in " -+":
            ends = lines[index + 1 : index + 2] != ["\\ No newline at end of file"]
            text = line[1:] + ("\n" if ends else "")
            if line[0] in " -":
                assert before[at] == text
                at += 1
            if line[0] in " +":
                made.append(text)
    return "".join(made + before[at:])


def test_the_form_is_the_usual_one() -> None:
    old = "".join(f"{number}\n" for number in range(1, 21))
    new = old.replace("3\n", "three\n", 1).replace("17\n", "").replace("20\n", "20")
    assert unified(old, new, "version 1", "version 2") == (
        "--- version 1\n+++ version 2\n"
        "@@ -1,6 +1,6 @@\n 1\n 2\n-3\n+three\n 4\n 5\n 6\n"
        "@@ -14,7 +14,6 @@\n 14\n 15\n 16\n-17\n 18\n 19\n-20\n+20\n\\ No newline at end of file\n"
    )
    assert count_changes(old, new) == (2, 3)


def test_equal_texts_have_no_difference() -> None:
    assert unified("a\nb", "a\nb", "x", "y") == ""
    assert count_changes("", "") == (0, 0)


@given(TEXTS, TEXTS)
def test_the_difference_turns_the_old_text_into_the_new(old: str, new: str) -> None:
    difference = unified(old, new, "text", "text")
    assert applied(old, difference) == new
    marks = [line[0] for line in difference.split("\n")[2:] if line]
    assert count_changes(old, new) == (marks.count("+"), marks.count("-"))


def test_a_text_made_to_be_slow_is_not() -> None:
    old = "a\nb\n" * 100_000
    new = "b\na\n" * 100_000
    started = time.process_time()
    assert count_changes(old, new) == (200_000, 200_000)
    short, other = "a\nb\n" * 499, "b\na\n" * 499
    assert count_changes(short, other) == (1, 1)
    assert time.process_time() - started < 5
