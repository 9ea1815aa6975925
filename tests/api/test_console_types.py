"""What travels between the console's pages and the API."""

import pytest

from doorward.api import console_types as types
from doorward.api.types import Answer

KINDS = [
    kind
    for kind in vars(types).values()
    if isinstance(kind, type) and issubclass(kind, Answer) and kind.__module__ == types.__name__
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_answers_may_gain_fields(kind: type[Answer]) -> None:
    assert not kind.__struct_config__.forbid_unknown_fields
    assert kind.__struct_config__.frozen
    assert kind.__doc__
