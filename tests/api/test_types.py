"""What travels: light to load, in step with the model, and strict about what it takes."""

import subprocess
import sys
from typing import get_args

import msgspec
import pytest

from doorward.api import types
from doorward.model import Role


def test_the_role_names_are_the_roles() -> None:
    assert get_args(types.RoleName) == tuple(role.value for role in Role)


def every(kind: type[msgspec.Struct]) -> list[type[msgspec.Struct]]:
    return [kind, *(deeper for child in kind.__subclasses__() for deeper in every(child))]


@pytest.mark.parametrize("kind", every(types.Request), ids=lambda kind: kind.__name__)
def test_requests_refuse_fields_they_do_not_know(kind: type[msgspec.Struct]) -> None:
    assert kind.__struct_config__.forbid_unknown_fields
    assert kind.__struct_config__.frozen


@pytest.mark.parametrize("kind", every(types.Answer), ids=lambda kind: kind.__name__)
def test_answers_may_gain_fields(kind: type[msgspec.Struct]) -> None:
    assert not kind.__struct_config__.forbid_unknown_fields
    assert kind.__struct_config__.frozen


def test_a_lifetime_is_neither_nothing_nor_for_ever() -> None:
    for seconds in (0, -1, 3650 * types.DAY + 1):
        with pytest.raises(msgspec.ValidationError, match="expires_in"):
            msgspec.json.decode(f'{{"expires_in": {seconds}}}', type=types.NewKey)


def test_loading_it_loads_neither_server_nor_framework() -> None:
    program = "import sys, doorward.api.types; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    heavy = {"starlette", "sqlalchemy", "cryptography", "structlog", "doorward.model", "doorward.tailnet"}
    assert not heavy & set(loaded.split())
