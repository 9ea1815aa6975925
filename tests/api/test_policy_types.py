"""What travels about the policy."""

import subprocess
import sys
from typing import Any

import msgspec
import pytest

from doorward.api import policy_types as types
from doorward.api.types import Answer, Request


def _here(root: type[msgspec.Struct]) -> list[type[msgspec.Struct]]:
    kinds = [kind for kind in vars(types).values() if isinstance(kind, type) and issubclass(kind, root)]
    return [kind for kind in kinds if kind.__module__ == types.__name__]


@pytest.mark.parametrize("kind", _here(Request), ids=lambda kind: kind.__name__)
def test_requests_refuse_fields_they_do_not_know(kind: type[msgspec.Struct]) -> None:
    assert kind.__struct_config__.forbid_unknown_fields
    assert kind.__struct_config__.frozen


@pytest.mark.parametrize("kind", _here(Answer), ids=lambda kind: kind.__name__)
def test_answers_may_gain_fields(kind: type[msgspec.Struct]) -> None:
    assert not kind.__struct_config__.forbid_unknown_fields
    assert kind.__struct_config__.frozen


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        ({"do": "add-name", "section": "hosts", "key": "a", "name": "b"}, "section"),
        ({"do": "remove-rule", "section": "grants", "number": -1}, "number"),
        ({"do": "add-rule", "section": "grants", "rule": []}, "rule"),
        ({"section": "grants", "number": 1}, "do"),
        ({"do": "set-host", "name": "a"}, "address"),
    ],
)
def test_an_edit_says_what_it_does(edit: dict[str, Any], fault: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=fault):
        msgspec.convert({"edits": [edit]}, type=types.PolicyEdits)


def test_a_comment_is_a_sentence_and_no_book() -> None:
    assert msgspec.convert({"comment": "x" * 500}, type=types.Rollback).comment
    with pytest.raises(msgspec.ValidationError, match="comment"):
        msgspec.convert({"comment": "x" * 501}, type=types.Rollback)


def test_loading_it_loads_neither_server_nor_framework() -> None:
    program = "import sys, doorward.api.policy_types; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    heavy = {"starlette", "sqlalchemy", "cryptography", "structlog", "doorward.model", "doorward.policy"}
    assert not heavy & set(loaded.split())
