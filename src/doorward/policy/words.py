"""How a word of the policy is refused, and the nearest one that would be understood."""

from collections.abc import Collection
from difflib import get_close_matches

from doorward.errors import BadInput


class WordError(BadInput):
    """A word of the policy that is not understood; ``cure`` says what would be."""

    problem = "bad-policy"

    def __init__(self, message: str, cure: str = "") -> None:
        super().__init__(message, cure=cure)


def closest(word: str, known: Collection[str]) -> str:
    """The known word that a mistyped one was probably meant to be, or an empty string.

    A prefix such as ``tag:`` that they share says nothing about how near they are.
    """
    prefix, colon, rest = word.partition(":")
    shared = (prefix + colon).lower() if colon else ""
    lowered = {one.lower()[len(shared) :]: one for one in known if one.lower().startswith(shared)}
    near = get_close_matches((rest if colon else word).lower(), lowered, n=1, cutoff=0.6)
    return lowered[near[0]] if near else ""


def did_you_mean(word: str, known: Collection[str], otherwise: str) -> str:
    """A cure that names the closest known word, or ``otherwise``."""
    near = closest(word, known)
    return f'Did you mean "{near}"?' if near else otherwise
