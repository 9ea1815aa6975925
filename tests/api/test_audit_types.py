"""What travels about the audit log."""

import subprocess
import sys

import msgspec
import pytest

from doorward.api import audit_types as types
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


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_a_page_has_its_bounds(limit: int) -> None:
    for kind in (types.EventFilter, types.CheckpointFilter):
        with pytest.raises(msgspec.ValidationError, match="limit"):
            msgspec.convert({"limit": limit}, type=kind)


def test_the_command_line_pays_for_msgspec_alone() -> None:
    code = "import sys; import doorward.api.audit_types; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"starlette", "sqlalchemy", "cryptography", "asyncio"} & set(loaded.split())
