"""What changed between two texts, line by line: for the history of the policy.

Finding the smallest difference can take quadratic time, and the texts come from outside. So lines that both texts have at
their beginning and end are set aside first, and where very much is left in between, that counts as replaced as a whole.
"""

from collections.abc import Iterator
from difflib import SequenceMatcher

# Pairs of lines that are compared at most: a tenth of a second. A policy of a thousand lines can be rewritten below it.
_PAIRS = 1_000_000

CONTEXT = 3  # unchanged lines shown around a change

_Change = tuple[int, int, int, int]  # lines [a, b) of the old text became lines [c, d) of the new one

_NO_END = "\\ No newline at end of file"


def count_changes(old: str, new: str) -> tuple[int, int]:
    """How many lines the new text has added, and how many it has removed."""
    added = removed = 0
    for a, b, c, d in _changes(_lines(old), _lines(new)):
        added += d - c
        removed += b - a
    return added, removed


def unified(old: str, new: str, old_name: str, new_name: str) -> str:
    """The difference in the unified form that ``patch`` reads; empty for equal texts."""
    before, after = _lines(old), _lines(new)
    shown: list[str] = []
    for group in _groups(_changes(before, after)):
        shown += _hunk(group, before, after)
    if not shown:
        return ""
    return "\n".join((f"--- {old_name}", f"+++ {new_name}", *shown)) + "\n"


def _lines(text: str) -> list[str]:
    """Lines with their ends: only a line feed ends one, as in the places of diagnostics."""
    *ended, last = text.split("\n")
    return [line + "\n" for line in ended] + ([last] if last else [])


def _changes(old: list[str], new: list[str]) -> list[_Change]:
    first, shorter = 0, min(len(old), len(new))
    while first < shorter and old[first] == new[first]:
        first += 1
    last = 0
    while last < shorter - first and old[-1 - last] == new[-1 - last]:
        last += 1
    middle, other = old[first : len(old) - last], new[first : len(new) - last]
    if not middle and not other:
        return []
    if not middle or not other or len(middle) * len(other) > _PAIRS:
        return [(first, first + len(middle), first, first + len(other))]
    found = SequenceMatcher(None, middle, other, autojunk=False).get_opcodes()
    return [(first + a, first + b, first + c, first + d) for tag, a, b, c, d in found if tag != "equal"]


def _groups(changes: list[_Change]) -> Iterator[list[_Change]]:
    """Changes so near to each other that their context would meet."""
    group: list[_Change] = []
    for change in changes:
        if group and change[0] - group[-1][1] > 2 * CONTEXT:
            yield group
            group = []
        group.append(change)
    if group:
        yield group


def _hunk(group: list[_Change], old: list[str], new: list[str]) -> Iterator[str]:
    start = max(0, group[0][0] - CONTEXT)
    lead = group[0][0] - start
    end = min(len(old), group[-1][1] + CONTEXT)
    new_start = group[0][2] - lead
    new_end = group[-1][3] + end - group[-1][1]
    yield f"@@ -{_span(start, end)} +{_span(new_start, new_end)} @@"
    at = start
    for a, b, c, d in group:
        yield from _marked(" ", old[at:a])
        yield from _marked("-", old[a:b])
        yield from _marked("+", new[c:d])
        at = b
    yield from _marked(" ", old[at:end])


def _span(start: int, end: int) -> str:
    """Line numbers as ``patch`` counts them: from 1, and an empty span by the line before it."""
    length = end - start
    if length == 1:
        return str(start + 1)
    return f"{start + 1 if length else start},{length}"


def _marked(mark: str, lines: list[str]) -> Iterator[str]:
    for line in lines:
        yield mark + line.removesuffix("\n")
        if not line.endswith("\n"):
            yield _NO_END
