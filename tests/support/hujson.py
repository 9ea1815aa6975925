"""Data, and HuJSON texts that mean it, with blanks, comments and commas in every place that allows them."""

import json
from random import Random

from hypothesis import strategies as st

_BLANKS = ["", " ", "\n\t", "// c\n", "/* c */", "/* / ** */ \r\n"]
_LEAF = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**15), 10**15),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)
DATA = st.recursive(
    _LEAF,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text('abc"\\é', max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)


def written_hujson(data: object, random: Random) -> str:
    """The data as HuJSON, with blanks, comments and trailing commas strewn in."""

    def gap() -> str:
        return random.choice(_BLANKS)

    if isinstance(data, dict):
        parts = [
            f"{gap()}{json.dumps(name)}{gap()}:{written_hujson(item, random)}" for name, item in data.items()
        ]
        return gap() + "{" + _listed(parts, gap(), random) + "}" + gap()
    if isinstance(data, list):
        return (
            gap()
            + "["
            + _listed([written_hujson(item, random) for item in data], gap(), random)
            + "]"
            + gap()
        )
    return gap() + json.dumps(data, ensure_ascii=random.random() < 0.5) + gap()


def _listed(parts: list[str], gap: str, random: Random) -> str:
    if not parts:
        return gap
    return ",".join(parts) + ("," + gap if random.random() < 0.5 else "")
